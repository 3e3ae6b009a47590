"""The command `memofast inspect`: what is in a corpus."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memofast.cli import run
from memofast.errors import MemofastError

if TYPE_CHECKING:
    from memofast.data.corpus import Corpus


def main(
    corpus: Annotated[Path, typer.Argument(help="corpus folder")],
    samples: Annotated[int, typer.Option(min=0, help="samples of each split to show")] = 3,
    seed: Annotated[int, typer.Option(help="which ones")] = 0,
    by: Annotated[
        str | None, typer.Option(metavar="GROUPS", help="count labels by these groups too, as speaker or dialogue")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="counts and samples for programs")] = False,
    html: Annotated[
        Path | None, typer.Option(help="write a page with distributions, faces and sound of the samples instead")
    ] = None,
    yunet: Annotated[
        Path | None, typer.Option(help="for --html: the YuNet model that found the faces; default: the downloaded one")
    ] = None,
) -> None:
    """Count a corpus: splits, rows, labels, coverage of modalities, and what its preparation left out; with --by also
    labels by speaker or another group, and how many of these are in several splits.

    Example: memofast inspect corpora/grid --html grid.html
    """
    from memofast.data.corpus import Corpus
    from memofast.data.summary import sentences, summarise
    from memofast.pages.tables import tables_of

    opened = Corpus.open(corpus)
    if yunet and not html:
        raise MemofastError("--yunet is for --html, which looks at faces again")
    if html and as_json:
        raise MemofastError("give --html or --json, not both")
    if html and by:
        raise MemofastError("--by is for the tables on the terminal and --json; leave --html out")
    if html:
        _write_page(opened, html, samples, seed, yunet)
        return
    summary = summarise(opened, by)
    shown = {split: sentences(opened, split, samples, seed) for split in opened.splits}
    if as_json:
        print(json.dumps(summary | {"samples": shown}, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"corpus {summary['name']} in {summary['path']}\n", markup=False)
    for table in tables_of(summary):
        console.print(table)
    for split, found in shown.items():
        for sample in found:
            label = f" [{sample['label']}]" if sample["label"] else ""
            rows = ", ".join(f"{count} {name}" for name, count in sample["rows"].items() if count)
            console.print(
                f"{split} {sample['id']}{label}: {sample['text'] or '(no words)'} ({rows} rows)", markup=False
            )


def _write_page(corpus: "Corpus", html: Path, samples: int, seed: int, yunet: Path | None) -> None:
    from memofast.downloads import downloaded
    from memofast.locks import lock_file
    from memofast.pages.inspect import write_page

    with lock_file(html), Console(stderr=True).status("looking at the samples again"):
        size = write_page(corpus, html, samples, seed, yunet or downloaded("yunet"))
    print(f"wrote {html} ({size / 1e6:.1f} MB)")


if __name__ == "__main__":
    run(main, "memofast inspect")
