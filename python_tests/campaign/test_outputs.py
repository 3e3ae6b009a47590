"""What counts as the same output: contents, not clocks, pages of LMDB or names of runs."""

import json

import numpy as np
import outputs

from memofast.store import FeatureWriter


def write(folder, run="pretrain-20250101-101010", seconds=1.5, loss=0.25, rows=3):
    made = folder / "runs" / run
    made.mkdir(parents=True)
    (made / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "samples_per_s": seconds}) + "\n")
    (made / "events.out.tfevents.1.host.2").write_bytes(bytes(int(seconds)))
    (made / "report.md").write_text(f"# {run}\n\nUpdate 3, {seconds} s in updates\n")
    with FeatureWriter(made / "store", 2) as writer:
        for number in range(rows):
            writer.put(f"id{number}", np.full((1, 2), number, np.float32))
            if seconds > 2:
                writer.commit()
    return folder


def test_time_and_the_names_of_runs_do_not_count(tmp_path):
    whole = outputs.contents(write(tmp_path / "a"))
    again = write(tmp_path / "b", "pretrain-20260202-000000-2", seconds=7.25)
    assert outputs.differences(again, whole) is None
    assert "runs/pretrain/store/data.mdb" in whole and "runs/pretrain/EVENTS" in whole


def test_numbers_records_and_files_do(tmp_path):
    whole = outputs.contents(write(tmp_path / "a"))
    assert outputs.differences(write(tmp_path / "b", loss=0.2500001), whole) == (
        "differs in runs/pretrain/metrics.jsonl"
    )
    fewer = outputs.differences(write(tmp_path / "c", rows=2), whole)
    assert "runs/pretrain/store/data.mdb" in fewer and "runs/pretrain/store/index.npz" in fewer
    left = write(tmp_path / "d")
    (left / ".x.12").mkdir()
    (left / "runs" / "pretrain-20250101-101010" / "report.md").unlink()
    assert outputs.differences(left, whole) == "leaves .x.12/; lacks runs/pretrain/report.md"
