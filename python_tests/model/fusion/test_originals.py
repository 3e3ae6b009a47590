"""With compat fusions give the originals' numbers: outputs, gradients, modalities that are missing, a sample alone."""

import pytest
import torch
import torch.nn.functional as F
from small_fusions import (
    NAMES,
    NOTHING,
    SORTED,
    a_fusion,
    all_there,
    fused_by,
    golden_file,
    golden_of,
    inputs_of,
    state_of,
)

from memofast.model.fusion.disentangling import DisentangledOptions, Private, Shared
from memofast.model.fusion.layers import GeluLayers
from memofast.model.fusion.routing import BALANCE, ExpertOptions, Experts, Router, RouterOptions, squared_variation
from memofast.model.sequence.originals import renamed

pytestmark = pytest.mark.real

PLACEHOLDERS = (r"(placeholders\..+)", r"\1")
LAYERS = (r"fc\.(.+)", r"\1")
LOW_RANK = (
    (r"low_rank_weights\.(.+)", r"layer.factors.\1"),
    (r"output_layer\.weight", "layer.weights"),
    (r"output_layer\.bias", "layer.bias"),
    (r"placeholders\..+", ""),
)
PROJECTOR = (
    (r"named_private_projectors\.(\w+)\.attention\.(.+)", r"projectors.\1.mixing.\2"),
    (r"named_private_projectors\.(.+)", r"projectors.\1"),
    (r"shared_projector\.attention\.(.+)", r"projector.mixing.\1"),
    (r"shared_projector\.(.+)", r"projector.\1"),
    (r"named_cross_projectors\.(\w+)\.attention\.(.+)", r"crossing.\1.mixing.\2"),
    (r"named_cross_projectors\.(.+)", r"crossing.\1"),
    (r"cross_reconstruction_predictor\.(\w+)\.layers\.(.+)", r"predictors.\1.\2"),
    (r"(?:private|shared)_router\.router\.weight", "router.scores.weight"),
    (r"(?:private|shared)_router\.noise\.0\.weight", "router.noise.weight"),
    (r"placeholders\..+", ""),
)
CROSSING = (
    (r"named_attns\.(\w+)\.attention\.(.+)", r"attention.\1.\2"),
    (r"named_attns\.(\w+)\.norm\.(.+)", r"norms.\1.\2"),
)
CASES = {
    "concat_depth1": ("concat", {"width": 6}, "inputs", (LAYERS, PLACEHOLDERS)),
    "mean_depth2": ("mean", {"width": 6, "depth": 2}, "inputs_equal", (LAYERS, PLACEHOLDERS)),
    "self_attention": (
        "self_attention", {"width": 6}, "inputs",
        ((r"pooler\.(.+)", r"join.\1"), (r"(attention\..+)", r"\1"), PLACEHOLDERS),
    ),
    "cross_attention": (
        "cross_attention", {}, "inputs", tuple((theirs, f"crossing.{own}") for theirs, own in CROSSING),
    ),
    "tensor": ("tensor", {}, "inputs", (("augmentation", "constant"),)),
    "low_rank": ("low_rank", {"width": 6, "rank": 3}, "inputs", LOW_RANK),
}  # fmt: skip


def as_original(fusion, state):
    """With an original's weights; what it has no weights for, placeholders, stays."""
    own = fusion.state_dict()
    state = {name: values.view_as(own[name]) for name, values in state.items()}
    assert {name for name in own if name not in state and not name.startswith("placeholders")} == set()
    fusion.load_state_dict(own | state)
    return fusion.double()


def assert_as_golden(fusion, file, case, inputs):
    """Outputs, losses, gradients of both, the modalities that are missing, samples one at a time."""
    parts = golden_of(file, case)
    fused = fusion(inputs, all_there(inputs), NOTHING)
    close(fused.vector, parts["out"])
    loss = fused.vector.new_zeros(())
    if "loss" in parts:
        assert fused.losses.keys() == fusion.losses.keys()
        loss = sum(fusion.losses[name] * one.mean() for name, one in fused.losses.items())
        close(loss, parts["loss"])
    found = torch.autograd.grad((fused.vector * parts["weight"]).sum() + loss, list(inputs.values()))
    for own, letter in zip(found, NAMES, strict=True):
        close(own, parts[f"grad/{letter}"])
    for name, expected in parts.items():
        if name.startswith("subsets/"):
            close(fused_by(fusion, inputs, name.removeprefix("subsets/").replace("+", "")), expected)
    alone = [fused_by(fusion, {name: one[i : i + 1] for name, one in inputs.items()}) for i in range(5)]
    close(torch.cat(alone), parts["out_one_at_a_time"])


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_the_originals_numbers(real_data, case):
    file = golden_file(real_data, "fusion_zoo")
    kind, options, inputs, names = CASES[case]
    inputs = inputs_of(file, inputs)
    fusion = a_fusion(kind, {name: one.shape[1] for name, one in inputs.items()}, compat=True, **options)
    fusion = as_original(fusion, renamed(state_of(golden_of(file, case)), names))
    assert_as_golden(fusion, file, case, inputs)
    other_order = a_fusion(kind, {name: inputs[name].shape[1] for name in SORTED}, compat=True, **options).double()
    other_order.load_state_dict(fusion.state_dict())
    close(fused_by(other_order, {name: inputs[name] for name in SORTED}), fused_by(fusion, inputs))


def test_experts_of_modalities(real_data):
    file = golden_file(real_data, "fusion_zoo")
    inputs = inputs_of(file, "inputs_equal")
    widths = {name: one.shape[1] for name, one in inputs.items()}
    fusion = a_fusion("modality_experts", widths, compat=True, width=6, noisy=False)
    names = (
        (r"router\.0\.(.+)", r"router.scores.\1"),
        *((rf"experts\.{place}\.(.+)", rf"experts.{name}.layers.0.\1") for place, name in enumerate(SORTED)),
        (r"experts\.3\..+", ""),  # which the original does not run
        PLACEHOLDERS,
    )
    fusion = as_original(fusion, renamed(state_of(golden_of(file, "concat_moe")), names))
    assert_as_golden(fusion, file, "concat_moe", inputs)


def test_experts_that_are_fusions(real_data):
    file = golden_file(real_data, "fusion_zoo")
    inputs = inputs_of(file, "inputs")
    widths = {name: one.shape[1] for name, one in inputs.items()}
    experts = [
        {"kind": "concat", "width": 7, "compat": True},
        {"kind": "low_rank", "width": 5, "rank": 2, "compat": True},
    ]
    fusion = a_fusion("fusion_experts", widths, compat=True, width=6, noisy=False, experts=experts)
    state = state_of(golden_of(file, "multi_head_moe"))
    routers = [torch.cat((state[f"router.{name}.bias"][:, None], state[f"router.{name}.weight"]), 1) for name in SORTED]
    own = {"router.scores.weight": torch.cat(routers, 1)}
    names = (
        (r"router\..+", ""),
        (r"experts\.(\d)\.1\.(.+)", r"maps.\1.\2"),
        (r"experts\.0\.0\.fc\.(.+)", r"experts.0.\1"),
        (r"experts\.0\.0\.(.+)", r"experts.0.\1"),
        *((rf"experts\.1\.0\.{theirs}", f"experts.1.{ours}" if ours else "") for theirs, ours in LOW_RANK),
    )
    fusion = as_original(fusion, renamed(state, names) | own)
    assert_as_golden(fusion, file, "multi_head_moe", inputs)
    with torch.no_grad():  # a modality that is missing has no say in who is asked
        for inner in fusion.experts[0].placeholders.values():
            inner.zero_()
        fusion.maps[0].weight.zero_()
        fusion.maps[1].weight.zero_()
        fusion.maps[0].bias.fill_(1.0)
        fusion.maps[1].bias.zero_()
        scores = sum(
            F.linear(inputs[name], state[f"router.{name}.weight"], state[f"router.{name}.bias"])
            for name in ("text", "visual")
        )
        close(fused_by(fusion, inputs, "TV"), scores.softmax(1)[:, :1].expand(5, 6))


def filled(inputs, parts, letters):
    """What the original's parts are given of some modalities."""
    own = {name: parts[f"state/placeholders.{letter}"].expand(5, -1) for letter, name in NAMES.items()}
    own |= {NAMES[letter]: inputs[NAMES[letter]] for letter in letters}
    return {name: own[name] for name in SORTED}


def test_what_is_private_and_what_is_shared(real_data):
    file = golden_file(real_data, "fusion_zoo")
    inputs = inputs_of(file, "inputs_24")
    there = {name: torch.ones(5, 1, dtype=torch.bool) for name in SORTED}
    options = DisentangledOptions(kind="disentangled", compat=True, private_width=10, shared_width=8)
    for case, made in (("private", Private), ("shared", Shared)):
        parts = golden_of(file, case)
        part = as_original(made(SORTED, 24, options).eval(), renamed(state_of(parts), PROJECTOR))

        def output(letters, part=part, case=case, parts=parts):
            given = filled(inputs, parts, letters)
            return (part(given, NOTHING), {}) if case == "private" else part(given, there, NOTHING)

        outputs, losses = output("TAV")
        close(outputs, parts["out"])
        loss = sum((one.mean() for one in losses.values()), torch.zeros(()))
        close(loss.double(), parts.get("loss", torch.zeros(()).double()))
        found = torch.autograd.grad((outputs * parts["weight"]).sum() + loss, list(inputs.values()))
        for own, letter in zip(found, NAMES, strict=True):
            close(own, parts[f"grad/{letter}"])
        for name, expected in parts.items():
            if name.startswith("subsets/"):
                close(output(name.removeprefix("subsets/").replace("+", ""))[0], expected)


def test_disentangled(real_data):
    file = golden_file(real_data, "fusion_zoo")
    inputs, parts = inputs_of(file, "inputs_24"), golden_of(file, "disentangled")
    widths = dict.fromkeys(inputs, 24)
    options = {"private_width": 16, "shared_width": 8, "alignment": 0.25, "reconstruction": 0.25}
    fusion = a_fusion("disentangled", widths, compat=True, **options)
    names = (
        *((rf"private_fusion\.{theirs}", f"private.{own}" if own else "") for theirs, own in PROJECTOR),
        *((rf"shared_fusion\.{theirs}", f"shared.{own}" if own else "") for theirs, own in PROJECTOR),
        *((rf"fusion_layer\.{theirs}", f"join.{own}") for theirs, own in CROSSING),
        PLACEHOLDERS,
    )
    fusion = as_original(fusion, renamed(state_of(parts), names))
    assert_as_golden(fusion, file, "disentangled", inputs)


@pytest.mark.parametrize(("case", "heads", "beta"), [("meld", 3, 0.1), ("iemocap", 4, 0.2)])
def test_modality_shifting(real_data, case, heads, beta):
    parts = golden_of(golden_file(real_data, "telme_asf"), case)
    inputs = {"text": parts["in/text"], "speech": parts["in/first"], "visual": parts["in/second"]}
    inputs = {name: one.requires_grad_() for name, one in inputs.items()}
    fusion = a_fusion("modality_shifting", dict.fromkeys(inputs, 12), compat=True, heads=heads, beta=beta)
    names = (
        (r"(attention\..+)", r"\1"),
        (r"W_hav\.(.+)", r"gate.\1"),
        (r"W_av\.(.+)", r"shift.\1"),
        (r"LayerNorm\.(.+)", r"norm.\1"),
        (r"AV_LayerNorm\.(.+)", r"others_norm.\1"),
        (r"W\..+", ""),
    )
    fusion = as_original(fusion, renamed(state_of(parts), names))

    def answered(given):
        return F.linear(fused_by(fusion, given), parts["state/W.weight"], parts["state/W.bias"])

    together = answered(inputs)
    alone = torch.cat([answered({name: one[i : i + 1] for name, one in inputs.items()}) for i in range(6)])
    for found, named in ((together, "compat"), (alone, "exact")):
        close(found, parts[f"{named}_out"], 1e-5)
        gradients = torch.autograd.grad((found * parts["weight"]).sum(), list(inputs.values()))
        for own, name in zip(gradients, ("text", "first", "second"), strict=True):
            close(own, parts[f"{named}_grad/{name}"], 1e-5)


EXPERTS = {
    "dense_noisy": {"experts": ["layers"] * 4},
    "top1_noisy": {"experts": ["layers"] * 4, "active": 1},
    "top3_noisy": {"experts": ["layers"] * 4, "active": 3},
    "zero_copy_constant": {"experts": ["layers", "copy", "zero", "constant"], "active": 2},
}


@pytest.mark.parametrize("case", EXPERTS)
def test_experts(real_data, case):
    parts = golden_of(golden_file(real_data, "moe"), case)
    options = ExpertOptions.model_construct(  # of one active expert with weight 1 no router learns, it is refused
        **ExpertOptions().model_dump() | EXPERTS[case]
    )
    layers = [GeluLayers(8, parts["out"].shape[1], 1, 0.0) for kind in options.experts if kind == "layers"]
    experts = Experts(8, layers, options)
    names = (
        (r"experts\.3\.constant", "constants.0.constant"),
        (r"experts\.3\.wg\.0\.weight", "constants.0.share.weight"),
        (r"experts\.(\d)\.(.+)", r"layers.\1.layers.0.\2"),
        (r"router\.router\.weight", "router.scores.weight"),
        (r"router\.noise\.0\.weight", "router.noise.weight"),
    )
    state = renamed(state_of(parts), names) | {"router.scores.bias": torch.zeros(4)}
    experts.load_state_dict(state)
    inputs = parts["in/0"].requires_grad_()
    outputs, losses = experts.double()(inputs, NOTHING)
    close(outputs, parts["out"])
    (found,) = torch.autograd.grad((outputs * parts["weight"]).sum(), inputs)
    close(found, next(values for name, values in parts.items() if name.startswith("grad/")))
    assert losses[BALANCE].ndim == 0


def test_noise_and_variation(real_data, monkeypatch):
    file = golden_file(real_data, "moe")
    parts = golden_of(file, "noise_router_training")
    router = Router(8, 4, RouterOptions(), bias=False)
    names = ((r"router\.weight", "scores.weight"), (r"noise\.0\.weight", "noise.weight"))
    router.load_state_dict(renamed(state_of(parts), names))

    class Given:
        active = True

        def normal(self, width):
            return parts["noise"]

    weights, probabilities = router.double()(parts["in"], Given())
    close(weights, parts["out"])
    close(probabilities, parts["out"])
    values = torch.from_numpy(file["cv_squared/in"])
    close(squared_variation(values), torch.tensor(float(file["cv_squared/out"])).double(), 1e-7)
