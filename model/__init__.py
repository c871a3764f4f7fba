"""The deblurring network: a video restoration transformer guided by spike features."""
