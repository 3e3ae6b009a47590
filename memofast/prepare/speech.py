"""Speech rows: built-in log-mel, ComParE low-level descriptors through openSMILE, wav2vec 2.0 through transformers."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.decoding import SAMPLE_RATE

BANDS = 80
_WINDOW, _HOP, _FFT = 400, 160, 512  # 25 ms, 10 ms
_LOWEST, _HIGHEST = 20.0, 8000.0  # Hz
SHORTEST = 2 * _WINDOW  # samples; less has no row


class SpeechRows(Protocol):
    """Called with sound [samples] float32 at 16 kHz; gives rows [n, width] float32, one every `hop` seconds."""

    name: str
    width: int
    hop: float
    fingerprint: str
    normalisation: str

    def __call__(self, sound: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class SpeechChoice:
    """kind: logmel, compare, wav2vec2 or none; path: the model folder of wav2vec2; mean: rows averaged into one."""

    kind: str
    path: Path | None
    mean: int


_DEFAULT_MEAN = {"logmel": 6, "compare": 5, "wav2vec2": 3, "none": 1}  # 60, 50 and 60 ms; the last two as in MEmoBERT


def parse_speech(text: str, mean: int | None) -> SpeechChoice:
    """The choice behind `--speech`; raises MemofastError for an unknown one."""
    kind, _, path = text.partition("=")
    if kind not in _DEFAULT_MEAN or (kind == "wav2vec2") != bool(path):
        raise MemofastError(f"--speech is logmel, compare, wav2vec2=FOLDER or none, not {text!r}")
    return SpeechChoice(kind, Path(path) if path else None, mean or _DEFAULT_MEAN[kind])


def open_speech(choice: SpeechChoice) -> SpeechRows | None:
    """The extractor of a choice; raises MemofastError naming what is missing."""
    if choice.kind == "none":
        return None
    if choice.kind == "logmel":
        return LogMel()
    return Compare() if choice.kind == "compare" else Wav2Vec2(choice.path)


def mean_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """Means of k consecutive rows, the last group as long as it is: [n, width] -> [ceil(n / k), width]."""
    if k == 1 or len(rows) == 0:
        return rows
    starts = np.arange(0, len(rows), k)
    counts = np.diff(np.append(starts, len(rows)))
    return (np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]).astype(np.float32)


class LogMel:
    """Log power in 80 mel bands every 10 ms; the loudest 80 dB of a clip, scaled as (log10 + 4) / 4 (the scaling of Whisper)."""

    name = "logmel"
    width = BANDS
    hop = _HOP / SAMPLE_RATE
    fingerprint = f"logmel-1-{BANDS}-{_WINDOW}-{_HOP}-{_FFT}"
    normalisation = "log10, floor 8 below the clip's maximum, (x + 4) / 4"

    def __init__(self):
        self._bank = mel_bank()
        self._window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < _WINDOW:
            return np.empty((0, BANDS), np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP]
        power = np.concatenate([self._power(frames[i : i + 1000]) for i in range(0, len(frames), 1000)])
        logarithm = np.log10(np.maximum(power, 1e-10))
        return ((np.maximum(logarithm, logarithm.max() - 8) + 4) / 4).astype(np.float32)

    def _power(self, frames: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(frames * self._window, _FFT)
        return (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._bank


def mel_bank() -> np.ndarray:
    """[257, 80] float32: triangles between points equally spaced on the mel scale 2595 log10(1 + f / 700), each of unit area."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    rising = (frequencies[:, None] - edges[:-2]) / np.diff(edges[:-1])
    falling = (edges[2:] - frequencies[:, None]) / np.diff(edges[1:])
    return (np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


class Compare:
    """The 130 low-level descriptors of ComParE 2016 every 10 ms, z-normed within the clip.

    openSMILE's licence allows research and personal use only; it is never installed unless asked for.
    """

    name = "compare"
    width = 130
    hop = 0.01
    normalisation = "z-norm within the clip"

    def __init__(self):
        try:
            import opensmile
        except ImportError as error:
            raise MemofastError(
                'ComParE rows need openSMILE (non-commercial licence), which is not installed: pip install "memofast[opensmile]"'
            ) from error
        self.fingerprint = f"opensmile-{opensmile.__version__}-ComParE_2016"
        low_level = (
            opensmile.FeatureLevel.LowLevelDescriptors,
            opensmile.FeatureLevel.LowLevelDescriptors_Deltas,
        )
        self._parts = [opensmile.Smile(opensmile.FeatureSet.ComParE_2016, level) for level in low_level]

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < SHORTEST:
            return np.empty((0, self.width), np.float32)
        parts = [smile.process_signal(sound, SAMPLE_RATE).to_numpy(np.float32) for smile in self._parts]
        count = min(map(len, parts))
        rows = np.nan_to_num(np.concatenate([part[:count] for part in parts], axis=1).astype(np.float64))
        return ((rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-5)).astype(np.float32)


class Wav2Vec2:
    """Last hidden states of a wav2vec 2.0 model, one every 20 ms, from a local transformers folder."""

    name = "wav2vec2"
    hop = 0.02
    normalisation = "none"

    def __init__(self, path: Path):
        if not (path / "config.json").is_file():
            raise MemofastError(f"no wav2vec 2.0 model at {path}; give a folder with config.json and weights")
        import torch
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True)
            if config.model_type not in {"wav2vec2", "hubert", "wavlm"}:
                raise MemofastError(f"{path} holds a {config.model_type} model; --speech wav2vec2 needs wav2vec2")
            self._model = AutoModel.from_pretrained(path, local_files_only=True).eval()
        except (OSError, ValueError) as error:
            raise MemofastError(f"{path} is not a wav2vec 2.0 model ({str(error).splitlines()[0]})") from error
        self._torch = torch
        self._normalise = getattr(config, "feat_extract_norm", "group") == "layer"
        self.width = config.hidden_size
        self.fingerprint = _weights_fingerprint(self._model)
        self._shortest = 400

    def __call__(self, sound: np.ndarray) -> np.ndarray:
        if len(sound) < self._shortest:
            return np.empty((0, self.width), np.float32)
        sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)  # as transformers' own feature extractor
        with self._torch.inference_mode():
            return self._model(self._torch.from_numpy(sound[None])).last_hidden_state[0].numpy()


def _weights_fingerprint(model) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
