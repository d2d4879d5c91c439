"""Offline preference alignment of language models with the Bidirectional Negative Feedback loss."""

__version__ = "0.1.0"
