"""Tokens and templates: what a model reads as text, and what kind of template it has. No MLX."""
