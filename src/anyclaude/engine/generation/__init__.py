"""Reading prompts and writing answers."""
