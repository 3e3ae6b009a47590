"""The page in a real browser: it draws, complains of nothing, and fits a phone and a desk."""

import html
import json
import re
import shutil
import subprocess

import matplotlib.image
import pytest

from memofast.data.corpus import Corpus
from memofast.data.demo import demo_corpus
from memofast.pages.inspect import write_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
MEASURE = """<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("img, svg")].map(
    e => [e.tagName, e.naturalWidth ?? 1, e.getBoundingClientRect()]);
  parent.postMessage(JSON.stringify({
    inner: innerWidth, page: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    pictures: boxes.map(([name, natural, box]) => [name, natural, box.width, box.height]),
    background: getComputedStyle(document.body).backgroundColor,
  }), "*");
});
</script></body>"""
# windows are not narrower than 500
FRAME = """<!doctype html><title>nothing</title><script>onmessage = event => document.title = event.data</script>
<iframe src="measured.html" style="border:0;width:{width}px;height:5000px"></iframe>"""


def browse(page, width, *options, height=900):
    """The browser's DOM of a page and its errors."""
    profile = page.parent / "profile"
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
            f"--user-data-dir={profile}", f"--window-size={width},{height}", *options, page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measured(page, width, *options):
    """What a script in a copy of the page says about it, shown `width` pixels wide."""
    page.with_name("measured.html").write_text(page.read_text().replace("</body>", MEASURE))
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.format(width=width))
    dom, errors = browse(frame, 1300, "--dump-dom", "--virtual-time-budget=5000", *options)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.S)[1])), errors


@pytest.fixture
def page(prepared, tmp_path):
    write_page(Corpus.open(prepared), tmp_path / "page.html", samples=10)
    return tmp_path / "page.html"


def test_the_page_fits_and_its_pictures_show(page):
    for width in (400, 1200):
        found, errors = measured(page, width)
        assert not errors, errors
        assert found["inner"] == width and found["page"] <= width, found
        names = [name for name, *_ in found["pictures"]]
        assert names.count("IMG") > 30 and names.count("svg") > 10
        assert all(natural > 0 and w > 8 and h > 8 for _, natural, w, h in found["pictures"])


def test_light_and_dark(page):
    light, _ = measured(page, 1200, "--blink-settings=preferredColorScheme=1")
    dark, _ = measured(page, 1200, "--blink-settings=preferredColorScheme=0")
    brightness = [sum(map(int, re.findall(r"\d+", found["background"])[:3])) for found in (light, dark)]
    assert brightness[0] > 600 and brightness[1] < 120


def test_a_screenshot_is_not_blank(page, tmp_path):
    _, errors = browse(page, 1200, f"--screenshot={tmp_path / 'page.png'}", height=2400)
    assert not errors, errors
    picture = matplotlib.image.imread(tmp_path / "page.png")
    assert picture.shape[:2] == (2400, 1200) and picture[..., :3].std() > 0.05


def test_a_corpus_of_long_words_without_media_fits(tmp_path):
    folder = demo_corpus(tmp_path / ("demo_" + "x" * 120), {"train": 60, "validation": 20})
    write_page(Corpus.open(folder), tmp_path / "page.html")
    found, errors = measured(tmp_path / "page.html", 400)
    assert not errors and found["page"] <= 400


def test_errors_of_a_page_are_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>x</title><body><script>console.error('seen')</script></body>")
    _, errors = browse(page, 400, "--dump-dom")
    assert any("seen" in line for line in errors)
