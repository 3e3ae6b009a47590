import json
import resource
import threading
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from memofast.errors import MemofastError
from memofast.train.metrics_log import MetricsLog, read_metrics

ENTRY = {"split": "train", "corpus": "c", "objective": "o", "targets": 3}


def test_entries(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(step=1, loss=0.5, **ENTRY)
    log.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5, **ENTRY}]


def test_resume_cuts_back(tmp_path):
    log = MetricsLog(tmp_path)
    for step in range(1, 7):
        log.write(step=step, loss=float(step), **ENTRY)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 7, "lo')  # a kill in the middle of a line
    second = int(time.time())
    # TensorBoard reads the files of a second in the order of their names, where 10 is before 9
    while int(time.time()) == second:
        time.sleep(0.02)
    log = MetricsLog(tmp_path, step=4)
    log.write(step=5, loss=50.0, **ENTRY)
    log.close()
    steps = [(entry["step"], entry["loss"]) for entry in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/c/o/loss")] == steps


@pytest.mark.parametrize("line", [b"\xff\xfe", b"5", b"[" * 2000, b'{"step": "x"}', b'{"step": -1}', b"{}"])
def test_a_damaged_line_is_cut_off_with_what_follows_and_told(tmp_path, line):
    whole = [json.dumps({"step": step, "loss": step / 2, **ENTRY}).encode() for step in (1, 2, 3)]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([*whole[:2], line, whole[2], b""]))
    log = MetricsLog(tmp_path, step=3)
    log.write(step=4, loss=0.5, **ENTRY)
    log.close()
    assert log.said == f"{path}: line 3 is damaged; it and what follows are cut off"
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2, 4]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_a_torn_last_line_is_nothing_to_tell(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(json.dumps({"step": 1, "loss": 0.5, **ENTRY}).encode() + b'\n{"step": 2, "lo')
    log = MetricsLog(tmp_path, step=1)
    log.close()
    assert log.said == "" and [entry["step"] for entry in read_metrics(path)] == [1]


def test_a_full_disk_is_one_line_and_not_tried_again_at_the_end(tmp_path, capsys):
    log = MetricsLog(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(MemofastError, match=r"its log cannot be written .*free space and resume") as error:
            for step in range(50):
                log.write(step=step, loss=0.5, **ENTRY)
        log._file.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        threading.excepthook = log._hook
    assert "\n" not in str(error.value) and "Traceback" not in capsys.readouterr().err
    assert 1 < len(read_metrics(tmp_path / "metrics.jsonl")) < 10
