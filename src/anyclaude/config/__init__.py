"""Settings, read once, each with the place it came from."""
