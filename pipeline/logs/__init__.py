"""Logs of exposures: their dialects, their clock, and how far their times can be trusted."""
