"""Committed conversations: prompts as token ids that only grow. No MLX."""
