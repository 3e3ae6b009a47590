"""Experts and what is private or shared: who is asked, by which losses, and which samples those are of."""

import pytest
import torch
import torch.nn.functional as F
from small_fusions import EQUAL, NOTHING, WIDTHS, a_fusion, all_there, fused_by, vectors_of

from memofast.model.draws import Draws
from memofast.model.fusion.disentangling import Projector
from memofast.model.fusion.routing import Router, RouterOptions, squared_variation

KEYS = torch.arange(5)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("renormalise", [True, False])
def test_only_the_highest_weights_stay(renormalise):
    torch.manual_seed(1)
    router = Router(6, 4, RouterOptions(active=2, renormalise=renormalise))
    values = torch.randn(5, 6)
    weights, probabilities = router(values, NOTHING)
    close(probabilities, router.scores(values).softmax(1))
    assert (weights > 0).sum(1).tolist() == [2] * 5
    kept = probabilities * (weights > 0)
    assert (
        torch.equal(kept.amax(1), probabilities.amax(1)) and (kept >= probabilities.topk(2).values[:, 1:]).sum() == 10
    )
    close(weights, kept / kept.sum(1, keepdim=True) if renormalise else kept)


def test_noise_is_drawn_in_training_and_of_a_width_that_is_learnt():
    torch.manual_seed(1)
    values, rng = torch.randn(5, 6), torch.tensor([4, 2])
    router = Router(6, 3, RouterOptions())
    noise = Draws(rng, KEYS).normal(3)
    expected = (router.scores(values) + noise * F.softplus(router.noise(values))).softmax(1)
    close(router(values, Draws(rng, KEYS))[0], expected)
    close(router(values, NOTHING)[0], router.scores(values).softmax(1))
    quiet = Router(6, 3, RouterOptions(noisy=False))
    close(quiet(values, Draws(rng, KEYS))[0], quiet.scores(values).softmax(1))
    assert quiet.noise is None


def test_balance_is_of_all_that_a_batch_asks_for():
    values = torch.tensor([3.0, 1.0, 0.5, 4.0])
    close(squared_variation(values), values.var() / values.mean() ** 2)
    assert squared_variation(torch.tensor([2.0])) == 0
    router = Router(6, 4, RouterOptions(active=2, balance=0.3))
    assert RouterOptions(balance=0.3).losses() == {"balance": 0.3} and RouterOptions(balance=0).losses() == {}
    probabilities = torch.rand(5, 4).softmax(1)
    close(router.losses(probabilities)["balance"], squared_variation(probabilities.sum(0)))
    assert Router(6, 4, RouterOptions(balance=0)).losses(probabilities) == {}
    unlike, alike = torch.eye(4)[:1].expand(5, 4), torch.full((5, 4), 0.25)
    assert router.losses(unlike)["balance"] > 3.9 and router.losses(alike)["balance"] < 1e-6


def test_experts_are_weighed_in_their_order():
    fusion = a_fusion("experts", width=7, experts=["layers", "zero", "copy", "layers", "constant"], depth=2)
    vectors, own = vectors_of(), fusion.experts
    x = fusion.join(torch.cat(list(vectors.values()), 1))
    weights = own.router.scores(x).softmax(1)
    constant = own.constants[0]
    share = constant.share(x).softmax(1)
    outputs = [
        own.layers[0](x, NOTHING), torch.zeros_like(x), x, own.layers[1](x, NOTHING),
        share[:, :1] * x + share[:, 1:] * constant.constant,
    ]  # fmt: skip
    close(fused_by(fusion, vectors), sum(weights[:, place, None] * one for place, one in enumerate(outputs)))
    assert len(own.layers[0].layers) == 2 and fusion.losses == {"balance": 0.01}


def test_modalities_have_experts_and_a_joint_one():
    fusion, vectors = a_fusion("modality_experts", width=7), vectors_of()
    joined = torch.cat(list(vectors.values()), 1)
    weights = fusion.router.scores(joined).softmax(1)
    outputs = [fusion.experts[name].layers[0](one) for name, one in vectors.items()] + [fusion.joint.layers[0](joined)]
    close(fused_by(fusion, vectors), sum(weights[:, place, None] * one for place, one in enumerate(outputs)))


def test_fusions_are_experts():
    experts = [{"kind": "mean", "width": 3}, {"width": 5, "depth": 2}]
    fusion, vectors = a_fusion("fusion_experts", width=7, experts=experts), vectors_of()
    weights = fusion.router.scores(torch.cat(list(vectors.values()), 1)).softmax(1)
    outputs = [own(fused_by(one, vectors)) for own, one in zip(fusion.maps, fusion.experts, strict=True)]
    close(fused_by(fusion, vectors), sum(weights[:, place, None] * one for place, one in enumerate(outputs)))
    assert [one.width for one in fusion.experts] == [3, 5]


def test_text_guides():
    fusion = a_fusion("text_guided_experts", width=7, token_width=8, heads=2)
    vectors = vectors_of()
    tokens = {name: fusion.tokens.maps[name](one) for name, one in vectors.items()}
    pairs = [
        fusion.pairs[name](torch.stack((tokens["text"], tokens[name]), 1), NOTHING).flatten(1)
        for name in ("visual", "speech")
    ]
    close(fused_by(fusion, vectors), fusion.experts(fusion.join(torch.cat(pairs, 1)), NOTHING)[0])
    assert list(fusion.pairs) == ["visual", "speech"] and fusion.experts.router.options.active == 2
    other = a_fusion("text_guided_experts", width=7, token_width=8, heads=2, main="speech")
    assert list(other.pairs) == ["text", "visual"]


def test_losses_are_of_modalities_that_a_sample_has():
    fusion = a_fusion("disentangled", EQUAL, width=8, heads=2, private_width=5, shared_width=3)
    vectors, shared = vectors_of(EQUAL), fusion.shared
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
    place = {name: number for number, name in enumerate(EQUAL)}
    filled = {
        name: torch.where(present[:, place[name], None], one, fusion.placeholders[name])
        for name, one in vectors.items()
    }
    alignment, reconstruction = torch.zeros(5), torch.zeros(5)
    for sample in range(5):
        here = {name: one[sample : sample + 1] for name, one in filled.items()}
        for name in EQUAL:
            others = [other for other in EQUAL if other != name]
            seen = [shared.crossing[name](here[other], NOTHING) for other in others]
            both = [bool(present[sample, place[name]] and present[sample, place[other]]) for other in others]
            own = shared.projector(here[name], NOTHING).chunk(2, 1)
            for one, other, counts in zip(own, seen, both, strict=True):
                alignment[sample] += F.smooth_l1_loss(one, other).detach() / 2 * counts
            again = shared.predictors[name](torch.cat(seen, 1), NOTHING)
            reconstruction[sample] += F.smooth_l1_loss(again, here[name]).detach() * any(both)
    losses = fusion(vectors, present, NOTHING).losses
    close(losses["alignment"], alignment)
    close(losses["reconstruction"], reconstruction)
    assert (losses["alignment"] > 0).tolist() == [True, True, False, True, False]
    assert fusion.losses == {"alignment": 0.5, "reconstruction": 0.5}
    one = a_fusion("disentangled", EQUAL, alignment=0, reconstruction=0.2, heads=2)
    assert one.losses.keys() == one(vectors, present, NOTHING).losses.keys() == {"reconstruction"}


def test_losses_teach_what_they_are_of():
    fusion = a_fusion("disentangled", EQUAL, width=8, heads=2)
    vectors = {name: one.requires_grad_() for name, one in vectors_of(EQUAL).items()}
    for name, taught in (
        ("alignment", ("shared.projector",)),
        ("reconstruction", ("shared.crossing", "shared.predic")),
    ):
        fusion.zero_grad()
        fusion(vectors, all_there(), NOTHING).losses[name].sum().backward()
        reached = {one for one, weight in fusion.named_parameters() if weight.grad is not None and weight.grad.any()}
        assert reached and all(one.startswith(taught) for one in reached), name


def test_a_router_of_private_and_shared_does_not_change_the_vectors():
    fusion = a_fusion("disentangled", WIDTHS, width=8, heads=2)
    vectors = {name: one.requires_grad_() for name, one in vectors_of().items()}
    common = fusion.common(vectors)
    seen = []
    for part in (fusion.private, fusion.shared):
        part.router.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    fusion(vectors, all_there(), NOTHING)
    assert len(seen) == 2 and not any(one.requires_grad for one in seen)
    close(seen[0], torch.cat(list(common.values()), 1).detach())


def test_projectors_drop_before_their_layers():
    projector, values, rng = Projector(6, 4, 1, 0.5), torch.randn(5, 6), torch.tensor([3, 1])
    expected = Draws(rng, KEYS).dropped(projector.norm(values + projector.mixing(values)), 0.5)
    close(projector(values, Draws(rng, KEYS)), projector.layers(expected, NOTHING))


def test_with_compat_losses_are_of_what_stands_for_modalities_too():
    fusion = a_fusion("disentangled", dict.fromkeys(WIDTHS, 24), compat=True, private_width=8, shared_width=4)
    vectors, present = vectors_of(dict.fromkeys(WIDTHS, 24)), all_there()
    present[:, 1] = False
    losses = fusion(vectors, present, NOTHING).losses
    vectors["visual"] = fusion.placeholders["visual"].expand(5, -1)
    for name, expected in fusion(vectors, all_there(), NOTHING).losses.items():
        close(losses[name], expected)
