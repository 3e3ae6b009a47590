"""TFR-Net: the original's numbers and loss, rows that are missing, and samples that no batch changes."""

import numpy as np
import pytest
import torch
from sequence_networks import (
    NOTHING,
    WIDTHS,
    a_network,
    an_original,
    assert_alone_as_in_a_batch,
    golden_of,
    random_rows,
    samples_lesson,
)
from spoken_corpus import spoken_bert, spoken_corpus, spoken_model

from memofast.data.view import Read, View
from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.sequence.attending_layers import Encoder, LayerOptions, SampleEncoder
from memofast.model.sequence.network import COMPLETE_TEXT, Shape
from memofast.model.sequence.packed_rows import PackedRows
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.tfr_net import TfrNetOptions
from memofast.sections import checked

SHAPE = Shape(WIDTHS, 1, "regression", {"text": 8, "visual": 10, "speech": 10}, text_encoder=12)
LENGTHS = {"text": [4, 7, 1, 3], "visual": [6, 0, 2, 3], "speech": [2, 9, 0, 3]}
SMALL = {"width": 8, "heads": 2, "layers": 1, "gru_layers": 1, "hidden": 6, "temporal_heads": 2}
SMALL |= {"summary_text": 4, "summary_speech": 3, "summary_visual": 5}
KEYS = torch.arange(4)


@pytest.mark.real
def test_the_originals_numbers_and_loss(real_data):
    parts = golden_of(real_data, "tfr_net")
    shape = Shape(WIDTHS, 1, "regression", dict.fromkeys(WIDTHS, 6), text_encoder=12)
    network = an_original("tfr_net", parts, shape, **SMALL)
    lengths = {"text": parts["in/0"][:, 1].sum(1).long()}
    lengths |= {"speech": parts["in/3"].sum(1).long(), "visual": parts["in/7"].sum(1).long()}
    complete = {"text": parts["hidden"], "speech": parts["in/1"], "visual": parts["in/5"]}
    masked = complete | {"speech": parts["in/2"], "visual": parts["in/6"]}
    complete, masked = ({name: Rows(values, lengths[name]) for name, values in of.items()} for of in (complete, masked))
    missing = {name: (parts[f"in/{a}"] - parts[f"in/{b}"]).bool() for name, a, b in MASKS}
    missing["text"] = missing["speech"]  # as the file was made
    with torch.no_grad():
        together = network._together(masked, NOTHING)
        torch.testing.assert_close(network._answer(together, masked, NOTHING), parts["out/M"], rtol=0, atol=1e-5)
        losses = network._losses(together, complete, missing, NOTHING)
    assert missing["speech"].any() and missing["visual"].any()
    loss = sum(network.losses[name] * value for name, value in losses.items())
    torch.testing.assert_close(loss[None], parts["out/gen_loss"], rtol=1e-5, atol=1e-5)


MASKS = (("speech", 3, 4), ("visual", 7, 8))


def test_a_sample_is_the_same_alone():
    assert_alone_as_in_a_batch(a_network("tfr_net", SHAPE, **SMALL), random_rows(LENGTHS, longer=2))
    unmasked = a_network("tfr_net", SHAPE, **SMALL, masked=False)
    assert_alone_as_in_a_batch(unmasked, random_rows(LENGTHS, longer=2))
    alone = a_network("tfr_net", Shape({"text": 12}, 2, "single", {"text": 8}, text_encoder=12), **SMALL)
    assert_alone_as_in_a_batch(alone, random_rows({"text": LENGTHS["text"]}))


def test_compat_reads_padding():
    networks = [a_network("tfr_net", SHAPE, **SMALL, compat=compat) for compat in (False, True)]
    lengths = {"text": [7, 7], "visual": [5, 5], "speech": [9, 9]}
    same, other = random_rows(lengths), random_rows(LENGTHS, longer=1)
    with torch.no_grad():
        torch.testing.assert_close(*(network(same, NOTHING).outputs for network in networks))
        apart = networks[0](other, NOTHING).outputs - networks[1](other, NOTHING).outputs
        assert apart.abs().min() > 1e-6
        one = {name: Rows(of.values[:1], of.lengths[:1]) for name, of in same.items()}
        missing = {name: torch.rand(1, of.values.shape[1]) < 0.5 for name, of in one.items()}
        losses = [
            network._losses(network._together(one, NOTHING), one, missing, NOTHING) for network in networks
        ]  # of one sample they are one
        for name, value in losses[0].items():
            torch.testing.assert_close(losses[1][name], value)
            assert value > 1e-4


def test_missing_rows_are_drawn_by_sample_and_update():
    network, keys, place = a_network("tfr_net", SHAPE, missing_visual=0.5, **SMALL), torch.arange(200), torch.arange(30)
    lengths = torch.randint(0, 31, (200,), generator=torch.Generator().manual_seed(1))

    def drawn(name, update, of=keys):
        rng = None if update is None else torch.tensor([1, update])
        return network._missing(name, lengths[of], 30, Draws(rng, of))

    for name, share in (("text", 0.2), ("speech", 0.2), ("visual", 0.5)):
        missing = drawn(name, 2)
        able = (place < lengths[:, None]) if name != "text" else (place > 0) & (place < lengths[:, None] - 1)
        assert not missing[~able].any()
        assert abs(missing[able].float().mean() - share) < 0.03
        assert torch.equal(drawn(name, 2, keys[50:60]), missing[50:60])
        assert not torch.equal(drawn(name, 3), missing) and not drawn(name, None).any()
    both = drawn("text", 2) & drawn("speech", 2)
    assert both.float().mean() < 0.6 * drawn("text", 2).float().mean()  # they are drawn apart


@pytest.mark.parametrize("causal", [True, False])
def test_which_keys_a_row_sees(causal):
    """Of the first sample 2 rows of 4 keys, of the second 3 rows of 1; both are padded."""
    encoder, generator = Encoder(LayerOptions(8, 2, causal=causal, positions=True), 1), torch.Generator().manual_seed(3)
    values = [torch.randn(2, most, 8, generator=generator).requires_grad_() for most in (3, 5)]
    rows, keys = (PackedRows.of(Rows(one, torch.tensor(of))) for one, of in zip(values, ([2, 3], [4, 1]), strict=True))
    found = encoder(rows, NOTHING, keys).padded(3)
    for sample, row, shown in (
        (0, 0, [1, 1, 1, 0, 0]),
        (0, 1, [1, 1, 1, 1, 0]),
        *((1, row, [1] + 4 * [0]) for row in range(3)),
    ):
        (gradient,) = torch.autograd.grad(found[sample, row, 1], values[1], retain_graph=True)
        shown = shown if causal or sample else [1, 1, 1, 1, 0]
        assert gradient[sample].any(1).int().tolist() == shown and not gradient[1 - sample].any()
    assert not found[0, 2].any()
    itself = encoder(rows, NOTHING).padded(3)
    (gradient,) = torch.autograd.grad(itself[1, 1, 1], values[0])
    assert gradient[1].any(1).int().tolist() == [1, 1, 0 if causal else 1]


def test_channels_attend_to_samples_before():
    """Against torch's attention, of one head for each half; alone, a sample is as in a batch of one."""
    encoder = SampleEncoder(LayerOptions(6, 2), 1)
    values = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, alone = encoder(values, NOTHING, True), encoder(values, NOTHING, False)
        layer, hidden = encoder.layers[0], 6**0.5 * values
        q, k, v = (
            one.unflatten(2, (2, 3)).permute(1, 2, 0, 3) for one in layer.qkv(layer.norms[0](hidden)).chunk(3, 2)
        )
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        hidden = hidden + layer.attended(context.permute(2, 0, 1, 3).flatten(2))
        wanted = hidden + layer.outer(layer.inner(layer.norms[1](hidden)).relu())
        torch.testing.assert_close(found, encoder.norm(wanted))
        torch.testing.assert_close(alone[2:3], encoder(values[2:3], NOTHING, True))
        assert (alone - found)[1:].abs().amin((1, 2)).max() > 0 and torch.allclose(alone[0], found[0], atol=1e-6)


def test_rows_that_are_padded_again():
    values, lengths = torch.arange(30.0).view(3, 5, 2) + 1, torch.tensor([2, 0, 3])
    rows = Rows(values, lengths).with_values(values)
    packed = PackedRows.of(rows)
    assert torch.equal(packed.padded(5), rows.values) and packed.places().tolist() == [0, 1, 0, 1, 2]
    whole = PackedRows.of(Rows(values, torch.tensor([5, 5, 5])))
    assert torch.equal(whole.padded(5), values) and whole.places().tolist() == 3 * [0, 1, 2, 3, 4]


def test_learning_reads_what_is_not_missing():
    """Answers depend on rows that are shown alone, losses on those that are missing."""
    network, rng = (
        a_network("tfr_net", SHAPE, **{**SMALL, **NO_DROPOUT}, missing_speech=0.5).train(),
        torch.tensor([1, 2]),
    )
    rows = random_rows(LENGTHS)
    rows[COMPLETE_TEXT] = rows["text"]
    answers = network(rows, Draws(rng, KEYS), samples_lesson(4, 2))
    missing = network._missing("speech", rows["speech"].lengths, 9, Draws(rng, KEYS))
    assert 2 < int(missing.sum()) < 12
    rows["speech"] = rows["speech"].with_values(rows["speech"].values + 3.0 * missing[..., None])
    again = network(rows, Draws(rng, KEYS), samples_lesson(4, 2))
    torch.testing.assert_close(again.outputs, answers.outputs)
    changed = {name for name, loss in answers.losses.items() if not torch.allclose(again.losses[name], loss)}
    assert changed == {"speech_reconstruction", "speech_similarity"}
    first = network(rows, Draws(rng, KEYS), samples_lesson(4, 1))
    torch.testing.assert_close(first.outputs, answers.outputs)
    assert set(first.losses) == set(network.losses) and not any(first.losses.values())
    assert network.losses["text_similarity"] == 25.0 and network.losses["speech_reconstruction"] == 2.0


NO_DROPOUT = dict.fromkeys(("text_dropout", "attention_dropout", "attention_dropout_speech", "embedding_dropout"), 0.0)
NO_DROPOUT |= dict.fromkeys(("inner_dropout", "residual_dropout", "fusion_dropout"), 0.0)


@pytest.mark.parametrize(("samples", "compat"), [(1, False), (4, False), (4, True)])
def test_gradients_reach_every_parameter(samples, compat):
    options = SMALL | {"attention_dropout_visual": 0.1, "head_dropout": 0.1, "compat": compat}
    network = a_network("tfr_net", SHAPE, **options).train()
    rows = {name: Rows(one.values[:samples], one.lengths[:samples]) for name, one in random_rows(LENGTHS).items()}
    rows[COMPLETE_TEXT] = rows["text"]
    answers = network(rows, Draws(torch.tensor([1, 2]), KEYS[:samples]), samples_lesson(samples, 2))
    (answers.outputs.sum() + sum(answers.losses.values())).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert samples == 1 or weight.grad.any(), name


def test_dropout_does_not_depend_on_the_batch():
    network, rng = a_network("tfr_net", SHAPE, **SMALL, attention_dropout_visual=0.1).train(), torch.tensor([1, 2])
    network.norm.eval()
    rows = random_rows(LENGTHS)
    together = network(rows, Draws(rng, KEYS)).outputs
    order = [3, 0, 2]
    some = {name: Rows(one.values[order, : max(one.lengths[order])], one.lengths[order]) for name, one in rows.items()}
    torch.testing.assert_close(network(some, Draws(rng, KEYS[order])).outputs, together[order])


def test_word_pieces_that_are_missing_are_unknown(tmp_path, monkeypatch):
    corpus, bert = spoken_corpus(tmp_path / "corpus"), spoken_bert(tmp_path / "bert")
    model = spoken_model(corpus, {"init": str(bert), "network": {"kind": "tfr_net", "missing_text": 0.6, **SMALL}})
    batch, seen = corpus.split("train").pack(np.arange(9)), []
    embeddings = model.text_encoder.embeddings.forward
    monkeypatch.setattr(
        model.text_encoder.embeddings, "forward", lambda view, rng: seen.append(view) or embeddings(view, rng)
    )
    lesson = samples_lesson(9, 2)
    model.answer(View(batch, reads={"emotion": Read("", torch.arange(9))}), rng=torch.tensor([1, 2]), lesson=lesson)
    shown, complete = seen
    changed = shown.token_ids != batch.token_ids
    assert set(shown.token_ids[changed].tolist()) == {100} and 4 < int(changed.sum()) < 0.8 * len(changed)
    assert not changed[batch.text_offsets[:-1].long()].any() and not changed[batch.text_offsets[1:].long() - 1].any()
    assert complete.token_ids is None and complete.draw == shown.draw + 1
    seen.clear()
    model.eval()(batch)
    assert len(seen) == 1 and seen[0].token_ids is None


def test_what_is_refused():
    with pytest.raises(MemofastError, match="width 30 is no multiple of heads 4"):
        checked({"kind": "tfr_net", "heads": 4}, "recipe", TfrNetOptions)
    with pytest.raises(MemofastError, match="kernel_speech 4 is even"):
        checked({"kind": "tfr_net", "kernel_speech": 4}, "recipe", TfrNetOptions)
    with pytest.raises(MemofastError, match=r"temporal_heads 3 do not divide .*8, 10, 10"):
        a_network("tfr_net", SHAPE, **SMALL | {"temporal_heads": 3}, compat=True)
