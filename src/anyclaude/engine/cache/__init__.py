"""KV blocks: computed once, shared by whoever has the same prefix, kept in memory and on disk."""
