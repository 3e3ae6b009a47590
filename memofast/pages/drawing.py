"""Pictures of the page: histograms, waveforms and soft labels as SVG, faces as JPEG, all inside the file.

SVG here is stretched to the place it is given (`preserveAspectRatio="none"`); words and numbers stand beside it as
HTML, so that they stay legible.
"""

import base64

import numpy as np

from memofast.prepare.faces.detection import load_opencv
from memofast.prepare.speech.voice import runs

_QUALITY = 78
_SIDE = 128
_COLUMNS = 360  # of a waveform
_MOST_STEPS = 48  # of the soft labels
_STEPS_A_SECOND = 10  # as rows are
_LONGEST_GAP = 0.12  # seconds between a row and the place where it still is drawn
_LEAST = 0.01  # probability that is drawn
_COLOURS = 10
# beginnings of names, in the order of the style's colours: grey, amber, blue, red, purple, orange, green, brown
_EMOTIONS = (
    ("neutral", "calm"),
    ("happ", "joy", "glad"),
    ("sad",),
    ("ang",),
    ("fear",),
    ("surpris",),
    ("disgust",),
    ("contempt",),
)
_TICKS = (  # seconds
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0,
)  # fmt: skip


def face_data(crop: np.ndarray) -> str:
    """A face crop [side, side] uint8, or a picture [side, side, 3] of red, green and blue, as the address of an image,
    128 pixels wide at most."""
    opencv = load_opencv()
    if len(crop) > _SIDE:
        crop = opencv.resize(crop, (_SIDE, _SIDE), interpolation=opencv.INTER_AREA)
    _, jpeg = opencv.imencode(
        ".jpg", crop[..., ::-1] if crop.ndim == 3 else crop, [opencv.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def histogram(bins: list[int]) -> str:
    """Bars, the highest as high as the picture; bins that hold little still show."""
    highest, width = max(bins), 100 / len(bins)
    bars = "".join(
        f'<rect x="{number * width + 0.06 * width:.2f}" y="{100 - height:.2f}" width="{0.88 * width:.2f}" '
        f'height="{height:.2f}"/>'
        for number, height in enumerate(max(2.0, 100 * count / highest) if count else 0.0 for count in bins)
        if height
    )
    return _svg("histogram", 100, 100, bars)


def waveform(wave: np.ndarray, activity: np.ndarray | None, hop: float, rate: int, seconds: float) -> str:
    """Sound [samples] over `seconds`, scaled to its loudest, before the times at which somebody speaks [n] bool, one
    every `hop` seconds."""
    scale = 100 * hop / seconds
    spoken = runs(activity if activity is not None else np.zeros(0, bool))
    shades = "".join(f"M{scale * begin:.2f}-1H{scale * end:.2f}V1H{scale * begin:.2f}z" for begin, end in spoken)
    shades = f'<path class="voice" d="{shades}"/>'
    count = min(_COLUMNS, len(wave))
    if not count:
        return _svg("waveform", 100, 2, shades, top=-1)
    edges = np.linspace(0, len(wave), count + 1).astype(int)[:-1]
    loudest = max(float(np.abs(wave).max()), 1e-4)
    high = np.maximum.reduceat(wave, edges) / loudest
    low = np.minimum.reduceat(wave, edges) / loudest
    x = 100 * (edges + len(wave) / count / 2) / rate / seconds
    top = [f"{at:.2f},{-max(value, 0.012):.3f}" for at, value in zip(x, high, strict=True)]
    bottom = [f"{at:.2f},{-min(value, -0.012):.3f}" for at, value in zip(x, low, strict=True)]
    return _svg("waveform", 100, 2, f'{shades}<polygon points="{" ".join(top + bottom[::-1])}"/>', top=-1)


def soft_bands(times: np.ndarray, soft: np.ndarray, colours: list[int], seconds: float) -> str:
    """Soft labels [n, classes] at `times` [n] as bands that share the height, colours [classes]; nothing where there is
    no face."""
    steps = int(np.clip(round(seconds * _STEPS_A_SECOND), 1, _MOST_STEPS))
    width = 100 / steps
    middles = (np.arange(steps) + 0.5) * seconds / steps
    reach = max(seconds / steps / 2, _LONGEST_GAP)
    paths: list[list[str]] = [[] for _ in range(soft.shape[1])]
    for number in range(steps):
        nearest = int(np.argmin(np.abs(times - middles[number])))
        if abs(times[nearest] - middles[number]) > reach:
            continue
        shares = soft[nearest] / max(soft[nearest].sum(), 1e-9)
        at = 0.0
        for path, share in zip(paths, shares, strict=True):
            if share >= _LEAST:
                path.append(
                    f"M{number * width:.2f} {100 * at:.1f}h{width + 0.05:.2f}v{100 * share:.1f}h-{width + 0.05:.2f}z"
                )
            at += share
    drawn = (f'<path class="class-{c}" d="{"".join(path)}"/>' for c, path in zip(colours, paths, strict=True) if path)
    return _svg("bands", 100, 100, "".join(drawn))


def class_colours(classes: list[str]) -> dict[str, int]:
    """Which of the style's ten colours each class has: emotions their own, other names what is left, in their order."""
    own = {
        name: next((n for n, stems in enumerate(_EMOTIONS) if name.lower().startswith(stems)), None) for name in classes
    }
    left = [number for number in range(_COLOURS) if number not in own.values()] or list(range(_COLOURS))
    others = [name for name in classes if own[name] is None]
    return own | {name: left[place % len(left)] for place, name in enumerate(others)}


def ticks(seconds: float) -> list[tuple[float, str]]:
    """At most seven places on an axis of time, as (percent, seconds or minutes)."""
    step = next((tick for tick in _TICKS if seconds / tick <= 6), _TICKS[-1])
    marks = np.arange(0, seconds - 0.4 * step, step) if seconds > step else np.zeros(1)
    unit, name = (60, "min") if step >= 60 else (1, "s")
    return [
        (100 * float(mark) / max(seconds, 1e-9), f"{mark / unit:g} {name}" if mark else "0") for mark in marks.round(3)
    ]


def _svg(name: str, width: int, height: int, content: str, top: int = 0) -> str:
    """Content is made of numbers alone: the template need not escape it."""
    shape = f'viewBox="0 {top} {width} {height}" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="{name}" {shape}>{content}</svg>'
