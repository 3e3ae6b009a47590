"""What goes wrong for a user ends, for every command, in one line that names the thing and the remedy, and
in exit code 2."""

import json
import shutil
import sys

import lmdb
import numpy as np
import pytest
from media import write_clip
from runs import small_corpus, small_recipe

from memofast import cli
from memofast.store import record


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("bad_input"))


@pytest.fixture
def copied(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "corpus")


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run `memofast ARGUMENTS` in an empty folder and return its one line; nothing may lie under a final name."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["memofast", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert stopped.value.code == 2, error
        lines = [line for line in error.splitlines() if line.startswith(f"memofast {arguments[0]}: ")]
        assert len(lines) == 1 and "Traceback" not in error, error
        assert not [*tmp_path.rglob("corpus.json.*"), *tmp_path.glob("runs/*/checkpoints/*")]
        return lines[0]

    return run


def change_record(store, id, change):
    with lmdb.open(str(store)) as environment, environment.begin(write=True) as transaction:
        transaction.put(id.encode(), change(bytes(transaction.get(id.encode()))))


def first_id(corpus, split="train"):
    file = json.loads((corpus / "corpus.json").read_text())["splits"][split]["file"]
    return (corpus / file).read_text().split()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pretrain", "nowhere.yaml"], "nowhere.yaml"),
        (["prepare", "nowhere.mp4", "--out", "out"], "nowhere.mp4"),
        (["denseface", "train", "nowhere.npz", "--out", "out.safetensors"], "nowhere.npz"),
        (["import-npz", "--captions", "nowhere.json", "--out", "out", "--vocab", "vocab.txt"], "nowhere.json"),
    ],
)
def test_missing_file(refused, tmp_path, arguments, says):
    assert says in refused(*arguments)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("corpora.0.path=nowhere", "no corpus at nowhere"),
        ("model.visual_width=8", "model.visual_width is 8, but the corpora have 342"),
        ("train.lrr=1", "did you mean train.lr?"),
        ("train.longest.text=1", "no samples"),
    ],
)
def test_recipe_that_does_not_fit(refused, corpus, tmp_path, override, says):
    assert says in refused("pretrain", small_recipe(tmp_path, corpus), override)


def test_objective_no_corpus_can_serve(refused, copied, tmp_path):
    description = json.loads((copied / "corpus.json").read_text())
    del description["stores"]["speech"]
    (copied / "corpus.json").write_text(json.dumps(description))
    line = refused("pretrain", small_recipe(tmp_path, copied))
    assert "objectives.span_speech_regression: no corpus can serve it" in line


def test_corrupt_record(refused, copied, tmp_path):
    id = first_id(copied)
    change_record(copied / "visual", id, lambda value: value[:-2])
    line = refused("pretrain", small_recipe(tmp_path, copied))
    assert f"record '{id}' of store {copied / 'visual'}" in line and "truncated" in line


def damage_page(file):
    """The root of the tree of records, which the newer of the first two pages names, is no page any more."""
    data = bytearray(file.read_bytes())
    newer = max((0, 4096), key=lambda start: int.from_bytes(data[start + 144 : start + 152], "little"))
    root = int.from_bytes(data[newer + 128 : newer + 136], "little")
    data[root * 4096 + 10] = 0
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("visual/data.mdb", lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])),
        ("text/data.mdb", lambda file: file.write_bytes(file.read_bytes()[:-4096])),
        ("text/data.mdb", damage_page),
        ("speech/data.mdb", lambda file: file.unlink()),
        ("speech/index.npz", lambda file: file.write_bytes(file.read_bytes()[:-30])),
        ("visual/meta.json", lambda file: file.write_text("[]")),
        ("splits/train.txt", lambda file: file.write_bytes(file.read_bytes() + b"\xe3\n")),
        ("corpus.json", lambda file: file.write_text(file.read_text().replace('"splits"', '"Splits"'))),
    ],
)
def test_damaged_corpus_is_noticed_by_whoever_opens_it(refused, copied, tmp_path, file, damage):
    damage(copied / file)
    for arguments in (["inspect", copied], ["pretrain", small_recipe(tmp_path, copied), "--dry-run"]):
        assert str(copied / file) in refused(*arguments)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_features_that_are_not_numbers(refused, copied, tmp_path, split):
    id = first_id(copied, split)

    def poison(value):
        columns = record.decode(value, id)
        rows = columns["rows"].copy()
        rows[0, 0] = np.nan
        return record.encode(len(rows), columns | {"rows": rows})

    change_record(copied / "speech", id, poison)
    line = refused("pretrain", small_recipe(tmp_path, copied))
    assert "not finite" in line and id in line


def test_truncated_media(refused, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 1.0)
    clip.write_bytes(clip.read_bytes()[:200])
    line = refused("prepare", clip, "--out", tmp_path / "out")
    assert f"none of 1 clips is usable (first: {clip} " in line and "report.json" in line
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert str(clip) in json.dumps(report) and not (tmp_path / "out" / "corpus.json").exists()
