"""What killed processes left in a run folder goes, what a living one writes stays."""

import os
import subprocess

from memofast.train.folder import sweep


def test_only_what_a_dead_process_left_is_swept(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    deep = tmp_path / "fold" / "seed-1"
    deep.mkdir(parents=True)
    left = [tmp_path / f".config.yaml.{gone.pid}", deep / f".done.json.{gone.pid}", tmp_path / f".x.{os.getpid()}"]
    kept = [tmp_path / f".config.yaml.{os.getppid()}", tmp_path / "config.yaml", deep / ".hidden", deep / "x.5"]
    for path in left + kept:
        path.write_text("")
    (tmp_path / f".folder.{gone.pid}").mkdir()
    sweep(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    sweep(tmp_path / "nowhere")
