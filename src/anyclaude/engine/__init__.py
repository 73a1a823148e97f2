"""The embedded engine: models, prompts as tokens, KV state. It runs in a child process; no other room imports it."""
