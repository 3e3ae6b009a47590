"""The folded Perceiver against transformers' and the golden values: logits, gradients, latents, decoded points."""

import json

import numpy as np
import perceiver_rule as rule
import pytest
import torch
import torch.nn.functional as F
from transformers import PerceiverForMultimodalAutoencoding

from memofast.model.perceiver import PerceiverEmotionConfig, PerceiverForEmotion, PerceiverNetwork, patches_of
from memofast.model.perceiver.first_attention import InputRows, first_attention
from memofast.model.perceiver.layers import Dropout
from memofast.model.perceiver.network import UNREAD
from memofast.ops.separable_attention import keep_mask


@pytest.fixture(scope="module")
def companions(real_data):
    return real_data.parent / "golden" / "companions"


@pytest.fixture(scope="module")
def tiny():
    model = rule.theirs("tiny").double()
    return model, rule.ours(model), rule.inputs(model)


@pytest.mark.real
def test_golden_values(companions, tiny):
    golden = np.load(companions / "perceiver.npz")
    _, model, given = tiny
    pixels = patches_of(given["image"].permute(0, 1, 3, 4, 2))
    latents = model.perceiver.encode(pixels, given["audio"][..., 0])
    np.testing.assert_allclose(latents.detach().numpy(), golden["tiny_6/latents"], atol=1e-12)
    logits = rule.label_logits(model, given)
    np.testing.assert_allclose(logits.detach().numpy(), golden["tiny_6/label"], atol=1e-12)
    points = {"image": torch.arange(4), "audio": torch.arange(1)}
    found = model.perceiver.decode(latents, points)
    np.testing.assert_allclose(found["image"].detach().numpy(), golden["tiny_6/image_first_points"], atol=1e-12)
    audio = golden["tiny_6/audio_first_points"]
    np.testing.assert_allclose(found["audio"].detach().numpy()[:, : audio.shape[1]], audio, atol=1e-12)
    loss = F.cross_entropy(logits, torch.from_numpy(golden["tiny_6/labels"]))
    assert float(loss) == pytest.approx(float(golden["tiny_6/loss"]), abs=1e-12)
    model.zero_grad()
    loss.backward()
    parameters, compared = dict(model.named_parameters()), 0
    for key in golden.files:
        if not key.startswith("tiny_6/grad/"):
            continue
        name, gradient = key.removeprefix("tiny_6/grad/"), parameters[key.removeprefix("tiny_6/grad/")].grad
        own = np.zeros_like(golden[key]) if gradient is None else gradient.numpy()
        np.testing.assert_allclose(own, golden[key], atol=1e-12, err_msg=name)
        compared += 1
    assert compared > 50


@pytest.mark.real
def test_what_the_label_does_not_depend_on_is_frozen(companions, tiny):
    told = json.loads((companions / "perceiver.json").read_text())
    frozen = {name for name, weight in tiny[1].named_parameters() if not weight.requires_grad}
    shifts = {name for name in frozen if name.endswith("key.bias")}  # which softmax does not see
    assert frozen - shifts == {*told["without_gradient"], "perceiver.input_preprocessor.padding.label"}
    assert len(shifts) == 2 and all(name.removeprefix("perceiver.").startswith(UNREAD) for name in frozen - shifts)
    assert {name: list(weight.shape) for name, weight in tiny[1].named_parameters()} == told["parameters"]


@pytest.mark.parametrize(
    "size", ["tiny", pytest.param("middle", marks=pytest.mark.slow), pytest.param("real", marks=pytest.mark.slow)]
)
def test_equal_to_transformers(size):
    """Logits, and the gradients of their sum, in fp32."""
    theirs = rule.theirs(size)
    ours, given = rule.ours(theirs), rule.inputs(theirs, 1 if size == "real" else 2)
    expected, found = rule.label_only(theirs, given), rule.label_logits(ours, given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found.square().sum().backward()
    expected.square().sum().backward()
    wanted = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        if weight.requires_grad and not name.endswith("key.bias"):
            true = wanted[name].grad
            torch.testing.assert_close(weight.grad, true, atol=1e-5 + 1e-5 * float(true.abs().max()), rtol=0, msg=name)


def test_what_transformers_habit_gives():
    """One point of each modality asked for, as its documentation does, and 700 labels."""
    theirs = rule.theirs("tiny", labels=700)
    ours, given = rule.ours(theirs, labels=700), rule.inputs(theirs, labels=700)
    points = {"image": torch.zeros(1, dtype=torch.int64), "audio": torch.zeros(1, dtype=torch.int64), "label": None}
    with torch.no_grad():
        expected = theirs(inputs=given, subsampled_output_points=points).logits
        found = rule.label_logits(ours, given)
        given["label"] = torch.rand(2, 700)
        other = theirs(inputs=given, subsampled_output_points=points).logits
    torch.testing.assert_close(found, expected["label"], atol=1e-5, rtol=0)
    assert torch.equal(other["label"], expected["label"])  # the label that is given never matters


def test_decoding_in_chunks_and_at_any_points():
    theirs = rule.theirs("tiny", num_frames=3, image_size=20)
    ours, given = rule.ours(theirs), rule.inputs(theirs)
    points = {"image": torch.tensor([0, 7, 399, 400, 1199, 5]), "audio": torch.tensor([3, 11, 0])}
    with torch.no_grad():
        expected = theirs(inputs=given, subsampled_output_points={**points, "label": None}).logits
        latents = ours.perceiver.encode(patches_of(given["image"].permute(0, 1, 3, 4, 2)), given["audio"][..., 0])
        for at_once in (2, 100):
            found = ours.perceiver.decode(latents, points, at_once)
            torch.testing.assert_close(found["image"], expected["image"], atol=1e-5, rtol=0)
            torch.testing.assert_close(found["audio"], expected["audio"], atol=1e-5, rtol=0)
        assert ours.perceiver.decode(latents, {"image": torch.zeros(0, dtype=torch.int64)})["image"].shape == (2, 0, 3)
        with pytest.raises(ValueError, match="image are numbers from 0 to 1199"):
            ours.perceiver.decode(latents, {"image": torch.tensor([1200])})


def test_pictures_finer_than_their_frequencies():
    """A checkpoint may say a resolution of positions that is not the side of its pictures."""
    theirs = rule.theirs("tiny")
    shape = [1, 2, 24, 24]
    config = theirs.config
    config.image_size, config.output_shape = 8, shape
    theirs = PerceiverForMultimodalAutoencoding(config).eval()
    rule.fill(theirs)
    entries = {name: getattr(config, name) for name in rule.SIZES["real"]}
    config = PerceiverEmotionConfig(**entries, output_shape=shape, num_labels=6, d_model=405, label_head="linear")
    own = PerceiverForEmotion(config).eval()
    own.load_state_dict(theirs.state_dict(), strict=True)
    given = {"image": torch.randn(2, 2, 3, 24, 24), "audio": torch.randn(2, 128, 1), "label": torch.zeros(2, 6)}
    with torch.no_grad():
        expected = rule.label_only(theirs, given)
        torch.testing.assert_close(rule.label_logits(own, given), expected, atol=1e-5, rtol=0)


def test_clips_of_a_batch_do_not_see_each_other(tiny):
    _, model, given = tiny
    with torch.no_grad():
        together = rule.label_logits(model, given)
        alone = rule.label_logits(model, {name: value[1:] for name, value in given.items()})
    torch.testing.assert_close(together[1:], alone, atol=1e-12, rtol=0)


def test_hidden_modalities_are_left_out_of_the_softmax(tiny):
    """As transformers would, given rows of that modality alone: by a mask over its rows."""
    theirs, model, given = tiny
    own = theirs.perceiver
    rows = own.input_preprocessor(given)[0]
    sound, pictures = slice(0, 8), slice(8, 40)
    pixels = patches_of(given["image"].permute(0, 1, 3, 4, 2))
    with torch.no_grad():
        for hidden, seen in ((sound, (pixels, None)), (pictures, (None, given["audio"][..., 0]))):
            mask = torch.zeros(2, 1, 1, rows.shape[1], dtype=rows.dtype)
            mask[..., hidden] = -1e30
            expected = own.encoder(own.embeddings(batch_size=2), inputs=rows, inputs_mask=mask).last_hidden_state
            torch.testing.assert_close(model.perceiver.encode(*seen), expected, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="neither"):
        model.perceiver.encode(None, None)


def test_dropout_of_probabilities(tiny):
    """As attention over rows that are made, with the same mask: of pictures first, then sound, then the label."""
    theirs, model, given = tiny
    rng, keys, p = torch.tensor([17, 40]), torch.tensor([5, -9]), 0.3
    network: PerceiverNetwork = model.perceiver
    layer, pixels = network.encoder.cross_attention, patches_of(given["image"].permute(0, 1, 3, 4, 2))
    own = theirs.perceiver
    rows = own.input_preprocessor(given)[0]
    rows = torch.cat([rows[:, 8:40], rows[:, :8], rows[:, 40:]], 1)
    part = layer.projections
    with torch.no_grad():
        latents = network.embeddings.latents
        normed = part.layernorm2(rows)
        scores = part.query(part.layernorm1(latents)) @ part.key(normed).mT * 704**-0.5
        keep = keep_mask(rng, 1, keys, 8, 41, p)
        context = (scores.softmax(-1) * keep * (65536 / (65536 - round(65536 * p)))) @ part.value(normed)
        expected = layer.end(context, latents)
        picture, heard = network.positions(torch.device("cpu"))
        parts = network.input_preprocessor
        found = first_attention(
            layer, latents, pixels, given["audio"].view(2, 8, 16), InputRows(picture, parts.padding["image"]),
            InputRows(heard, parts.padding["audio"]), parts.mask["label"], (2, 4, 4), Dropout(p, rng, keys),
        )  # fmt: skip
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_gradients_with_dropout_are_those_of_the_reference(tiny):
    """fp32 through the kernel against fp64 through the reference, with the same masks."""
    given = tiny[2]
    rng, keys = torch.tensor([3, 4]), torch.tensor([5, -9])
    results = []
    for dtype in (torch.float32, torch.float64):
        own = rule.ours(rule.theirs("tiny").to(dtype))
        pixels = patches_of(given["image"].to(dtype).permute(0, 1, 3, 4, 2))
        dropout = Dropout(0.2, rng, keys)
        logits = own.window_logits(pixels, given["audio"][..., 0].to(dtype), dropout)
        logits.square().sum().backward()
        results.append({name: p.grad for name, p in own.named_parameters() if p.grad is not None} | {"logits": logits})
    for name, exact in results[1].items():
        if not name.endswith("key.bias"):
            limit = 1e-4 * (1 + float(exact.detach().abs().max()))
            torch.testing.assert_close(results[0][name].double(), exact, atol=limit, rtol=0, msg=name)
