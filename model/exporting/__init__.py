"""Networks as programs that run where this code is not."""
