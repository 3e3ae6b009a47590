"""The campaign: `python python_tests/campaign [PART ...] [--count N] [--seed S] [--only K]`, or `--table FILE`.

Parts are named as `--list` shows them, or by how their names begin. With `--serve`, requests come line by line as JSON.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--count", type=float, default=1000, help="size of the whole campaign; parts take their share")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="the number of one, of a part named whole")
    parser.add_argument("--results", type=Path, help="file that a line of JSON about each part is appended to")
    parser.add_argument("--table", type=Path, help="print what such a file holds as a table, and stop")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--serve", action="store_true")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    if asked.table:
        from table import table

        print(table([json.loads(line) for line in asked.table.read_text().splitlines()]))
        return
    import warm

    warm.up()
    import parts

    chosen = list(parts.matching(asked.parts))
    if asked.list:
        print("\n".join(f"{part}: {parts.count_of(part, asked.count)}" for part in chosen))
        return
    with tempfile.TemporaryDirectory(prefix="memofast-campaign-", ignore_cleanup_errors=True) as folder:
        campaign = parts.Campaign(Path(folder))
        if asked.serve:
            _serve(campaign)
        elif not _campaign(campaign, chosen, asked):
            sys.exit(1)


def _campaign(campaign, chosen: list[str], asked: argparse.Namespace) -> bool:
    """Run parts and say what came of them. Returns: whether all went well."""
    import parts

    fine = True
    for part in chosen:
        result = campaign.run(part, parts.count_of(part, asked.count), asked.seed, asked.only)
        fine &= not result.faults
        told = f"skipped: {result.skipped}" if result.skipped else f"{len(result.faults)} of {result.count} failed"
        print(f"{part}, seed {result.seed}: {told}, {result.seconds:.0f} s", flush=True)
        for number, fault in result.faults.items():
            print(f"  --seed {result.seed} --only {number}: {fault}", flush=True)
        if asked.results and asked.only is None:
            with asked.results.open("a") as file:
                file.write(json.dumps(result.as_json()) + "\n")
    return fine


def _serve(campaign) -> None:
    """A line of JSON for each line {part, count, seed}; this is what tests talk to."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(campaign.run(**json.loads(line)).as_json()), file=answers, flush=True)


if __name__ == "__main__":
    main()
