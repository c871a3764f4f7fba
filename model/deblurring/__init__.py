"""What restoring a user's own recording is made of."""
