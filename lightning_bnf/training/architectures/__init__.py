"""All causal language models that the installed transformers can build tiny, and what becomes of each."""
