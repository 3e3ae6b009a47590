"""Networks that make rows of speech: against transformers, and one clip beside another as alone."""

import pytest
import torch
import torch.nn.functional as F
from flow_reference import flow_config, flow_model
from packed_batches import random_batch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from memofast.data import View
from memofast.model.memobert_flow import MemoBertFlowModel
from memofast.model.memobert_flow.sound_networks import STRETCH, CompareNetwork, Wav2Vec2Network, WaveformNetwork

LENGTHS = (3, 0, 7, 1)
KEYS = torch.arange(len(LENGTHS))
BASE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "group",
}  # fmt: skip
LARGE = BASE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def offsets_of(lengths):
    return F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()


def random_sound(spare=0):
    torch.manual_seed(1)
    rows = sum(LENGTHS) + spare
    loud = torch.linspace(200, 4000, rows)[:, None]  # clips of unlike loudness
    return (torch.randn(rows, STRETCH) * loud).clamp(-32768, 32767).to(torch.int16)


def shaken(network):
    torch.manual_seed(2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0.05, 0.3)
    return network.eval()


@pytest.mark.parametrize("settings", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("normalise", [False, True])
def test_wav2vec2_is_that_of_transformers_clip_by_clip(settings, normalise):
    network = shaken(Wav2Vec2Network(settings, normalise))
    theirs = Wav2Vec2Model(Wav2Vec2Config(**settings)).eval()
    theirs.load_state_dict(network.body.state_dict(), strict=False)
    sound, offsets = random_sound(spare=2), offsets_of(LENGTHS)
    with torch.no_grad():
        made = network(sound, offsets, KEYS, None)
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            if begin == end:
                continue
            clip = sound[begin:end].flatten().float() / 32768
            if normalise:
                clip = (clip - clip.mean()) / (clip.var(correction=0) + 1e-7).sqrt()
            expected = theirs(F.pad(clip, (0, 80))[None]).last_hidden_state[0]
            assert len(expected) == end - begin
            torch.testing.assert_close(made[begin:end], expected, rtol=1e-4, atol=1e-5)
    assert not made[offsets[-1] :].any()


def test_wav2vec2_draws_nothing_at_random_in_training():
    network, sound = shaken(Wav2Vec2Network(BASE, False)).train(), random_sound()
    before = torch.get_rng_state()
    one, other = (network(sound, offsets_of(LENGTHS), KEYS, None) for _ in range(2))
    assert torch.equal(one, other) and torch.equal(torch.get_rng_state(), before)
    one.sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_no_clip_at_all_gives_no_rows():
    offsets = offsets_of((0, 0))
    for network, width in ((Wav2Vec2Network(BASE, True), STRETCH), (CompareNetwork(), 1040)):
        dtype = torch.int16 if width == STRETCH else torch.float32
        made = network(torch.zeros(0, width, dtype=dtype), offsets, torch.arange(2), None)
        assert made.shape == (0, network.width)


def test_a_row_of_a_waveform_depends_on_its_stretch_alone():
    network = shaken(WaveformNetwork())
    sound = random_sound()
    network.settle(sound)
    assert float(network.std) == pytest.approx(float((sound.double() / 32768).square().mean().sqrt()))
    made = network(sound, offsets_of(LENGTHS), KEYS, None)
    assert made.shape == (len(sound), 128)
    torch.testing.assert_close(network(sound[4:6], offsets_of((2,)), KEYS[:1], None), made[4:6], rtol=1e-5, atol=1e-5)


def test_frames_of_compare_beside_a_longer_clip_are_as_alone():
    """Against the convolutions one after another over a clip's own frames."""
    network = shaken(CompareNetwork())
    rows = torch.randn(sum(LENGTHS), 1040) * 3 + 1
    network.settle(rows)
    offsets = offsets_of(LENGTHS)
    with torch.no_grad():
        made = network(rows, offsets, KEYS, None)
        for begin, end in ((0, 3), (3, 10), (10, 11)):
            frames = rows[begin:end].reshape(-1, 130)
            inner = ((frames - rows.view(-1, 130).mean(0)) / rows.view(-1, 130).std(0, correction=0)).T[None]
            for convolution in network.convolutions:
                inner = F.gelu(convolution(inner))
            torch.testing.assert_close(made[begin:end], inner[0].T, rtol=1e-3, atol=1e-3)
    kernels = [tuple(convolution.weight.shape) for convolution in network.convolutions]
    assert kernels == [(256, 130, 10), (512, 256, 5), (1024, 512, 5), (512, 1024, 3)]


def test_a_saved_network_comes_back(tmp_path):
    sound = {"network": "wav2vec2", "settings": BASE, "normalise": True}
    torch.manual_seed(5)
    model = MemoBertFlowModel(flow_config(sound=sound, speech_layers=0))
    assert (model.config.speech_width, model.config.reads["speech"], model.raw) == (16, STRETCH, {"speech"})
    model.save_pretrained(tmp_path)
    again = MemoBertFlowModel.from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_frames_of_compare_are_perceived_once_for_all_views():
    model = flow_model(sound={"network": "compare"})
    batch = random_batch(flow_config(speech_width=1040))
    with torch.no_grad():
        one, other = model.embeddings.perceived([View(batch), View(batch, draw=1)], None)
        assert one.batch is other.batch and one.batch.speech.shape == (len(batch.speech), 512)
        made = model.embeddings.speech.network(batch.speech, batch.speech_offsets, batch.sample_keys, None)
        assert torch.equal(one.batch.speech, made) and made.abs().max() > 0
        assert torch.equal(model(one).hidden, model(batch).hidden)
    assert (model.reads["speech"], model.raw, model.config.made) == (1040, frozenset(), {"speech"})
