"""The command `memofast download`: fetches a model once and verifies its checksum."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run
from memofast.downloads import DOWNLOADS, fetch, home_of
from memofast.errors import MemofastError
from memofast.locks import lock_file


def main(
    name: Annotated[str, typer.Argument(help="what to fetch: " + ", ".join(DOWNLOADS))],
    url: Annotated[str | None, typer.Option(help="fetch from here instead (http, https or file)")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; default: the user's cache folder")] = None,
) -> None:
    """Fetch a model file and verify its checksum.

    Example: memofast download yunet
    """
    if name not in DOWNLOADS:
        raise MemofastError(f"no download {name!r}; there is {', '.join(DOWNLOADS)}")
    download = DOWNLOADS[name]
    file = out or home_of(name)
    with lock_file(file, parents=True):
        print(fetch(url or download.url, file, download.sha256))


if __name__ == "__main__":
    run(main, "memofast download")
