"""From a command line to a running Claude Code."""
