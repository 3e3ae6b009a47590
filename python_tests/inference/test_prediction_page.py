"""The page of a prediction, in a real browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from rich.console import Console

import memofast
from memofast.inference.films import FilmPrediction, predict_films
from memofast.inference.page import film, page_of, strip
from memofast.inference.prediction import Prediction
from memofast.inference.preparation import Files
from memofast.inference.segments import Cutting
from memofast.inference.watching import Shown

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
MEASURE = """<script>
addEventListener("load", () => {
  const sizes = query => [...document.querySelectorAll(query)].map(
    e => [e.getBoundingClientRect().width, e.getBoundingClientRect().height]);
  document.title = JSON.stringify({
    inner: innerWidth, page: document.documentElement.scrollWidth, blocks: sizes(".lane a"), lane: sizes(".lane")[0],
    faces: [...document.querySelectorAll("img")].map(e => e.naturalWidth), strip: sizes(".strip")[0],
  });
});
</script></body>"""


@pytest.fixture
def page(model, media, files, tmp_path):
    asked = FilmPrediction(
        str(media / "film.mp4"), model, tmp_path / "out", Files(face=files["face"], vocab=None), Cutting(), True, "cpu"
    )
    predict_films(asked, Console(quiet=True))
    return tmp_path / "out/predictions.html"


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
def test_faces_lie_over_the_timeline(page):
    measured = page.with_name("measured.html")
    measured.write_text(page.read_text().replace("</body>", MEASURE))
    for width in (600, 1200):
        done = subprocess.run(
            [
                BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                "--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},900",
                "--dump-dom", "--virtual-time-budget=5000", measured.as_uri(),
            ],
            capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0 and ":CONSOLE" not in done.stderr, done.stderr
        found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.S)[1]))
        assert found["page"] <= found["inner"] and len(found["blocks"]) == 2
        assert len(found["faces"]) > 20 and all(width == 64 for width in found["faces"])
        assert found["strip"][0] == pytest.approx(found["lane"][0], abs=2)
        # 0.2 to 1.7 and 1.8 to 3.1 of 3.1 seconds
        shares = [block[0] / found["lane"][0] for block in found["blocks"]]
        assert shares[0] == pytest.approx(1.5 / 3.1, abs=0.02) and shares[1] == pytest.approx(1.3 / 3.1, abs=0.03)


def test_what_comes_from_outside_is_escaped(model, page, media, tmp_path):
    row = Prediction(
        "<b>id", "calm", {"calm": 1.0, "glad": 0.0, "sad": 0.0}, ("text",), text="<script>alert(1)</script>"
    )
    written = page_of([row], {}, memofast.load(model), "<i>.mp4")
    assert "<script>" not in written and "<b>id" not in written and "&lt;script&gt;" in written
    assert "Red now." in page.read_text()


def test_a_strip_has_gaps_where_nobody_was_seen():
    row = Prediction("a", "calm", {"calm": 1.0}, ("visual",), start=0.0, end=100.0, track=1)
    shown = Shown([1.0, 99.0], [np.zeros((64, 64), np.uint8)] * 2, 1)
    places = strip([row], {("a", 1): shown}, 100.0)
    assert len(places) == 24 and [place is not None for place in places] == [True] + [False] * 22 + [True]


def test_each_of_several_people_has_a_timeline(model):
    calm = {"calm": 1.0, "glad": 0.0, "sad": 0.0}
    said = dict(named="calm", probabilities=calm, modalities=("visual",))
    rows = []
    for number in range(9):
        times = dict(start=2.0 * number, end=2.0 * number + 2)
        rows.append(Prediction(f"u{number}", **said, **times, track=1))
        # the second person is there to the end, the others once each
        rows += [Prediction(f"u{number}", **said, **times, track=track, speaks=False) for track in (2, 3 + number)]
    shown = {(row.id, row.track): Shown([row.start], [np.zeros((64, 64), np.uint8)], row.track) for row in rows}
    one = film("a.mp4", rows, shown)
    assert [lane.name for lane in one.lanes[:3]] == ["", "person 1", "person 2"] and len(one.lanes) == 7
    assert one.left_out == 5 and [len(lane.blocks) for lane in one.lanes[:4]] == [9, 9, 9, 1]
    assert [len(film("a.mp4", rows[::3], shown).lanes), film("a.mp4", rows[::3], shown).left_out] == [1, 0]
    written = page_of(rows, shown, memofast.load(model), "a.mp4")
    anchors = re.findall(r'<article class="panel utterance" id="([^"]*)"', written)
    assert len(anchors) == len(set(anchors)) == 27 and set(re.findall(r'href="#([^"]*)"', written)) <= set(anchors)
    assert "5 more people are seen" in written and written.count("(does not speak)") == 18
