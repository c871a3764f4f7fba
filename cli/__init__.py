"""The `spk` command: options to a config, one call, a report. The only package that talks to the user."""
