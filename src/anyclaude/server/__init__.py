"""The HTTP edge: guard, endpoints, keep-alive, errors."""
