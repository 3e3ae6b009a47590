import json

import numpy as np
import pytest
import torch
from tiny_models import save_speech_model

from memofast.errors import MemofastError
from memofast.prepare.speech.extractors import SpeechChoice, open_speech, parse_speech
from memofast.prepare.speech.rows import row_times

KINDS = ("wav2vec2", "hubert", "wavlm", "data2vec")


def sound(seconds=1.0, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000)) + 0.05).astype(np.float32)


def opened(text):
    return open_speech(parse_speech(text, None))


def by_transformers(folder, given, normalise=True):
    from transformers import AutoModel

    if normalise:
        given = (given - given.mean()) / np.sqrt(given.var() + 1e-7)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        given = torch.from_numpy(given[None])
        return model(given, output_hidden_states=True), model.feature_extractor(given)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_transformers(kind, tmp_path):
    folder = save_speech_model(tmp_path / "m", kind)
    expected, convolved = by_transformers(folder, sound())
    last, second, conv = (opened(f"{kind}={folder}{layer}") for layer in ("", ",layer=2", ",layer=conv"))
    np.testing.assert_allclose(last(sound()), expected.last_hidden_state[0], atol=1e-5)
    np.testing.assert_allclose(second(sound()), expected.hidden_states[2][0], atol=1e-5)
    assert last(sound()).shape == (49, 16) and (last.width, conv.width) == (16, 8)
    np.testing.assert_allclose(conv(sound()), convolved[0].T, atol=1e-5)
    names = [extractor.name for extractor in (last, second, conv)]
    assert names == [kind, f"{kind} layer 2", f"{kind} layer conv"]
    assert len({extractor.fingerprint for extractor in (last, second, conv)}) == 3
    assert (last.hop, last.window) == (0.02, 0.025) and last(sound(0.02)).shape == (0, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_stand_side_by_side_in_the_order_given(kind, tmp_path):
    folder = save_speech_model(tmp_path / "m", kind)
    expected, convolved = by_transformers(folder, sound())
    both, several = (opened(f"{kind}={folder},layer={layer}") for layer in ("last+conv", "conv+3+1"))
    rows = [expected.last_hidden_state[0], convolved[0].T]
    np.testing.assert_allclose(both(sound()), np.concatenate(rows, 1), atol=1e-5)
    rows = [convolved[0].T, expected.hidden_states[3][0], expected.hidden_states[1][0]]
    if kind != "wavlm":  # whose third layer is its last, after which transformers has no other rows
        np.testing.assert_allclose(several(sound()), np.concatenate(rows, 1), atol=1e-5)
    assert (both.width, several.width) == (24, 40) and several(sound(0.02)).shape == (0, 40)
    assert (both.name, several.name) == (f"{kind} layer last+conv", f"{kind} layer conv+3+1")
    assert both.fingerprint != several.fingerprint
    choice = parse_speech(f"{kind}={folder},layer=last+conv", None)
    assert SpeechChoice.described(str(choice), folder, choice.mean) == choice


def test_a_layer_before_the_final_norm(tmp_path):
    folder = save_speech_model(tmp_path / "m", "wav2vec2", do_stable_layer_norm=True, feat_extract_norm="layer")
    expected, _ = by_transformers(folder, sound())
    np.testing.assert_allclose(opened(f"wav2vec2={folder},layer=2")(sound()), expected.hidden_states[2][0], atol=1e-5)
    np.testing.assert_allclose(opened(f"wav2vec2={folder}")(sound()), expected.last_hidden_state[0], atol=1e-5)


def test_the_model_says_whether_sound_is_normed(tmp_path):
    folder = save_speech_model(tmp_path / "m", "wavlm", normalise=False, feat_extract_norm="layer")
    plain = opened(f"wavlm={folder}")
    np.testing.assert_allclose(
        plain(sound()), by_transformers(folder, sound(), normalise=False)[0].last_hidden_state[0], atol=1e-5
    )
    (folder / "preprocessor_config.json").unlink()
    settings = {"feature_extractor": {"do_normalize": True, "sampling_rate": 16_000}}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    normed = opened(f"wavlm={folder}")
    assert (plain.normalisation, normed.normalisation) == ("none", "sound z-normed within the clip")
    assert plain.fingerprint != normed.fingerprint
    np.testing.assert_allclose(normed(sound()), by_transformers(folder, sound())[0].last_hidden_state[0], atol=1e-5)


def test_a_click_lies_at_its_time(tmp_path):
    """The convolutions see a click in those rows only whose 25 ms hold it."""
    folder = save_speech_model(tmp_path / "m", "wav2vec2", normalise=False, feat_extract_norm="layer")
    extractor = opened(f"wav2vec2={folder},layer=conv")
    given = np.zeros(16_000, np.float32)
    quiet = extractor(given + 1e-3)
    given[8080] = 1.0
    moved = np.flatnonzero(np.abs(extractor(given + 1e-3) - quiet).max(1) > 0.3)
    times = row_times(len(quiet), 1, extractor.hop, extractor.window)[moved]
    assert len(times) and np.abs(times - 8080 / 16_000).max() <= extractor.window / 2


def test_rows_do_not_depend_on_what_ran_before(tmp_path):
    extractor = opened(f"hubert={save_speech_model(tmp_path / 'm', 'hubert')}")
    alone = extractor(sound(1.3))
    extractor(sound(0.7, seed=1))
    assert np.array_equal(extractor(sound(1.3)), alone)


def test_half_precision_checkpoints_run_in_full_precision(tmp_path):
    from transformers import AutoModel

    folder = save_speech_model(tmp_path / "m", "wav2vec2")
    AutoModel.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    assert opened(f"wav2vec2={folder}")(sound()).dtype == np.float32


def test_mistakes(tmp_path):
    folder = save_speech_model(tmp_path / "m", "hubert")
    with pytest.raises(MemofastError, match=r"no model at .*--speech hubert needs a local folder"):
        opened(f"hubert={tmp_path}")
    with pytest.raises(MemofastError, match="holds a hubert model, not wav2vec2; use --speech hubert="):
        opened(f"wav2vec2={folder}")
    with pytest.raises(MemofastError, match="has 3 layers, not 4"):
        opened(f"hubert={folder},layer=4")
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(MemofastError, match="hears sound at 8000 Hz"):
        opened(f"hubert={folder}")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(MemofastError, match="is not readable"):
        opened(f"hubert={folder}")


def test_a_checkpoint_without_all_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_speech_model(tmp_path / "m", "wav2vec2")
    weights = load_file(folder / "model.safetensors")
    save_file({n: w for n, w in weights.items() if "layers.1" not in n}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MemofastError, match="weights are missing, as encoder"):
        opened(f"wav2vec2={folder}")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(MemofastError, match="does not load") as told:
        opened(f"wav2vec2={folder}")
    assert "\n" not in str(told.value)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_rows_on_a_gpu(kind, tmp_path):
    choice = parse_speech(f"{kind}={save_speech_model(tmp_path / 'm', kind)}", None)
    given = sound()
    there = open_speech(choice, "cuda")
    np.testing.assert_allclose(there(given), open_speech(choice)(given), atol=1e-4)
    assert np.array_equal(there(given), open_speech(choice, "cuda")(given))
