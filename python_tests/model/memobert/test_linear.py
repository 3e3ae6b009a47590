"""Linear maps of the layers and heads: read where they are plain, called where something replaced, hooked or
parametrised them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, reading, small_config
from peft import LoraConfig, get_peft_model
from torch import nn

from memofast import ops
from memofast.data import View
from memofast.model import MemoBertForPreTraining
from memofast.model.memobert.encoder import ReadRows
from memofast.ops.philox import Place, site

RNG = torch.tensor([11, 3])
MAPS = ("qkv", "attention_output", "intermediate", "output")
TARGETS = {
    "words": ("words", torch.tensor([1, 2, 40])),
    "faces": ("visual_features", torch.tensor([8, 30])),
    "emotions": ("visual_emotions", torch.tensor([9, 20, 21])),
}


def build(p=0.2, train=True):
    """A model whose norms and biases are drawn too, and a batch of it."""
    torch.manual_seed(0)
    model = MemoBertForPreTraining(small_config(hidden_dropout_prob=p, attention_probs_dropout_prob=p / 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.train(train), random_batch(model.config)


def as_before(layer, hidden, batch, read):
    """A layer whose weights are read and whose biases the fused operators add."""
    width, p = hidden.shape[1], layer.attention_dropout
    parts = {"rng": RNG, "sample_keys": batch.sample_keys}
    attention = parts | {"p": p, "site": site(layer.index + 1, Place.ATTENTION), "longest": batch.longest}
    heads, offsets, asked = (layer.heads, width // layer.heads), batch.offsets, hidden
    if read is None:
        x = ops.attention(layer.qkv(hidden).view(-1, 3, *heads), batch.offsets, **attention)
    else:
        asked, offsets = hidden[read.rows], read.offsets
        weights, biases = layer.qkv.weight.split((width, 2 * width)), layer.qkv.bias.split((width, 2 * width))
        q, kv = F.linear(asked, weights[0], biases[0]), F.linear(hidden, weights[1], biases[1])
        x = ops.cross_attention(q.view(-1, *heads), kv.view(-1, 2, *heads), offsets, batch.offsets, **attention)

    def add_norm(x, residual, linear, norm, place):
        options = parts | {"p": layer.hidden_dropout, "eps": norm.eps, "site": site(layer.index + 1, place)}
        x = F.linear(x, linear.weight)
        return ops.dropout_add_norm(x, residual, norm.weight, norm.bias, bias=linear.bias, offsets=offsets, **options)

    y = add_norm(x.view(-1, width), asked, layer.attention_output, layer.attention_norm, Place.ATTENTION_OUTPUT)
    inner = ops.bias_gelu(F.linear(y, layer.intermediate.weight), layer.intermediate.bias)
    return add_norm(inner, y, layer.output, layer.output_norm, Place.FEED_FORWARD_OUTPUT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reading", [False, True])
def test_plain_maps_keep_every_bit(dtype, reading):
    model, batch = build()
    layer, transform = model.memobert.encoder.layers[1], model.heads.words.transform
    rows = torch.tensor([0, 3, 4, 21, 60])
    read = ReadRows.of(batch, [rows]) if reading else None
    hidden = torch.randn(batch.rows, 32).to(dtype).requires_grad_()
    leaves = [hidden, *layer.parameters(), *transform.parameters()]
    results = []
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        for forward in (lambda: layer(hidden, View(batch), RNG, read), lambda: as_before(layer, hidden, batch, read)):
            x = forward()
            dense = transform.dense
            fused = ops.bias_gelu(F.linear(x, dense.weight), dense.bias) if results else None
            head = transform.norm(fused) if results else transform(x)
            weight = torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
            results.append((x, head, *torch.autograd.grad((head * weight).sum(), leaves)))
    assert results[0][0].dtype is dtype and results[0][0].shape[0] == (5 if reading else batch.rows)
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs) and ours.any()


class Adapter(nn.Module):
    """A low-rank term beside a linear map, which it calls and whose weight and bias it shows."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down, self.up = (
            nn.Linear(*sizes, bias=False) for sizes in ((base.in_features, 3), (3, base.out_features))
        )
        nn.init.normal_(self.up.weight, std=0.3)

    weight = property(lambda self: self.base.weight)
    bias = property(lambda self: self.base.bias)

    def forward(self, x, *arguments, **options):
        return self.base(x, *arguments, **options) + self.up(self.down(x))


class Delta(nn.Module):
    """A low-rank term as a parametrisation of the weight."""

    def __init__(self, adapter):
        super().__init__()
        self.down, self.up = adapter.down, adapter.up

    def forward(self, weight):
        return weight + self.up.weight @ self.down.weight


def replace(owner, name, adapter):
    setattr(owner, name, adapter)


def hook(owner, name, adapter):
    adapter.base.register_forward_hook(lambda linear, inputs, output: output + adapter.up(adapter.down(*inputs)))


def patch(owner, name, adapter):
    plain = adapter.base.forward
    adapter.base.forward = lambda x: plain(x) + adapter.up(adapter.down(x))


def parametrise(owner, name, adapter):
    nn.utils.parametrize.register_parametrization(adapter.base, "weight", Delta(adapter))


def owners_of(model, name):
    """The modules that have this linear map, and what it is called there."""
    if name in MAPS:
        return [(layer, name) for layer in model.memobert.encoder.layers]
    return [(getattr(model.heads, name).transform, "dense")]


@pytest.mark.parametrize("install", [replace, hook, patch, parametrise])
@pytest.mark.parametrize("name", [*MAPS, "words", "visual_features", "visual_emotions"])
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_an_adapter_counts_as_if_merged_and_learns(install, name, p):
    """In inner layers, in the last one, of which single rows are read, and in heads."""
    plain, batch = build(p)
    model, merged = copy.deepcopy(plain), copy.deepcopy(plain)
    adapters = []
    for (owner, field), (target, _) in zip(owners_of(model, name), owners_of(merged, name), strict=True):
        adapter = Adapter(getattr(owner, field))
        with torch.no_grad():
            getattr(target, field).weight += adapter.up.weight @ adapter.down.weight
        install(owner, field, adapter)
        adapters.append(adapter)
    got, expected, before = (one(reading(batch, TARGETS), rng=RNG) for one in (model, merged, plain))
    for target in TARGETS:
        torch.testing.assert_close(got[target], expected[target], rtol=1e-5, atol=1e-5)
    changed = [not torch.allclose(got[target], before[target], atol=1e-3) for target in TARGETS]
    assert all(changed) if name in MAPS else sum(changed) == 1
    whole = [one.memobert(batch, rng=RNG).hidden for one in (model, merged)]
    torch.testing.assert_close(*whole, rtol=1e-5, atol=1e-5)

    sum(rows.square().sum() for rows in got.values()).backward()
    sum(rows.square().sum() for rows in expected.values()).backward()
    for adapter, (target, field) in zip(adapters, owners_of(merged, name), strict=True):
        theirs = getattr(target, field)
        chained = {adapter.up: theirs.weight.grad @ adapter.down.weight.T}
        chained[adapter.down] = adapter.up.weight.T @ theirs.weight.grad
        for linear, gradient in chained.items():
            scale = float(gradient.detach().abs().max())
            torch.testing.assert_close(linear.weight.grad, gradient, rtol=1e-4, atol=1e-5 * scale)
        scale = float(theirs.bias.grad.abs().max())
        torch.testing.assert_close(adapter.base.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-5 * scale)


def test_a_hook_sees_the_whole_output():
    model, batch = build(0.0, train=False)
    layer, seen = model.memobert.encoder.layers[0], {}
    for name in MAPS:
        getattr(layer, name).register_forward_hook(
            lambda _, inputs, output, n=name: seen.update({n: (*inputs, output)})
        )
    model.memobert(batch)
    for name in MAPS:
        x, output = seen[name]
        linear = getattr(layer, name)
        torch.testing.assert_close(output, x @ linear.weight.T + linear.bias)
    torch.testing.assert_close(seen["output"][0], F.gelu(seen["intermediate"][1]))


def test_compiles_whole_with_an_adapter():
    model, batch = build()
    for name in MAPS:
        for owner, field in owners_of(model, name):
            replace(owner, field, Adapter(getattr(owner, field)))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got, expected = (one(reading(batch, TARGETS), rng=RNG) for one in (compiled, model))
    for name in TARGETS:
        torch.testing.assert_close(got[name], expected[name])


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}, {"lora_bias": True}], ids=["lora", "dora", "bias"])
def test_peft(variant):
    model, batch = build(0.0)
    before = model(reading(batch, TARGETS), rng=RNG)
    config = LoraConfig(r=3, target_modules=[*MAPS, "dense"], init_lora_weights=False, **variant)
    adapted = get_peft_model(copy.deepcopy(model), config)
    got = adapted(reading(batch, TARGETS), rng=RNG)
    sum(rows.square().sum() for rows in got.values()).backward()
    trained = [
        (name, parameter)
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad and "speech" not in name
    ]
    assert len(trained) >= 2 * (2 * len(MAPS) + 3)
    for name, parameter in trained:
        assert parameter.grad is not None and parameter.grad.any(), name
    expected = adapted.merge_and_unload()(reading(batch, TARGETS), rng=RNG)
    for name in TARGETS:
        assert not torch.allclose(got[name], before[name], atol=1e-3)
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=2e-5)
