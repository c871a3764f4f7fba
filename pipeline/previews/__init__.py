"""Spikes as pictures, still and moving."""
