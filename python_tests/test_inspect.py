import json
from functools import partial
from pathlib import Path

import pytest
from runs import here

from memofast.data.demo import demo_corpus

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
