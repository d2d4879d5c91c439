"""Measures that need no generation: what a policy gives fixed texts, and how far that is from its base."""
