"""What a data file says: columns, formats, messages, and what is refused."""
