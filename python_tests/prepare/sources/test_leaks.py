"""Leaks between splits: groups on both sides, sentences that say the same."""

import csv
import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.leaks import check_groups, check_sentences

SAID = "where did you put all of my keys"


def clips(*rows):
    return [Clip(id, text=text, split=split, folder=folder, group=group) for id, text, split, folder, group in rows]


def test_near_duplicates_are_reported_and_dropped_only_when_asked():
    given = clips(
        ("a", SAID, "train", "", None),
        ("b", "What?", "train", "", None),
        ("c", "something else is said over here", "train", "", None),
        ("x", SAID.upper() + "!", "test", "", None),
        ("y", "what", "validation", "", None),
        ("z", None, "test", "", None),
    )
    splits = {"train": ["a", "b", "c"], "validation": ["y"], "test": ["x", "z"]}
    check = check_sentences(given, splits, drop=False)
    assert check.splits == splits and check.rules[0]["clips"] == 2 and check.rules[0]["dropped"] == 0
    assert check.found["test"] == {
        "samples": 1,
        "longer": 1,
        "of": 1,
        "clips": [{"id": "x", "like": "a", "similarity": 1.0}],
    }
    assert check.found["validation"]["longer"] == 0
    dropped = check_sentences(given, splits, drop=True)
    assert dropped.splits == splits | {"train": ["c"]} and dropped.rules[0]["dropped"] == 2


def test_a_group_in_two_splits_raises_where_whole_groups_are_asked_for():
    given = clips(("a", None, "train", "ann", None), ("b", None, "test", "ann", None), ("c", None, "test", "bo", None))
    with pytest.raises(MemofastError, match="ann is in test and train"):
        check_groups(given, {}, "folder")
    assert check_groups(given[1:], {}, "folder") == []


def test_a_group_in_two_splits_is_noted_otherwise():
    given = clips(("a", None, "train", "", "dia1"), ("b", None, "test", "", "dia1"))
    (note,) = check_groups(given, {}, "id")
    assert "dia1" in note and "--split-by group" in note


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "said.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "part", "scene"])
        for number in range(40):
            writer.writerow([f"s{number}", f"red blue now red {'blue ' * (number % 3)}", "", f"scene{number // 4}"])
        writer.writerow(["held", "red blue now red blue", "test", "scene0"])
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now"]))
    return [path, "--vocab", vocabulary, "-c", "group=scene"]


def run(monkeypatch, *arguments):
    import sys

    from memofast.cli import run
    from memofast.prepare.command import main

    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run(main, "prepare")
    return ended.value.code or 0


def test_prepare_keeps_groups_whole_and_names_its_rules(table, monkeypatch, tmp_path, capsys):
    out = tmp_path / "corpus"
    assert (
        run(monkeypatch, *table, "--out", out, "--split-by", "group", "--split", "validation=0.3", "--drop-leaks") == 0
    )
    corpus = json.loads((out / "corpus.json").read_text())
    report = json.loads((out / "report.json").read_text())
    homes = {}
    for split, entry in corpus["splits"].items():
        for id in (out / entry["file"]).read_text().split():
            if id.startswith("s"):
                homes.setdefault(int(id[1:]) // 4, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert report["leaks"]["validation"]["samples"] > 0
    (rule,) = [rule for rule in corpus["rules"] if "near-duplicate" in rule["rule"]]
    assert rule["dropped"] == rule["clips"] > 0
    assert "taken out of train" in " ".join(capsys.readouterr().err.split())


def test_prepare_refuses_a_named_split_that_divides_a_group(table, monkeypatch, tmp_path, capsys):
    code = run(monkeypatch, *table, "--out", tmp_path / "o", "--split-by", "file")
    assert code == 0  # a table without media has no files to keep whole
    test = tmp_path / "test.csv"
    test.write_text("id,text,scene\nt,red,scene1\n")
    code = run(monkeypatch, *table, f"test={test}", "--out", tmp_path / "p", "--split-by", "group")
    error = capsys.readouterr().err
    assert code == 2 and "scene1 is in test and train" in error and not (tmp_path / "p").exists()


def test_split_by_group_needs_its_column(table, monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, *table[:-2], "--out", tmp_path / "o", "--split-by", "group") == 2
    assert "-c group=COLUMN" in capsys.readouterr().err
