"""Recordings to stores to clips: everything that is not the network. Never imports `model` or `cli`."""
