"""Will it fit? One optimizer step is run on tensors without contents, of the model's config alone."""
