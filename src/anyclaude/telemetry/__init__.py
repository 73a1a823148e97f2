"""What happened, as typed facts; never awaited by a request."""
