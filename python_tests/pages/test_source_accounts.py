"""What a page tells of a corpus's sources: of films and subtitles that were prepared as a user would."""

import json
from pathlib import Path

import pytest
from media import write_clip
from runs import here

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.pages.inspect.page import write_page
from memofast.pages.inspect.sources import source_accounts

FIRST = "1\n00:00:00,000 --> 00:00:01,000\n<i>red</i> {name} now\n"
LINES = FIRST + "\n2\n00:00:01,000 --> 00:00:02,000\n[a <door>]\nblue now\n"


@pytest.fixture
def corpus(tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    write_clip(films / "one.mp4", 2.0)
    (films / "one.en.srt").write_bytes(LINES.encode("utf-16"))
    (films / "notes.xyz").write_text("nobody reads this")
    (tmp_path / "vocab.txt").write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "now")))
    ran = here(tmp_path, "prepare", films, "--out", "corpus", "--vocab", "vocab.txt", "--workers", 1, "--voice", "none")
    assert ran.returncode == 0, ran.stderr
    return tmp_path / "corpus"


def test_a_page_shows_what_was_removed_chosen_and_flagged(corpus, tmp_path):
    found = source_accounts(corpus)
    removed = {account.name: (account.count, [what for _, what in account.examples]) for account in found.removed}
    assert removed["tag"] == (2, ["<i>", "</i>"]) and removed["description"][0] == 1
    assert [(a.name, [Path(file).name for file, _ in a.examples]) for a in found.left_out] == [
        ("unknown suffix", ["notes.xyz"])
    ]
    (subtitles,) = [account for account in found.chosen if account.name == "subtitles of a film"]
    assert Path(subtitles.examples[0][1]).name == "one.en.srt"
    assert sum(account.count for account in found.encodings) == 1
    write_page(Corpus.open(corpus), tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    for shown in ("&lt;i&gt;", "notes.xyz", "one.en.srt", "utf-16"):
        assert shown in html.lower(), shown
    assert '<section id="sources">' in html and "<i>red" not in html


def test_a_report_that_is_missing_or_older_tells_nothing_and_a_damaged_one_is_refused(corpus):
    report = json.loads((corpus / "report.json").read_text())
    for name in ("text", "left_out", "notes", "subtitles", "streams"):
        report.pop(name, None)
    (corpus / "report.json").write_text(json.dumps(report))
    assert not source_accounts(corpus)
    for damaged in ("{", '{"clips": 1, "kept": 1, "problems": {}, "notes": [3]}'):
        (corpus / "report.json").write_text(damaged)
        with pytest.raises(MemofastError, match="json is not a report of a preparation"):
            source_accounts(corpus)
    (corpus / "report.json").unlink()
    assert not source_accounts(corpus)
