import json
from functools import partial
from pathlib import Path

import pytest
from runs import here
from talks import two_talks, write_talks

from memofast.data import Corpus
from memofast.data.demo import demo_corpus
from memofast.data.summary import summarise

inspect = partial(here, Path(), "inspect")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return demo_corpus(tmp_path_factory.mktemp("demo") / "demo", {"train": 60, "validation": 20})


def test_tables_and_samples(corpus):
    done = inspect(corpus, "--samples", 2)
    assert done.returncode == 0, done.stderr
    for wanted in ("train visual", "validation speech", "share", "stores"):
        assert wanted in done.stdout
    assert sum(line.startswith("train ") and "rows)" in line for line in done.stdout.splitlines()) == 2


def test_json(corpus):
    done = inspect(corpus, "--json", "--samples", 1)
    found = json.loads(done.stdout)
    assert found["splits"]["train"]["samples"] == 60 and len(found["samples"]["validation"]) == 1


def test_labels_by_group(tmp_path):
    """Two speakers of whom one is in both parts, and a sample without."""
    dialogues = write_talks(tmp_path / "talks", two_talks(), {"train": ["d1"], "validation": ["d10"]})
    table = (dialogues / "groups" / "speaker.tsv").read_text().splitlines()
    speakers = dict(line.split("\t") for line in table[1:])  # the first one has no speaker
    (dialogues / "groups" / "speaker.tsv").write_text("\n".join(table[1:]) + "\n")
    opened = Corpus.open(dialogues)
    found = summarise(opened, "speaker")["groups"]["speaker"]
    wanted: dict[str, dict[str, int]] = {}
    for name in opened.splits:
        for id in opened.split(name).ids:
            own = wanted.setdefault(speakers.get(id, ""), {})
            own[name] = own.get(name, 0) + 1
    assert {group: own["splits"] for group, own in found.items()} == wanted and "" in found
    assert [own["samples"] for own in found.values()] == sorted(
        (sum(own.values()) for own in wanted.values()), reverse=True
    )
    label_of = [opened.stores["text"].read(id)["label"][0] for id in speakers if speakers[id] == next(iter(found))]
    assert sum(next(iter(found.values()))["labels"].values()) == len(label_of)
    done = inspect(dialogues, "--by", "speaker")
    several = sum(len(own) > 1 for own in wanted.values())
    assert f"speaker: {len(wanted)}; {several} are in several splits" in done.stdout and "(none)" in done.stdout
    done = inspect(dialogues, "--by", "film")
    assert done.returncode == 2 and "no groups 'film'" in done.stderr
    assert inspect(dialogues, "--by", "speaker", "--html", tmp_path / "page.html").returncode == 2


def test_no_corpus_is_one_line(tmp_path):
    done = inspect(tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no corpus" in done.stderr


def test_a_page(corpus, tmp_path):
    done = inspect(corpus, "--html", tmp_path / "page.html", "--samples", 2)
    assert done.returncode == 0 and "wrote" in done.stdout, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>") and page.count('class="panel utterance"') == 4
    assert "no record of where its utterances came from" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--html", "page.html", "--json"], "not both"),
        (["--yunet", "yunet.onnx"], "--yunet is for --html"),
        (["--html", "/nowhere/page.html"], "no folder /nowhere"),
    ],
)
def test_mistakes_are_one_line(corpus, arguments, message):
    done = inspect(corpus, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
