"""Optimizer steps: their plan, their layout, their loader."""
