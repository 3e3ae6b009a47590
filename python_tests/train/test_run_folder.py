"""What killed processes left in a run folder goes, what a living one writes stays."""

import os
import subprocess

import pytest

from memofast.errors import MemofastError
from memofast.train.folder import recipe_of, sweep
from memofast.train.recipe import Recipe, read
from memofast.train.recipe_text import to_yaml


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


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda whole: whole[: whole.index(b"train:")], "config.yaml: lacks train, validate"),
        (lambda whole: b"", "config.yaml: lacks corpora, model"),
        (lambda whole: b"\xff\xfe" + whole, "config.yaml: not a text file in UTF-8"),
        (lambda whole: whole.replace(b"lr:", b"lr"), "config.yaml, line "),
    ],
)
def test_a_damaged_recipe_of_a_run_is_one_line(tmp_path, contents, message):
    whole = to_yaml(read("demo").plain()).encode()
    (tmp_path / "config.yaml").write_bytes(whole)
    assert recipe_of(tmp_path, Recipe, read, ["train.clip=3"]).train.clip == 3
    (tmp_path / "config.yaml").write_bytes(contents(whole))
    with pytest.raises(MemofastError) as error:
        recipe_of(tmp_path, Recipe, read)
    assert message in str(error.value) and "\n" not in str(error.value)
