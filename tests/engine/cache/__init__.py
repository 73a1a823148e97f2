"""Tests of the KV blocks."""
