"""What is in a corpus as tables on the terminal."""

from rich.table import Table

from memofast.prepare.run.report import REASONS

_SHOWN = 20  # groups


def tables_of(summary: dict) -> list[Table]:
    """Stores, rows, labels and what preparation left out, as `data.summary.summarise` tells them; a table without rows
    is left out."""
    tables = (_stores(summary), _rows(summary), _labels(summary), _groups(summary), _problems(summary))
    return [table for table in tables if table.row_count]


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


def _groups(summary: dict) -> Table:
    """The largest groups, with the share of each one's most frequent class."""
    ((name, groups),) = summary.get("groups", {"": {}}).items()
    several = sum(len(found["splits"]) > 1 for found in groups.values())
    shown = f", the {_SHOWN} largest" if len(groups) > _SHOWN else ""
    title = f"{name}: {len(groups):,}{shown}; {several:,} are in several splits"
    table = _table(title, "group", *summary["splits"], "most frequent class")
    for group, found in list(groups.items())[:_SHOWN]:
        labels = found["labels"]
        most = max(labels, key=labels.get) if labels else None
        told = "" if most is None else f"{most or '(none)'} ({labels[most] / found['samples']:.1%})"
        table.add_row(group or "(none)", *(f"{found['splits'].get(name, 0):,}" for name in summary["splits"]), told)
    return table


def _problems(summary: dict) -> Table:
    told = summary["preparation"]
    title = f"preparation: {told['kept']:,} of {told['clips']:,} clips kept" if told else ""
    table = _table(title, "reason", "clips", "meaning")
    for reason, count in told.get("problems", {}).items():
        table.add_row(reason, f"{count:,}", REASONS.get(reason, ""))
    return table
