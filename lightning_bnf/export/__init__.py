"""From a trained policy to folders that transformers, peft and vLLM load."""
