"""Completions and answer files."""
