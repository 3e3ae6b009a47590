"""What holds for every fusion: no sample changes another, what is missing is stood for, random numbers are a sample's
own, and all is learnt."""

from itertools import chain, combinations

import pytest
import torch
from small_fusions import (
    EQUAL,
    KINDS,
    NOTHING,
    ORIGINALS,
    WIDTHS,
    a_fusion,
    all_there,
    fused_by,
    vectors_of,
)

from memofast.errors import MemofastError
from memofast.model.draws import Draws
from memofast.model.fusion.kinds import FUSIONS

SUBSETS = [*chain.from_iterable(combinations(WIDTHS, count) for count in (1, 2, 3))]
EVERY_PRESENCE = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)  # [8, 3]
RNG = torch.tensor([3, 5])


def in_training(kind, widths=WIDTHS, **options):
    return a_fusion(kind, widths, **KINDS[kind] | options).train()


def test_every_kind_is_tried():
    assert KINDS.keys() == FUSIONS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", SUBSETS, ids="-".join)
def test_a_sample_is_the_same_alone(kind, names):
    widths = {name: WIDTHS[name] for name in names}
    needed, main = FUSIONS[kind][1].least, FUSIONS[kind][0].model_fields.get("main")
    if len(names) < needed or (main and main.default not in names):
        with pytest.raises(MemofastError, match="joins at least 2" if len(names) < needed else "text .* is not read"):
            a_fusion(kind, widths, **KINDS[kind])
        return
    fusion, vectors = a_fusion(kind, widths, **KINDS[kind]), vectors_of(widths, 8)
    present = EVERY_PRESENCE[:, : len(names)]
    together = fusion(vectors, present, NOTHING)
    assert together.vector.shape == (8, fusion.width) and together.vector.std(0).min() > 1e-4
    for sample in range(8):
        own = slice(sample, sample + 1)
        alone = fusion({name: one[own] for name, one in vectors.items()}, present[own], NOTHING)
        torch.testing.assert_close(alone.vector, together.vector[own], rtol=0, atol=1e-5)
        for name, loss in alone.losses.items():
            if together.losses[name].ndim:
                torch.testing.assert_close(loss, together.losses[name][own], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ORIGINALS)
def test_with_compat_alone_samples_are_mixed(kind):
    widths = dict.fromkeys(WIDTHS, 24)
    sizes = {"heads": 2} if kind != "disentangled" else {"private_width": 8, "shared_width": 4}
    for compat in (False, True):
        fusion, vectors = a_fusion(kind, widths, compat=compat, **sizes), vectors_of(widths)
        alone = fused_by(fusion, {name: one[:1] for name, one in vectors.items()})
        assert ((fused_by(fusion, vectors)[:1] - alone).abs().max() > 1e-3) == compat


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_says_nothing_and_is_stood_for(kind, compat):
    options = KINDS[kind]
    if compat:
        if "compat" not in FUSIONS[kind][0].model_fields:
            pytest.skip("it has no original")
        options = {**options, "compat": True} | ({"shared_width": 4, "private_width": 8} if "heads" in options else {})
        options = {key: one for key, one in options.items() if key in FUSIONS[kind][0].model_fields}
        if kind == "fusion_experts":
            options["experts"] = [{**one, "compat": True} for one in options["experts"]]
    widths = dict.fromkeys(WIDTHS, 24) if compat else WIDTHS
    fusion, vectors = a_fusion(kind, widths, **options), vectors_of(widths, 8)
    given = [{name: one.clone().requires_grad_() for name, one in vectors.items()} for _ in range(2)]
    with torch.no_grad():
        for place, name in enumerate(widths):
            given[0][name][~EVERY_PRESENCE[:, place]] = float("nan")
    fused = [fusion(one, EVERY_PRESENCE, NOTHING).vector for one in given]
    torch.testing.assert_close(*fused, rtol=0, atol=0)
    fused[0].square().sum().backward()
    for place, name in enumerate(widths):
        gradient = given[0][name].grad
        assert gradient.isfinite().all() and not gradient[~EVERY_PRESENCE[:, place]].any()
        assert gradient[EVERY_PRESENCE[:, place]].any()
    if compat:
        return
    holders = {name: one for name, one in fusion.named_parameters() if "placeholders" in name}
    assert all(one.grad.any() for one in holders.values()) and len(holders) >= 3
    with torch.no_grad():
        for name, one in holders.items():
            if name.endswith("visual"):
                one.add_(1.0)
        changed = (fusion(vectors, EVERY_PRESENCE, NOTHING).vector - fused[1]).abs().amax(1) > 1e-6
    assert torch.equal(changed, ~EVERY_PRESENCE[:, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_are_a_samples_own(kind):
    fusion, vectors = in_training(kind, dropout=0.4) if "dropout" in _fields(kind) else in_training(kind), None
    vectors, keys, generator = vectors_of(samples=8), torch.arange(10, 18), torch.get_rng_state()

    def at(rng, samples=slice(None)):
        return fusion(
            {name: one[samples] for name, one in vectors.items()}, EVERY_PRESENCE[samples], Draws(rng, keys[samples])
        )

    first, other_order = at(RNG).vector, torch.tensor([5, 0, 7, 2, 3, 1, 6, 4])
    torch.testing.assert_close(at(RNG, other_order).vector, first[other_order], rtol=0, atol=1e-5)
    torch.testing.assert_close(at(RNG, slice(6, 7)).vector, first[6:7], rtol=0, atol=1e-5)
    draws = kind not in ("mean", "low_rank")  # the one layer of the one has no dropout between, the other none at all
    for rng in (torch.tensor([3, 6]), None):
        assert bool((at(rng).vector - first).abs().amax(1).min() > 1e-4) == draws
    assert torch.equal(torch.get_rng_state(), generator)


def _fields(kind):
    return FUSIONS[kind][0].model_fields


@pytest.mark.parametrize("widths", [WIDTHS, EQUAL], ids=["unequal", "equal"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind, widths):
    fusion = in_training(kind, widths)
    fused = fusion(vectors_of(widths, 8), EVERY_PRESENCE, Draws(RNG, torch.arange(8)))
    assert fused.losses.keys() == fusion.losses.keys() and all(weight > 0 for weight in fusion.losses.values())
    (fused.vector.square().sum() + sum(one.sum() for one in fused.losses.values())).backward()
    without = {name for name, one in fusion.named_parameters() if one.grad is None or not one.grad.any()}
    assert {name for name in without if not name.endswith("key.bias")} == set()  # to which softmax is blind
    assert all(one.grad.isfinite().all() for one in fusion.parameters() if one.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_near(kind):
    fusion, vectors = a_fusion(kind, **KINDS[kind]), vectors_of(samples=8)
    wanted = fusion(vectors, EVERY_PRESENCE, NOTHING)
    with torch.autocast("cpu", torch.bfloat16):
        found = fusion(vectors, EVERY_PRESENCE, NOTHING)
        half = fusion({name: one.bfloat16() for name, one in vectors.items()}, EVERY_PRESENCE, NOTHING)
    for one in (found, half):
        assert (one.vector.float() - wanted.vector).norm() < 0.03 * wanted.vector.norm()
        assert all((one.losses[name].float() - loss).abs().max() < 0.03 for name, loss in wanted.losses.items())


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_found_by_name(kind):
    fusion, vectors = a_fusion(kind, **KINDS[kind]), vectors_of()
    turned = {name: vectors[name] for name in reversed(vectors)}
    torch.testing.assert_close(
        fusion(turned, all_there(), NOTHING).vector, fused_by(fusion, vectors), rtol=0, atol=0
    )  # fmt: skip


def test_mistakes_are_told():
    fusion, vectors = a_fusion("concat"), vectors_of()
    for present in (all_there(samples=4), all_there()[:, :2], all_there().float()):
        with pytest.raises(ValueError, match=r"present must be \[5, 3\] bool"):
            fusion(vectors, present, NOTHING)
    with pytest.raises(ValueError, match="text, visual, speech needs vectors of visual"):
        fusion({"text": vectors["text"], "speech": vectors["speech"]}, all_there(), NOTHING)
    for kind, options, says in (
        ("self_attention", {"heads": 3}, "3 heads of attention do not divide a width of 128; change one"),
        ("experts", {"active": 5}, "fusion.active 5 is more than its 4 experts; set it to 4 or less"),
        ("experts", {"active": 1}, "active 1 with renormalise gives a weight of 1, by which no router learns"),
        ("experts", {"experts": ["copy"]}, "experts need at least one of layers"),
        ("experts", {"compat": True}, "unknown key fusion.compat"),
        ("adaptation_gate", {"main": "face"}, "fusion.main"),
        ("disentangled", {"compat": True}, "needs vectors of one width, got 6, 8, 4"),
        ("fusion_experts", {"experts": [{"kind": "experts"}]}, "fusion.experts.0 has no kind 'experts'"),
        ("concatt", {}, "fusion has no kind 'concatt'; did you mean concat"),
    ):
        with pytest.raises(MemofastError, match=says):
            a_fusion(kind, **options)
