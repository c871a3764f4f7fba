"""What a spike file does not say about itself, found in its content."""
