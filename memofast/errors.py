class MemofastError(Exception):
    """A user's mistake or a broken input: one line that says what, where and what to do. Commands exit with code 2."""
