"""Text: its encoding, mark-up, word pieces, feature rows."""

from memofast.prepare.text.word_pieces import WordPieces

__all__ = ["WordPieces"]
