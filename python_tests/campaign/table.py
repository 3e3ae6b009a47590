"""Results of the campaign as a table of parts: how many, how many failed, and how many of those no longer do."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Markdown of results in the order in which they were measured.

    Runs of one part and seed are the same cases: the largest counts, and what failed in an earlier one and not in the
    last that went as far is mended.
    """
    by_seed: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if not result.get("skipped"):
            by_seed[result["part"]][result["seed"]].append(result)
    rows = [(part, *_of_seeds(seeds.values())) for part, seeds in by_seed.items()]
    for whole in dict.fromkeys(part.partition(": ")[0] for part in by_seed):
        own = [row for row in rows if row[0].startswith(f"{whole}: ")]
        rows.append((f"all {whole}", *(sum(row[column] for row in own) for column in (1, 2, 3))))
    lines = ["| part | count | failures | mended |", "| --- | ---: | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(f'{n:,}' for n in numbers)} |" for name, *numbers in rows)])


def _of_seeds(seeds: Iterable[list[Mapping[str, Any]]]) -> tuple[int, int, int]:
    count = failures = mended = 0
    for runs in seeds:
        count += max(run["count"] for run in runs)
        failed = {int(number) for run in runs for number in run["faults"]}
        still = {number for number in failed if _last_of(runs, number)}
        failures, mended = failures + len(failed), mended + len(failed - still)
    return count, failures, mended


def _last_of(runs: list[Mapping[str, Any]], number: int) -> bool:
    """Whether a case failed in the last run that went as far. Kills are counted as they hit: as many as cases, or
    more."""
    last = next(run for run in reversed(runs) if run["count"] > number or str(number) in run["faults"])
    return str(number) in last["faults"]
