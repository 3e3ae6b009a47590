"""The page of `memofast inspect CORPUS --html PAGE`: what a corpus holds and what some of its utterances look like, in
one file."""

from memofast.pages.inspect.page import write_page

__all__ = ["write_page"]
