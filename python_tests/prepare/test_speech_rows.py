import sys

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.prepare import speech


def sine(hertz, seconds=1.0, level=0.3):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 16_000)) / 16_000)).astype(np.float32)


def test_logmel_has_a_row_every_ten_milliseconds_and_finds_the_pitch():
    rows = speech.LogMel()(sine(1000))
    assert rows.shape == (98, 80) and rows.dtype == np.float32 and np.isfinite(rows).all()
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 8000)), 82) / 2595) - 1)
    loudest = rows.mean(0).argmax()
    assert edges[loudest] < 1000 < edges[loudest + 2]


def test_logmel_bands_cover_every_frequency():
    bank = speech.mel_bank()
    assert (bank.sum(0) > 0).all() and (bank[2:-1].sum(1) > 0).all()


def test_logmel_of_too_little_sound_and_of_long_sound():
    assert speech.LogMel()(sine(440, 0.02)).shape == (0, 80)
    long = sine(440, 12.0)
    part = speech.LogMel()(long[:16_000])
    np.testing.assert_allclose(speech.LogMel()(long)[:98], part, atol=1e-4)


def test_mean_rows_averages_the_last_group_as_it_is():
    rows = np.arange(14, dtype=np.float32).reshape(7, 2)
    means = speech.mean_rows(rows, 3)
    np.testing.assert_allclose(means, [rows[:3].mean(0), rows[3:6].mean(0), rows[6]])
    assert speech.mean_rows(rows, 1) is rows and speech.mean_rows(rows[:0], 3).shape == (0, 2)


def test_choices():
    assert speech.parse_speech("logmel", None).mean == 6
    choice = speech.parse_speech("wav2vec2=models/w", 4)
    assert (choice.kind, str(choice.path), choice.mean) == ("wav2vec2", "models/w", 4)
    for wrong in ("mfcc", "wav2vec2", "logmel=x"):
        with pytest.raises(MemofastError, match="--speech is"):
            speech.parse_speech(wrong, None)


def test_absent_opensmile_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(MemofastError, match=r'pip install "memofast\[opensmile\]"'):
        speech.open_speech(speech.parse_speech("compare", None))


@pytest.mark.slow
def test_compare_rows():
    pytest.importorskip("opensmile")
    rows = speech.Compare()(sine(300))
    assert rows.shape[1] == 130 and 90 < len(rows) < 101
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-3)


def test_wav2vec2_from_a_local_folder(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8,) * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path / "w")
    rows = speech.open_speech(speech.parse_speech(f"wav2vec2={tmp_path / 'w'}", None))
    assert rows(sine(300)).shape == (49, 16) and len(rows.fingerprint) == 32
    with pytest.raises(MemofastError, match=r"no wav2vec 2\.0 model"):
        speech.open_speech(speech.parse_speech(f"wav2vec2={tmp_path}", None))
