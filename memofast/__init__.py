"""memofast: from talking-face video to pre-trained and fine-tuned emotion models over text, face and speech."""

import torch  # noqa: F401  (before the extension, so that both share torch's OpenMP runtime and its thread count)

from memofast import extension
from memofast.version import __version__

extension.extend_package_path(__path__)
try:
    from memofast import _C
except ImportError as error:
    raise ImportError(f"memofast's extension is missing or does not load ({error}): {extension.REINSTALL}") from error
extension.check_extension(_C.source_digest)

__all__ = ["__version__", "load"]


def __getattr__(name: str):
    """`memofast.load`, with all that it needs, only where it is asked for."""
    if name == "load":
        from memofast.inference import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
