"""Benchmarks that lm-eval runs."""
