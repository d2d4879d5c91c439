"""The BNF paper's printed numbers, and ours beside them."""
