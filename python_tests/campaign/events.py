"""File events of a process: opening to write, renaming, removing, making folders. One of them can be made the moment of
something."""

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

_OTHERS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}


class Events:
    """The number of file events below a folder, counted in a child and read in its parent too.

    Kernel calls of libraries in C (LMDB, safetensors) raise none: only killing at a moment reaches between those.
    """

    def __init__(self, folder: Path):
        self._folder, self._shared = os.path.realpath(folder), mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    def watch(self, at: Callable[[int, str], None] = lambda number, event: None) -> None:
        """Count in this process from here on, and call `at` with the number and name of each event before it happens.

        What `at` raises is raised by the call that made the event.
        """

        def hook(event: str, arguments: tuple) -> None:
            if (event == "open" or event in _OTHERS) and self._ours(event, arguments):
                number = self.count + 1
                self._shared[:8] = number.to_bytes(8, "little")
                at(number, event)

        sys.addaudithook(hook)

    def _ours(self, event: str, arguments: tuple) -> bool:
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        path, base = os.fsdecode(path), "."
        if event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[-1] not in (None, -1):
            base = os.readlink(f"/proc/self/fd/{arguments[-1]}")  # a name within an open folder
        path = os.path.abspath(os.path.join(base, path))
        return path == self._folder or path.startswith(self._folder + os.sep)
