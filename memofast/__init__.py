"""memofast: from talking-face video to pre-trained and fine-tuned emotion models over text, face and speech."""

from memofast import signals

signals.end_early()  # of a program that still imports

from memofast import extension  # noqa: E402
from memofast.version import __version__  # noqa: E402

extension.extend_package_path(__path__)

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """`memofast.load` and the extension `memofast._C`, with all that they need, only where they are asked for."""
    if name == "load":
        from memofast.inference import load

        return load
    if name == "_C":
        return extension.load_extension()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
