"""A spike camera beside an RGB camera, simulated: what they film, how they see it, what is written."""
