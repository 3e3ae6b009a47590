"""Sinusoid positions, a projection block and shared types: packed as padded, trained, saved, exported."""

import pytest
import torch
from packed_batches import random_batch, select, small_config
from padded_reference import PaddedReference
from padded_samples import batch as samples
from padded_samples import model as emotion_model
from padded_samples import padded_inputs

from memofast import ops
from memofast.data import View
from memofast.errors import MemofastError
from memofast.model import MemoBertConfig, MemoBertForPreTraining, MemoBertModel
from memofast.model.memobert.padded import PaddedEmotionModel
from memofast.model.memobert.section import MemoBertSection
from memofast.model.memobert.sizes import _parameters, configuration
from memofast.objectives import Learner
from memofast.ops.philox import hidden_keep_mask
from memofast.sections import checked
from memofast.train.optimisation import adamw
from memofast.train.recipe import Train

RNG = torch.tensor([11, 3])
OPTIONS = {"position_encoding": "sinusoid", "projection_block": True, "shared_types": True}
EACH = [{name: value} for name, value in OPTIONS.items()] + [OPTIONS]
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


def build(kind=MemoBertModel, **overrides):
    torch.manual_seed(0)
    model = kind(small_config(**overrides))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def masked(batch):
    rows = {"visual": (batch.visual_offsets, batch.visual), "speech": (batch.speech_offsets, batch.speech)}
    sources = {
        name: ops.span_mask(
            offsets, batch.sample_keys, RNG, ops.SpanPolicy(), rows=values.shape[0], site=len(name)
        ).source
        for name, (offsets, values) in rows.items()
    }
    return View(batch, sources=sources)


@pytest.mark.parametrize("options", EACH, ids=lambda options: "+".join(options))
def test_packed_is_padded_with_dropout_and_in_gradients(options):
    model = build(**options, **DROPOUT).train()
    view = masked(random_batch(model.config))
    weight = torch.randn(view.batch.rows, model.config.hidden_size)
    used = {n: p for n, p in model.named_parameters() if not n.startswith("pooler")}
    reference = PaddedReference(model, view.batch, view.sources, RNG)
    results = []
    for hidden in (model(view, rng=RNG).hidden, reference()):
        results.append((hidden, torch.autograd.grad((hidden * weight).sum(), list(used.values()))))
    (ours, our_grads), (theirs, their_grads) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for name, a, b in zip(used, our_grads, their_grads, strict=True):
        close = {"rtol": 1e-3, "atol": 1e-4 * float(b.abs().max()) + 1e-6}
        torch.testing.assert_close(a, b, **close, msg=lambda m, n=name: f"{n}: {m}")


def test_dropout_of_the_block_belongs_to_the_sample_and_the_modality():
    model = build(projection_block=True, hidden_dropout_prob=0.3, speech_width=21).train()
    batch = random_batch(model.config)
    whole, alone = model(batch, rng=RNG).hidden, model(select(batch, [4]), rng=RNG).hidden
    torch.testing.assert_close(alone, whole[batch.offsets[4] : batch.offsets[5]], rtol=1e-5, atol=2e-6)
    places = {getattr(model.embeddings, name).place for name in ("visual", "speech")}
    assert len(places) == 2 and not torch.equal(model(View(batch, draw=1), rng=RNG).hidden, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fixed_table_is_in_no_checkpoint_and_back_after_loading(tmp_path, dtype):
    model = build(MemoBertForPreTraining, **OPTIONS)
    model.save_pretrained(tmp_path)
    again = MemoBertForPreTraining.from_pretrained(tmp_path, dtype=dtype)
    assert {name: getattr(again.config, name) for name in OPTIONS} == OPTIONS
    own = model.memobert.embeddings.speech.position.weight
    assert own.shape == (48, 32) and own[:, 1].equal(torch.arange(48, dtype=torch.float64).cos().float())
    assert again.memobert.embeddings.speech.position.weight.equal(own.to(dtype))
    assert again.memobert.embeddings.visual.block_norm.weight.dtype is torch.float32
    assert not any("visual.position" in name for name in model.state_dict())
    batch = random_batch(model.config)
    tolerance = {"rtol": 0, "atol": 0.0 if dtype is torch.float32 else 0.15}
    torch.testing.assert_close(again.memobert(batch).hidden.float(), model.memobert(batch).hidden, **tolerance)


def test_a_fixed_table_gets_no_state_of_the_optimiser():
    learner = Learner(build(MemoBertForPreTraining, **OPTIONS), {})
    stepped = {id(of) for group in adamw(learner, Train()).param_groups for of in group["params"]}
    embeddings = learner.model.memobert.embeddings
    assert id(embeddings.visual.position.weight) not in stepped and id(embeddings.visual.block.weight) in stepped
    assert embeddings.types.weight.shape == (2, 32) and stepped == {id(of) for of in learner.parameters()}


@pytest.mark.parametrize("options", [{}, *EACH], ids=lambda options: "+".join(options) or "none")
def test_what_is_told_before_memory_is_taken(options):
    model, base = build(**options), build()
    told = _parameters(model.config) - _parameters(base.config)
    found = [sum(of.numel() for of in one.parameters()) for one in (model, base)]
    small = 2 * 3 * 32 + 32  # norms and biases of two blocks, the third type
    assert abs(found[0] - found[1] - told) <= small


@pytest.mark.parametrize("head", ["vqa", "small_vqa", "emocls_inner"])
def test_the_padded_form_answers_alike(head):
    own, packed = emotion_model(head, **OPTIONS), samples([(5, 3, 7), (1, 0, 2), (9, 6, 0)])
    torch.nn.init.normal_(own.memobert.embeddings.types.weight)
    with torch.no_grad():
        expected = own(packed)
        torch.testing.assert_close(PaddedEmotionModel(own)(*padded_inputs(packed)), expected, atol=1e-5, rtol=1e-4)


def test_dropout_stands_before_and_behind_the_inner_layer():
    own = emotion_model("emocls_inner", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0).train()
    keys = torch.tensor([3, -9, 2**40])
    pooled = torch.randn(3, 16)
    rows = torch.arange(4, dtype=torch.int32)
    first, second = (hidden_keep_mask(RNG, site, keys, rows, 3, 16, 0.5) for site in own.emotion.sites)
    inner = torch.nn.functional.gelu(own.emotion.widen[0](pooled * first * 2)) * second * 2
    torch.testing.assert_close(own.emotion(pooled, keys, RNG), own.emotion.classifier(inner))
    assert not torch.equal(first, second)


def test_sizes_of_the_original_by_name():
    section = checked({"size": "medium", "num_hidden_layers": 2, "shared_types": True}, "recipe", MemoBertSection)
    entries = section.entries()
    assert entries == {
        "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 2048,
        "shared_types": True,
    }  # fmt: skip
    with pytest.raises(MemofastError, match="size"):
        checked({"size": "large"}, "recipe", MemoBertSection)
    with pytest.raises(MemofastError, match="position_encoding is learned or sinusoid"):
        configuration({"position_encoding": "rotary"})
    assert MemoBertConfig().position_encoding == "learned"
