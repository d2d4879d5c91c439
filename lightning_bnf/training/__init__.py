"""What a fit needs beside its module."""
