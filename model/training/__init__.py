"""The training loop and what belongs to it: state, schedule, listeners, the folder of a run."""
