"""Low-level descriptors of openSMILE, whose licence allows research and personal use only; it is never installed unless
asked for."""

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.media.decoding import SAMPLE_RATE
from memofast.prepare.speech.rows import SHORTEST


class _OpenSmile:
    """Descriptors of one feature set every 10 ms. within_clip: whether they are z-normed within the clip; as they are,
    some exceed float16.

    Energy and spectrum of row i are those of the 20 ms from i * 10 ms on; descriptors of the pitch look at 60 ms from
    there.
    """

    name: str
    width: int
    hop = 0.01
    window = 0.02
    _sets: tuple[tuple[str, str], ...]  # feature set and level, of each part of a row

    def __init__(self, within_clip: bool = True):
        self.within_clip = within_clip
        self.normalisation, self.dtype = ("z-norm within the clip", "float16") if within_clip else ("none", "float32")
        try:
            import opensmile
        except ImportError as error:
            raise MemofastError(
                f"--speech {self.name} needs openSMILE (non-commercial licence), which is not installed: pip install "
                '"memofast[opensmile]"'
            ) from error
        self.fingerprint = (
            f"opensmile-{opensmile.__version__}-{'+'.join(dict.fromkeys(name for name, _ in self._sets))}"
        )
        self._parts = [
            opensmile.Smile(getattr(opensmile.FeatureSet, descriptors), getattr(opensmile.FeatureLevel, level))
            for descriptors, level in self._sets
        ]
        self.columns = [name for smile in self._parts for name in smile.column_names]

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < SHORTEST:
            return np.empty((0, self.width), np.float32)
        parts = [smile.process_signal(sound, SAMPLE_RATE).to_numpy(np.float32) for smile in self._parts]
        count = min(map(len, parts))
        rows = np.nan_to_num(np.concatenate([part[:count] for part in parts], axis=1).astype(np.float64))
        if self.within_clip:
            rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-5)
        return rows.astype(np.float32)


class Compare(_OpenSmile):
    """The 65 low-level descriptors of ComParE 2016 and their deltas."""

    name = "compare"
    width = 130
    _sets = (("ComParE_2016", "LowLevelDescriptors"), ("ComParE_2016", "LowLevelDescriptors_Deltas"))


class EGemaps(_OpenSmile):
    """The 25 low-level descriptors of eGeMAPS v02."""

    name = "egemaps"
    width = 25
    _sets = (("eGeMAPSv02", "LowLevelDescriptors"),)


class CompareAndEGemaps(_OpenSmile):
    """Those of ComParE 2016 with their deltas, then those of eGeMAPS v02."""

    name = "compare+egemaps"
    width = Compare.width + EGemaps.width
    _sets = Compare._sets + EGemaps._sets


OPENSMILE_ROWS = {rows.name: rows for rows in (Compare, EGemaps, CompareAndEGemaps)}
