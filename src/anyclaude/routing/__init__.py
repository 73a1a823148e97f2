"""Which backend and model a request goes to."""
