"""Planning a run: what its steps need and take, foretold and tried on the device at hand."""
