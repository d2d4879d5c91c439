"""Run folders as tables and plots."""
