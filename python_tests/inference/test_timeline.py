"""Timelines of films with more utterances than pixels can show."""

import io
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from memofast.inference.page import film
from memofast.inference.prediction import Prediction
from memofast.inference.stretches import drawable
from memofast.inference.timeline import draw_timeline


def said(number: int, seconds: float, value: float | None = None) -> Prediction:
    probabilities = {} if value is not None else {"calm": 0.7, "glad": 0.3}
    importance = {"text": 0.1, "visual": 0.2, "speech": 0.3}
    return Prediction(
        f"u{number}", None if value is not None else "calm", probabilities, ("text", "visual", "speech"), importance,
        value, start=number * seconds + 0.4, end=(number + 1) * seconds - 0.3,
    )  # fmt: skip


def columns_of(path, rows: slice) -> np.ndarray:
    """Which columns of these rows of the picture hold a colour."""
    picture = matplotlib.image.imread(io.BytesIO(path.read_bytes()))[rows, :, :3]
    return (np.ptp(picture, axis=2) > 0.05).any(0)


@pytest.mark.parametrize("count", [121, 1209])
@pytest.mark.parametrize("value", [None, 0.5])
def test_no_utterance_is_lost_between_pixels(count, value, tmp_path):
    """Sentences with pauses shorter than a pixel fill the picture: drawn one by one, whole minutes were missing."""
    path = tmp_path / "timeline.png"
    draw_timeline(
        [said(number, 2.979, value) for number in range(count)], () if value else ("calm", "glad"), path, "film"
    )
    coloured = np.flatnonzero(columns_of(path, slice(330, 340)))
    assert coloured[-1] - coloured[0] > 1000 and np.diff(coloured).max() <= 2


def test_a_pause_of_minutes_stays_empty(tmp_path):
    path = tmp_path / "timeline.png"
    spoken = [said(number, 3.0) for number in range(1200) if not 400 <= number < 600]
    draw_timeline(spoken, ("calm", "glad"), path, "film")
    coloured = np.flatnonzero(columns_of(path, slice(330, 340)))
    share = np.diff(coloured).max() / (coloured[-1] - coloured[0])
    assert 0.15 < share < 0.18


def test_blocks_of_the_page_are_wide_enough_to_see():
    spoken = [said(number, 3.0) for number in range(1209)]
    shown = film("film.mkv", spoken, {})
    (lane,) = shown.lanes
    assert len(shown.rows) == 1209 and len(lane.blocks) == 120 and len(shown.ticks) <= 7
    assert all(block.width > 0.8 for block in lane.blocks)
    assert np.allclose(np.diff([block.left for block in lane.blocks]), 100 / 120)
    assert lane.blocks[0].shares == [("calm", pytest.approx(70)), ("glad", pytest.approx(30))]
    ids = {row.id for row in spoken}
    assert {block.row.id for block in lane.blocks} < ids and lane.blocks[0].row.named == "calm"


def test_the_mean_names_what_is_likeliest_over_the_stretch():
    spoken = [
        replace(said(n, 3.0), probabilities={"calm": 0.2, "glad": 0.8}) if n % 10 else said(n, 3.0) for n in range(1200)
    ]
    drawn, stretch = drawable(spoken, 3600.0)
    assert stretch == 30.0 and {found.named for found in drawn} == {"glad"}
    assert all(found.probabilities == pytest.approx({"calm": 0.25, "glad": 0.75}) for found in drawn)
    assert drawn[3].start == 90.0 and drawn[3].end == 120.0
