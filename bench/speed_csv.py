"""The times of a run as a table for programs: a line per row and contestant, with what it was measured on."""

import csv
from pathlib import Path

from measurements import Run, unvouched

COLUMNS = (
    "date", "commit", "row", "contestant", "median_s", "p20_s", "p80_s", "call_median_s", "gigabytes_per_s",
    "teraflop_per_s",
    "share_of_floor", "vouched", "torch", "cuda", "driver", "device",
)  # fmt: skip


def write(run: Run, passed: set[str], path: Path) -> None:
    """share_of_floor: the least time that the work needs over the contestant's; vouched: whether the tests of the row
    passed on this build."""
    versions = run.machine.get("versions", {})
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for measured in run.measurements:
            floor = run.floor(measured)
            for who, summary in measured.seconds.items():
                median = summary["median"]
                line = {
                    "row": measured.name,
                    "contestant": who,
                    **{f"{key}_s": f"{summary[key]:.6g}" for key in summary},
                }
                line |= {"date": run.date, "vouched": not unvouched(measured.tests, passed)}
                line |= {name: run.machine.get(name) for name in ("commit", "torch")}
                line |= {"cuda": versions.get("CUDA"), "driver": versions.get("driver")}
                line["device"] = run.machine.get("gpu" if measured.on_gpu else "cpu")
                if who in measured.call_seconds:
                    line["call_median_s"] = f"{measured.call_seconds[who]['median']:.6g}"
                if "gigabytes" in measured.facts:
                    line["gigabytes_per_s"] = f"{measured.facts['gigabytes'] / median:.4g}"
                if "flop" in measured.facts:
                    line["teraflop_per_s"] = f"{measured.facts['flop'] / 1e12 / median:.4g}"
                if floor is not None:
                    line["share_of_floor"] = f"{floor / median:.3g}"
                table.writerow(line)
