"""Text: its encoding, word pieces, feature rows."""
