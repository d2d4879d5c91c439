"""From hidden states to token log-probabilities."""
