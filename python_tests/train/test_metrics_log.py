import time

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
