"""Names of what gives a frame, in tables, pictures and files; every other name is one that the user chose."""

RESTORED, BLURRY, SPIKE_ONLY, SHARP, SPIKES = "restored", "blurry", "spike_only", "sharp", "spikes"
FIXED = (RESTORED, BLURRY, SPIKE_ONLY, SHARP, SPIKES)
