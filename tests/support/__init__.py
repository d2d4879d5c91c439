"""What several tests share: tiny models, slow and obviously right versions, commands as users type them."""
