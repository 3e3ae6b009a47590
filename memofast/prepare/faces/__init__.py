"""Faces: found, tracked, turned into feature rows."""
