"""What stands on the page: numbers, pictures, and nothing that a corpus could smuggle in."""

import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from inspected_corpus import prepare
from media import write_clip

from memofast.data.corpus import Corpus, write_corpus
from memofast.errors import MemofastError
from memofast.pages import drawing
from memofast.pages.inspect import write_page
from memofast.pages.inspect.page import clock, duration, gather, percent, render
from memofast.pages.inspect.utterances import found_again
from memofast.prepare.run.report import Journal
from memofast.prepare.speech.voice import runs
from memofast.store import FeatureWriter, TextWriter

VOID = {"meta", "link", "img", "br"}
EVIL = """<script>alert("1")</script> & <img src=x onerror='alert(2)'>"""


class Page(HTMLParser):
    """Refuses tags that are not closed in order; keeps tags and words."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.open, self.words = [], [], ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def refuse_what_is_outside(page: Page, html: str) -> None:
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "action", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value
    assert not page.all("script") and not page.all("iframe") and not page.all("base")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style


def face_of(attributes: dict) -> np.ndarray:
    data = base64.b64decode(attributes["src"].removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def utterances(corpus: Corpus) -> dict:
    chosen = gather(corpus, 10, 0, None)["chosen"]
    return {utterance.id: utterance for found in chosen.values() for utterance in found}


def test_the_faces_are_those_of_the_rows(prepared):
    found = utterances(Corpus.open(prepared))
    assert found.keys() == {"whole", "part", "mute", "heard"}
    whole = found["whole"]
    assert len(whole.replayed.person.track.faces) == whole.rows["visual"] == len(whole.times) and not whole.notes
    np.testing.assert_allclose(whole.replayed.faces.times, whole.times, atol=1e-5)
    assert len(whole.tiles) == 24
    shown = [tile for tile in whole.tiles if tile.crop is not None]
    brightness = [40 + 25 * tile.time for tile in shown]  # as the clip was drawn
    np.testing.assert_allclose([tile.crop.mean() for tile in shown], brightness, atol=3)
    assert whole.tiles[0].crop is None and whole.tiles[0].confidence is None  # too dark for a face
    assert all(
        tile.confidence == pytest.approx(0.75, abs=1e-3) and tile.soft[0] in ("calm", "glad", "sad") for tile in shown
    )
    part = found["part"]
    assert (part.source.start, part.source.end) == (0.5, 1.5) and len(part.tiles) == 10
    np.testing.assert_allclose(next(t.crop.mean() for t in part.tiles if t.crop is not None), 40 + 12.5, atol=3)
    assert not found["heard"].tiles and found["heard"].replayed.heard.activity.any()
    assert found["mute"].replayed.person and found["mute"].replayed.heard is None


def test_voice_is_where_the_sound_is(prepared):
    heard = utterances(Corpus.open(prepared))["whole"].replayed.heard
    assert len(heard.wave) == pytest.approx(3.2 * 16_000, abs=2000)
    spoken = heard.activity[: int(3.2 / heard.hop)]
    middle = int(1.0 / heard.hop)
    assert spoken[: middle - 15].mean() < 0.05 and spoken[middle + 15 : -15].mean() > 0.95


def test_numbers_of_the_page(prepared):
    gathered = gather(Corpus.open(prepared), 10, 0, None)
    rows = {m.title: m for m in gathered["measures"]}
    outcomes = Journal(prepared / "progress.jsonl").outcomes
    kept = [outcome for outcome in outcomes.values() if outcome.kept]
    for title, modality in (("Visual rows", "visual"), ("Speech rows", "speech")):
        counts = [getattr(outcome, modality) for outcome in kept if getattr(outcome, modality)]
        assert sum(sum(spread.bins) for spread in rows[title].spreads) == len(counts)
        assert rows[title].high == max(counts)
    assert sum(spread.utterances for spread in rows["Duration"].spreads) == 4
    assert sum(spread.utterances for spread in rows["Speech share"].spreads) == 3
    assert "Mouth motion" not in rows  # nobody asked who speaks
    reasons = {reason.name: (reason.clips, reason.dropped) for reason in gathered["reasons"]}
    assert reasons["no speech"] == (1, 1) and reasons["unreadable"] == (1, 1) and reasons["no text"] == (2, 1)
    assert {outcome.id for outcome in gathered["dropped"]} == {"quiet", "broken"}
    assert sum(has["all three"] for _, _, has in gathered["coverage"]) == 2
    labels = gathered["labels"]
    assert {name: sum(counts) for name, counts in labels.counts.items()} == {"glad": 2, "sad": 2}
    means = gathered["means"][0]
    for column in range(len(means.splits)):
        cells = [cells[column] for _, cells in means.rows if cells[column] is not None]
        assert not cells or sum(cells) == pytest.approx(1, abs=1e-2)


def test_the_page_needs_nothing_beside_it(prepared, tmp_path):
    size = write_page(Corpus.open(prepared), tmp_path / "page.html", samples=10)
    html = (tmp_path / "page.html").read_text()
    page = Page(html)
    refuse_what_is_outside(page, html)
    assert size == len(html.encode())
    pictures = page.all("img")
    assert len(pictures) > 30 and all(face_of(picture).shape == (64, 64) for picture in pictures)
    for words in (
        "red blue now",
        "somebody speaks",
        "calm",
        "unreadable",
        "0:00.5 to 0:01.5",
    ):
        assert words in page.words, words


def test_everything_from_a_corpus_is_escaped(tmp_path):
    with TextWriter(tmp_path / "text", classes=[EVIL], extractor=EVIL) as text:
        text.put("one " + EVIL, [5, 6], [0, 1], utf8=EVIL, label=0)
        text.finish()
    corpus = write_corpus(tmp_path, "c", {"text": tmp_path / "text"}, {"train": ["one " + EVIL]}, {"licence": EVIL})
    entry = {"id": EVIL, "kept": False, "rows": [0, 0, 0], "spoken": None, "problems": [["failed", EVIL], [EVIL, EVIL]]}
    kept = entry | {"id": "one " + EVIL, "kept": True, "source": {"picture": f"/nowhere/{EVIL}.mp4", "text": EVIL}}
    (tmp_path / "progress.jsonl").write_text(f"{json.dumps(entry)}\n{json.dumps(kept)}\n")
    (tmp_path / "prepare.json").write_text(json.dumps({"voice": "energy", EVIL: EVIL}))
    html = render(gather(corpus, 3, 0, None))
    page = Page(html)
    refuse_what_is_outside(page, html)
    assert not page.all("img") and page.words.count(EVIL) >= 10
    assert EVIL not in html


def test_raw_rows_are_shown_as_they_are_stored(tmp_path):
    """A face as a picture and sound as a wave, without the media."""
    crops = (np.arange(3 * 64 * 64).reshape(3, 64, 64) // 48).astype(np.uint8)  # brighter from row to row
    sound = np.zeros((16, 320), np.int16)
    sound[8] = 8000
    about = {"times": np.array([0.0, 0.1, 0.2])}
    with (
        TextWriter(tmp_path / "text") as text,
        FeatureWriter(tmp_path / "visual", 4096, dtype="uint8", columns=("times",)) as visual,
        FeatureWriter(tmp_path / "speech", 320, dtype="int16") as speech,
    ):
        text.put("one", [5, 6], [0, 1], utf8="red now")
        visual.put("one", crops.reshape(3, -1), **about)
        speech.put("one", sound)
    stores = {name: tmp_path / name for name in ("text", "visual", "speech")}
    gathered = gather(write_corpus(tmp_path, "c", stores, {"train": ["one"]}), 1, 0, None)
    (one,) = gathered["chosen"]["train"]
    assert np.array_equal([tile.crop for tile in one.tiles], crops) and [t.time for t in one.tiles] == pytest.approx(
        [0.0, 0.1, 0.2]
    )
    assert np.flatnonzero(one.heard.wave).tolist() == list(range(2560, 2880)) and one.heard.wave.max() == 8000 / 32768
    page = Page(html := render(gathered))
    refuse_what_is_outside(page, html)
    np.testing.assert_allclose([face_of(img).mean() for img in page.all("img")], crops.mean((1, 2)), atol=2)
    assert 'class="waveform"' in html
    assert "No faces and no sound are shown but what raw rows hold: it keeps no record of where" in page.words


def test_media_that_went_away_are_said_to_have(prepared, media_folder, tmp_path):
    journal = prepared / "progress.jsonl"
    journal.write_text(journal.read_text().replace(str(media_folder), "/nowhere"))
    write_page(Corpus.open(prepared), tmp_path / "page.html", samples=10)
    page = Page((tmp_path / "page.html").read_text())
    assert not page.all("img") and "4 media files are not where they were" in page.words
    assert "Not there any more: /nowhere/a.mp4" in page.words and "red blue now" in page.words


def test_a_journal_without_sources(prepared, tmp_path):
    journal = prepared / "progress.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines() if line]
    lines = (json.dumps({name: value for name, value in entry.items() if name != "source"}) for entry in entries)
    journal.write_text("\n".join(lines))
    assert len(Journal(journal).outcomes) == 6
    write_page(Corpus.open(prepared), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert not page.all("img") and "keeps no record of where its utterances came from" in page.words


def test_another_finder_is_said_on_the_page(prepared, monkeypatch):
    from memofast.prepare.run import extraction

    class Other:
        name = "other"

        def __call__(self, picture):
            return []

    monkeypatch.setattr(extraction, "find_faces", lambda *_: Other())
    page = Page(render(gather(Corpus.open(prepared), 10, 0, None)))
    assert "Faces were found again by other, the rows came from bright" in page.words
    assert not page.all("img") and "were found again as they were" not in page.words


def test_media_that_changed_are_said_to_have(prepared, media_folder, tmp_path):
    write_clip(tmp_path / "b.mp4", 2.0, rate=12)
    journal = prepared / "progress.jsonl"
    journal.write_text(journal.read_text().replace(str(media_folder / "b.mp4"), str(tmp_path / "b.mp4")))
    (note,) = utterances(Corpus.open(prepared))["part"].notes
    assert "of 10 faces were found again as they were" in note


@pytest.mark.real
@pytest.mark.slow
def test_real_faces_are_found_again(real_data, tmp_path, monkeypatch):
    """Sentences that touch, of a film with its sound beside it: decoded together then, some of them now."""
    films, yunet = tmp_path / "films", real_data / "models" / "yunet_n_640_640.onnx"
    films.mkdir()
    for suffix in (".mp4", ".wav"):
        (films / f"film{suffix}").symlink_to(
            real_data / "video" / "styletalk" / "source_video" / f"Obama_clip2{suffix}"
        )
    times = [("00.000", "02.030"), ("02.030", "03.510"), ("03.510", "04.900"), ("18.440", "20.400")]
    said = ("Red now.", "Now red.", "Blue now.", "Now blue.")
    cues = [f"00:00:{start} --> 00:00:{end}\n{text}\n" for (start, end), text in zip(times, said, strict=True)]
    (films / "film.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    corpus = Corpus.open(prepare(tmp_path, films, monkeypatch, "--yunet", yunet))
    chosen = gather(corpus, 3, 0, yunet)["chosen"]
    found = [utterance for part in chosen.values() for utterance in part if utterance.rows["visual"]]
    assert len(found) == 3 and not any(utterance.notes for utterance in found)
    assert all(found_again(utterance) == utterance.rows["visual"] for utterance in found)
    assert all(utterance.outcome.speaker for utterance in found)


def test_media_that_no_longer_decode(prepared, media_folder, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no media" * 100)
    journal = prepared / "progress.jsonl"
    journal.write_text(journal.read_text().replace(str(media_folder / "a.mp4"), str(tmp_path / "a.mp4")))
    found = utterances(Corpus.open(prepared))
    assert found["whole"].replayed is None and "not readable media" in found["whole"].notes[0]
    assert found["part"].replayed is not None


def test_a_page_that_cannot_be_written(prepared, tmp_path):
    with pytest.raises(MemofastError, match="no folder"):
        write_page(Corpus.open(prepared), tmp_path / "none" / "page.html")


def test_twenty_samples_are_less_than_three_megabytes():
    noise = np.random.default_rng(0)
    crops = sum(len(drawing.face_data(noise.integers(0, 256, (64, 64), np.uint8))) for _ in range(24))
    wave = drawing.waveform(noise.normal(size=480_000), np.repeat(noise.random(300) > 0.5, 10), 0.01, 16_000, 30.0)
    bands = drawing.soft_bands(np.arange(300) / 10, noise.random((300, 8)), [*range(8)], 30.0)
    assert 20 * (crops + len(wave) + len(bands)) < 3_000_000


def test_emotions_have_colours_of_their_own():
    colours = drawing.class_colours(["Anger", "odd", "neutral", "other", "happiness", "calm"])
    assert colours == {"Anger": 3, "odd": 2, "neutral": 0, "other": 4, "happiness": 1, "calm": 0}
    assert len(drawing.class_colours([f"class {n}" for n in range(25)])) == 25


def test_numbers_in_words():
    assert [percent(share) for share in (None, 0, 0.004, 0.0996, 0.5, 1)] == ["", "0%", "0.4%", "10%", "50%", "100%"]
    assert [clock(seconds) for seconds in (0, 12.34, 59.96, 3723.4)] == ["0:00.0", "0:12.3", "1:00.0", "1:02:03.4"]
    assert [duration(seconds) for seconds in (2.84, 250, 11_520)] == ["2.8 s", "4 min 10 s", "3 h 12 min"]


def test_runs_of_voice():
    assert runs(np.array([1, 1, 0, 1], bool)) == [(0, 2), (3, 4)] and runs(np.zeros(0, bool)) == []


def test_time_has_few_ticks():
    for seconds in (0.05, 0.9, 3.0, 30.0, 400.0, 3600.0, 20_000.0):
        found = drawing.ticks(seconds)
        assert 1 <= len(found) <= 7 and found[0] == (0.0, "0") and all(place < 100 for place, _ in found)
    assert re.fullmatch(r"0\.5 s", drawing.ticks(3.0)[1][1])
    assert drawing.ticks(3600.0)[1][1] == "10 min"
