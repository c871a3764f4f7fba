"""What an evaluation is made of: who restores, how it is scored, what is shown of it."""
