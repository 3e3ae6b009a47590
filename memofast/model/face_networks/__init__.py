"""Networks that make feature rows of faces: as extractors, and trained along with a model."""
