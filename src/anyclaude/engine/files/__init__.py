"""What a model folder holds, checked before anything of it is loaded, and its fingerprint."""
