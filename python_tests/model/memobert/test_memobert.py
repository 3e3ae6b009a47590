"""The packed model against its padded reference, and what must hold of it on any batch."""

import pytest
import torch
from packed_batches import random_batch, reading, select, small_config
from padded_reference import PaddedReference

from memofast import ops
from memofast.data import View
from memofast.data.view import moved
from memofast.model import MemoBertConfig, MemoBertForPreTraining, MemoBertModel
from memofast.model.memobert.encoder import ReadRows

RNG = torch.tensor([11, 3])
ROWS = {
    "words": ("words", torch.tensor([1, 2])),
    "faces": ("visual_features", torch.tensor([8, 30])),
    "emotions": ("visual_emotions", torch.tensor([9])),
    "speech": ("speech_features", torch.tensor([13])),
}


def build(kind=MemoBertModel, **overrides):
    torch.manual_seed(0)
    model = kind(small_config(**overrides))
    for parameter in model.parameters():  # norms and biases too, so that a forgotten one shows
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def masks(batch):
    visual, speech = (
        ops.span_mask(offsets, batch.sample_keys, RNG, ops.SpanPolicy(), rows=rows.shape[0], site=s).source
        for s, (offsets, rows) in enumerate(
            ((batch.visual_offsets, batch.visual), (batch.speech_offsets, batch.speech))
        )
    )
    return {"visual": visual, "speech": speech}


@pytest.mark.parametrize("masked", [False, True])
def test_packed_equals_padded(masked):
    model = build()
    batch = random_batch(model.config)
    sources = masks(batch) if masked else {}
    reference = PaddedReference(model, batch, sources)
    torch.testing.assert_close(model(View(batch, sources=sources)).hidden, reference(), rtol=1e-5, atol=2e-6)


def test_packed_equals_padded_with_dropout_and_in_gradients():
    model = build(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1).train()
    batch = random_batch(model.config)
    sources = masks(batch)
    reference = PaddedReference(model, batch, sources, RNG)
    weight = torch.randn(batch.rows, model.config.hidden_size)
    used = {n: p for n, p in model.named_parameters() if not n.startswith("pooler")}
    results = []
    for hidden in (model(View(batch, sources=sources), rng=RNG).hidden, reference()):
        results.append((hidden, torch.autograd.grad((hidden * weight).sum(), list(used.values()))))
    (ours, our_grads), (theirs, their_grads) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-6)
    for name, a, b in zip(used, our_grads, their_grads, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("training", [False, True])
def test_a_sample_does_not_depend_on_its_batch_mates(training):
    model = build(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train(training)
    batch = random_batch(model.config)
    whole = model(batch, rng=RNG)
    for sample in range(batch.samples):
        alone = model(select(batch, [sample]), rng=RNG)
        start, stop = batch.offsets[sample : sample + 2].tolist()
        torch.testing.assert_close(alone.hidden, whole.hidden[start:stop], rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(alone.pooled[0], whole.pooled[sample], rtol=1e-5, atol=2e-6)


def test_order_of_samples_only_orders_the_output():
    model = build()
    batch = random_batch(model.config)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(model(select(batch, order)).pooled, model(batch).pooled[order], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("lengths", [[(5, 0, 0), (2, 0, 0)], [(1, 4, 0)], [(1, 0, 3), (4, 0, 0)]])
def test_absent_modalities(lengths):
    model = build()
    batch = random_batch(model.config, lengths)
    torch.testing.assert_close(model(batch).hidden, PaddedReference(model, batch)(), rtol=1e-5, atol=2e-6)


def test_padding_of_feature_rows_never_counts():
    model = build(MemoBertForPreTraining)
    batch = random_batch(model.config)
    view = reading(batch, ROWS, sources={"visual": masks(batch)["visual"]})
    before = model(view)
    batch.visual[:, model.config.visual_width :] = 7.0
    after = model(view)
    for name, rows in before.items():
        torch.testing.assert_close(rows, after[name], rtol=0, atol=0)
    assert before["faces"].shape == (2, model.config.visual_width)


def test_rows_past_the_last_offset_are_zero_and_have_no_gradient():
    model = build(hidden_dropout_prob=0.1).train()
    batch = random_batch(model.config)
    spare = 5
    batch.speech = torch.cat((batch.speech, torch.randn(spare, batch.speech.shape[1])))
    hidden = model(batch, rng=RNG).hidden
    assert hidden.shape[0] == int(batch.offsets[-1]) + spare
    assert not hidden[-spare:].any()


def test_rows_read_are_those_of_the_whole():
    """The last layer's shortcut, with lists that share rows, that are empty, and that end in a row of no sample."""
    model = build().train()
    batch = random_batch(model.config)
    spare = torch.randn(3, batch.speech.shape[1])
    batch.speech = torch.cat((batch.speech, spare))
    last, beyond = int(batch.offsets[-1]) - 1, batch.rows - 1
    lists = [[0, 5, 6, 21, 60, beyond, beyond], [5, 28, last], [], [6, 6, 27, beyond]]
    for chosen in (lists, lists[:1]):
        rows = [torch.tensor(rows, dtype=torch.int64) for rows in chosen]
        together = torch.cat(rows)
        weight = torch.randn(len(together), model.config.hidden_size) * (together != beyond)[:, None]
        used = {n: p for n, p in model.named_parameters() if not n.startswith("pooler") and "mask" not in n}
        got, expected = model.encode(View(batch), read=ReadRows.of(batch, rows)), model(batch).hidden[together]
        inside = together != beyond
        torch.testing.assert_close(got[inside], expected[inside])
        assert not got[~inside].any()
        gradients = [torch.autograd.grad((hidden * weight).sum(), list(used.values())) for hidden in (got, expected)]
        for name, mine, whole in zip(used, *gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("used", [["words"], ["faces", "emotions"], list(ROWS)])
@pytest.mark.parametrize("text_only", [False, True])
def test_every_parameter_gets_a_finite_gradient(used, text_only):
    model = build(MemoBertForPreTraining, hidden_dropout_prob=0.1).train()
    batch = random_batch(model.config, [(8, 0, 0), (9, 0, 0)] if text_only else None)
    targets = {name: (ROWS[name][0], ROWS[name][1] % batch.rows) for name in used}
    sources = {} if text_only else masks(batch)
    view = reading(batch, targets, sources=sources)
    sum(rows.square().sum() for rows in model(view, rng=RNG).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.memobert.embeddings.word.weight.grad.any()
    assert not model.memobert.pooler.weight.grad.any()


def test_bf16_autocast_stays_close_to_fp32():
    model = build(hidden_dropout_prob=0.1).train()
    batch = random_batch(model.config, dtype=torch.float16)
    view = View(batch, sources=masks(batch))
    exact = model(view, rng=RNG).hidden
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(view, rng=RNG).hidden
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() / exact.norm() < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        model(batch, rng=RNG).hidden.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 4], ids=["cuda", "triton"])  # 32 and 8 wide, which different kernels take
def test_a_gpu_gives_what_the_cpu_gives(dtype, heads):
    sizes = {"num_attention_heads": heads, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build(MemoBertForPreTraining, **sizes).train()
    batch = random_batch(model.config, dtype=torch.float16)
    view = reading(batch, ROWS, sources=masks(batch))
    expected = model(view, rng=RNG)
    (view,) = moved([view], "cuda")
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        ours = model.cuda()(view, rng=RNG.cuda())
    for name, rows in expected.items():
        error = (ours[name].float().cpu() - rows).norm() / rows.norm()
        assert error < (1e-4 if dtype == torch.float32 else 0.05), name
    sum(rows.float().square().sum() for rows in ours.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_parameter_counts_of_the_published_model():
    with torch.device("meta"):
        model = MemoBertForPreTraining(MemoBertConfig())

    def count(part):
        return sum(p.numel() for p in part.parameters())

    d, dv, ds = 768, 342, 768
    base = model.memobert
    speech_type = d  # the third row of the type table belongs to speech
    text = count(base) - count(base.embeddings.visual) - count(base.embeddings.speech) - speech_type
    assert text == 109_482_240  # bert-base-uncased with its pooler
    # The original's mask tables have a second row, which is always zero.
    assert count(base.embeddings.visual) == dv * d + d + 2 * dv - dv + 512 * d + 4 * d
    assert count(base.embeddings.speech) + speech_type == ds * d + d + 2 * ds - ds + 512 * d + d + 4 * d
    assert count(model.heads.visual_features) == d * d + d + 2 * d + dv
    assert count(model.heads.speech_features) == d * d + d + 2 * d + ds
    assert count(model.heads.visual_emotions) == d * d + d + 2 * d + d * 8 + 8
    assert count(model.heads.words) == d * d + d + 2 * d + 30522


def test_refusals():
    model = build(hidden_dropout_prob=0.1)
    batch = random_batch(model.config)
    with pytest.raises(ValueError, match="rng"):
        model.train()(batch)
    model.eval()
    batch.visual = torch.zeros(batch.visual.shape[0], 32)
    with pytest.raises(ValueError, match="visual rows must be 24 wide"):
        model(batch)
    blind = build(visual_width=0)
    with pytest.raises(ValueError, match="visual_width 0"):
        blind(random_batch(model.config))
    with pytest.raises(ValueError, match="hidden_size"):
        MemoBertConfig(hidden_size=30, num_attention_heads=4)
