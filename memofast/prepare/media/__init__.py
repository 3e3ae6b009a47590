"""Media files: what is in them, decoded."""
