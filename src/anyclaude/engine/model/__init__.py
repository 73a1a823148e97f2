"""Models whose weights are in memory, and their state."""
