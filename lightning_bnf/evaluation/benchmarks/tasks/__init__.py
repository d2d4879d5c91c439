"""Task definitions for lm-eval: YAML, and the functions that they name. Read through `evaluation/suites.py`."""
