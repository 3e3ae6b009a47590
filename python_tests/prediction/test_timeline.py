"""The timeline picture of films with more utterances than pixels can show."""

import io

import matplotlib.image
import numpy as np
import pytest

from memofast.prediction.predictor import Prediction
from memofast.prediction.timeline import draw_timeline


def said(number: int, seconds: float, value: float | None = None) -> Prediction:
    probabilities = {} if value is not None else {"calm": 0.7, "glad": 0.3}
    importance = {"text": 0.1, "visual": 0.2, "speech": 0.3}
    return Prediction(
        f"u{number}", None if value is not None else "calm", probabilities, ("text", "visual", "speech"), importance, value,
        start=number * seconds + 0.4, end=(number + 1) * seconds - 0.3,
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
