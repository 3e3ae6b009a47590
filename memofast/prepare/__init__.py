"""Media to features: decoding, timings, faces, speech and text, written as stores that form a corpus."""

from memofast.prepare.command import main

__all__ = ["main"]
