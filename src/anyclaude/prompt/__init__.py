"""The prompt in the one form that every backend renders from."""
