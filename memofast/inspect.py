"""The command `memofast inspect`: what is in a corpus."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from memofast.cli import run
from memofast.errors import MemofastError

if TYPE_CHECKING:
    from memofast.data.corpus import Corpus


def main(
    corpus: Annotated[Path, typer.Argument(help="corpus folder")],
    samples: Annotated[int, typer.Option(min=0, help="samples of each split to show")] = 3,
    seed: Annotated[int, typer.Option(help="which ones")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="counts and samples for programs")] = False,
    html: Annotated[
        Path | None, typer.Option(help="write a page with distributions, faces and sound of the samples instead")
    ] = None,
    yunet: Annotated[
        Path | None, typer.Option(help="for --html: the YuNet model that found the faces; default: the downloaded one")
    ] = None,
) -> None:
    """Count a corpus: splits, rows, labels, coverage of modalities, and what its preparation left out.

    Example: memofast inspect corpora/grid --html grid.html
    """
    from memofast.data.corpus import Corpus
    from memofast.data.summary import sentences, summarise

    opened = Corpus.open(corpus)
    if yunet and not html:
        raise MemofastError("--yunet is for --html, which looks at faces again")
    if html and as_json:
        raise MemofastError("give --html or --json, not both")
    if html:
        _write_page(opened, html, samples, seed, yunet)
        return
    summary = summarise(opened)
    shown = {split: sentences(opened, split, samples, seed) for split in opened.splits}
    if as_json:
        print(json.dumps(summary | {"samples": shown}, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"corpus {summary['name']} in {summary['path']}\n", markup=False)
    for table in (_stores(summary), _rows(summary), _labels(summary), _problems(summary)):
        if table.row_count:
            console.print(table)
    for split, found in shown.items():
        for sample in found:
            label = f" [{sample['label']}]" if sample["label"] else ""
            rows = ", ".join(f"{count} {name}" for name, count in sample["rows"].items() if count)
            console.print(
                f"{split} {sample['id']}{label}: {sample['text'] or '(no words)'} ({rows} rows)", markup=False
            )


def _write_page(corpus: "Corpus", html: Path, samples: int, seed: int, yunet: Path | None) -> None:
    from memofast.download import home_of
    from memofast.pages.inspect import write_page

    downloaded = home_of("yunet")
    with Console(stderr=True).status("looking at the samples again"):
        size = write_page(corpus, html, samples, seed, yunet or (downloaded if downloaded.is_file() else None))
    print(f"wrote {html} ({size / 1e6:.1f} MB)")


def _table(title: str, *columns: str) -> Table:
    """The first column names, the others count."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return table


def _stores(summary: dict) -> Table:
    table = _table("stores", "store", "records", "rows", "width", "made by", "licence")
    for name, store in summary["stores"].items():
        made = store.get("extractor", "")
        counts = (f"{store['records']:,}", f"{store['rows']:,}", str(store["width"] or ""))
        table.add_row(name, *counts, made, store.get("licence", ""))
    return table


def _rows(summary: dict) -> Table:
    columns = ("samples", "share", "rows", "5 %", "median", "95 %", "longest")
    table = _table("rows of samples that have any", "split, modality", *columns)
    for split, found in summary["splits"].items():
        for modality, rows in found["rows"].items():
            quantiles = (str(rows[name]) for name in ("p5", "median", "p95", "longest"))
            share = f"{rows['samples'] / found['samples']:.0%}"
            table.add_row(f"{split} {modality}", f"{rows['samples']:,}", share, f"{rows['rows']:,}", *quantiles)
    return table


def _labels(summary: dict) -> Table:
    splits = {name: found for name, found in summary["splits"].items() if found["labels"]}
    table = _table("labels", "class", *(f"{name} ({found['samples']:,})" for name, found in splits.items()))
    for label in dict.fromkeys(label for found in splits.values() for label in found["labels"]):
        cells = []
        for found in splits.values():
            count = found["labels"].get(label, 0)
            cells.append(f"{count:,} ({count / found['samples']:.1%})")
        table.add_row(label or "(none)", *cells)
    return table


def _problems(summary: dict) -> Table:
    from memofast.prepare.run.report import REASONS

    told = summary["preparation"]
    title = f"preparation: {told['kept']:,} of {told['clips']:,} clips kept" if told else ""
    table = _table(title, "reason", "clips", "meaning")
    for reason, count in told.get("problems", {}).items():
        table.add_row(reason, f"{count:,}", REASONS.get(reason, ""))
    return table


if __name__ == "__main__":
    run(main, "memofast inspect")
