"""What fusions compute without compat, beside formulas written out: attention within a sample, products, gates."""

import torch
import torch.nn.functional as F
from small_fusions import EQUAL, NOTHING, WIDTHS, a_fusion, fused_by, vectors_of
from torch import nn

from memofast.model.draws import Draws
from memofast.model.fusion.attention import Attention
from memofast.model.fusion.gates import gated_shift, shifted
from memofast.model.fusion.outer_product import LowRankLayer


def torchs(attention: Attention, source: int) -> nn.MultiheadAttention:
    """PyTorch's attention with the weights of ours."""
    width = attention.query.weight.shape[0]
    other = nn.MultiheadAttention(width, attention.heads, kdim=source, vdim=source, batch_first=True)
    parts = (attention.query, attention.key, attention.value)
    state = {"in_proj_bias": torch.cat([one.bias for one in parts])}
    if source == width:
        state["in_proj_weight"] = torch.cat([one.weight for one in parts])
    else:
        state |= {f"{name}_proj_weight": one.weight for name, one in zip("qkv", parts, strict=True)}
    state |= {f"out_proj.{name}": values for name, values in attention.output.state_dict().items()}
    other.load_state_dict(state)
    return other


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_attention_is_pytorchs():
    torch.manual_seed(3)
    for source in (8, 5):
        attention = Attention(8, source, 4)
        for layer in (attention.query, attention.key, attention.value, attention.output):
            nn.init.normal_(layer.bias)
        asking, read = torch.randn(3, 2, 8), torch.randn(3, 6, source)
        close(attention(asking, read, NOTHING), torchs(attention, source)(asking, read, read)[0])


def test_probabilities_are_dropped_by_sample():
    torch.manual_seed(3)
    asking, values = torch.randn(4, 2, 8), torch.randn(4, 3, 8)
    attention, keys = Attention(8, 8, 2, dropout=0.5), torch.arange(4)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(8)), attention.output.weight.copy_(torch.eye(8))
    rng = torch.tensor([7, 1])
    found = attention(asking, values, Draws(rng, keys))
    mask = Draws(rng, keys).mask((4, 2 * 2 * 3), 0.5).view(4, 2, 2, 3)
    q, k = (one.unflatten(2, (2, 4)).transpose(1, 2) for one in (attention.query(asking), attention.key(values)))
    weights = (q @ k.transpose(2, 3) / 2).softmax(-1) * mask
    close(found, (weights @ values.unflatten(2, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2))


def test_self_attention_is_over_the_modalities_of_a_sample():
    fusion, vectors = a_fusion("self_attention", width=7, token_width=8, heads=2), vectors_of()
    own = fusion.fusion
    tokens = torch.stack([own.tokens.maps[name](one) for name, one in vectors.items()], 1)
    attended = own.attending.norm(tokens + torchs(own.attending.attention, 8)(tokens, tokens, tokens)[0])
    close(fused_by(fusion, vectors), own.join(attended.flatten(1)))


def test_cross_attention_is_to_the_other_modalities():
    fusion, vectors = a_fusion("cross_attention", width=7, token_width=8, heads=2), vectors_of()
    tokens, found = {name: fusion.tokens.maps[name](one) for name, one in vectors.items()}, []
    for name, token in tokens.items():
        others = torch.stack([tokens[other] for other in tokens if other != name], 1)
        read = torchs(fusion.attention[name], 8)(token[:, None], others, others)[0][:, 0]
        found.append(fusion.norms[name](token + read))
    close(fused_by(fusion, vectors), fusion.join(torch.cat(found, 1)))


def test_products_keep_those_of_fewer_modalities():
    vectors = vectors_of()
    ones = [F.pad(one, (1, 0), value=1.0) for one in vectors.values()]
    product = torch.einsum("bi,bj,bk->bijk", *ones)
    tensor = a_fusion("tensor", width=7)
    close(fused_by(tensor, vectors), F.linear(product.flatten(1), tensor.layer.weight, tensor.layer.bias))
    low = a_fusion("low_rank", width=7, rank=3)
    factors = [low.layer.factors[name] for name in vectors]
    weight = torch.einsum("r,rio,rjo,rko->ijko", low.layer.weights[0], *factors)
    close(fused_by(low, vectors), torch.einsum("bijk,ijko->bo", product, weight) + low.layer.bias)


def test_factors_leave_out_what_does_not_take_part():
    layer, vectors = LowRankLayer({"text": 6, "speech": 4}, 2, 3), vectors_of({"text": 6, "speech": 4}, 2)
    there = {"text": torch.tensor([[True], [False]]), "speech": torch.tensor([[True], [True]])}
    alone = LowRankLayer({"speech": 4}, 2, 3)
    alone.load_state_dict({name: values for name, values in layer.state_dict().items() if "text" not in name})
    found = layer(vectors, there)
    close(found[:1], layer(vectors)[:1])
    close(found[1:], alone({"speech": vectors["speech"]})[1:])


def test_the_mean_is_of_maps_where_widths_differ():
    for widths in (EQUAL, WIDTHS):
        fusion, vectors = a_fusion("mean", widths, width=7), vectors_of(widths)
        maps = fusion.common.maps
        assert len(maps) == (0 if widths is EQUAL else 3)
        mean = sum((maps[name](one) if maps else one) for name, one in vectors.items()) / 3
        close(fused_by(fusion, vectors), fusion.layers.layers[0](mean))


def test_shifts_are_no_longer_than_a_share():
    x, shift = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 20.0]])
    close(shifted(x, shift, 0.4), torch.tensor([[3.0, 6.0]]))  # 2 is .4 of 5
    close(shifted(x, shift / 100, 0.4), torch.tensor([[3.0, 4.2]]))
    nothing = torch.zeros(1, 2, requires_grad=True)
    close(shifted(x, nothing, 0.4), x)
    shifted(x, nothing, 0.4).sum().backward()
    assert nothing.grad.isfinite().all()


def test_gates():
    vectors = vectors_of(EQUAL)
    fusion = a_fusion("adaptation_gate", EQUAL, main="visual", beta=0.5)
    x = vectors["visual"]
    shift = 0
    for name in ("text", "speech"):
        gate = F.relu(fusion.gates[name](torch.cat((vectors[name], x), 1)))
        shift = shift + gate * fusion.shifts[name](vectors[name])
    own = gated_shift(fusion.gates["speech"], fusion.shifts["speech"], vectors["speech"], x)
    close(own, gate * fusion.shifts["speech"](vectors["speech"]))
    close(fused_by(fusion, vectors), fusion.norm(shifted(x, shift, 0.5)))
    fusion = a_fusion("modality_shifting", EQUAL, heads=2, beta=0.5)
    tokens = torch.stack((vectors["visual"], vectors["speech"]), 1)
    attended = torchs(fusion.attending.attention, 6)(tokens, tokens, tokens)[0]
    said = fusion.attending.norm(tokens + attended).flatten(1)
    shift = gated_shift(fusion.gate, fusion.shift, said, vectors["text"])
    close(fused_by(fusion, vectors), fusion.norm(shifted(vectors["text"], shift, 0.5)))


def test_concatenation_may_have_no_layers():
    fusion, vectors = a_fusion("concat", depth=0), vectors_of()
    assert torch.equal(fused_by(fusion, vectors), torch.cat(list(vectors.values()), 1)) and fusion.width == 18


def test_a_learnt_scalar_stands_for_the_constant_with_compat():
    fusion, vectors = a_fusion("tensor", {"text": 2, "visual": 3}, compat=True), vectors_of({"text": 2, "visual": 3}, 2)
    with torch.no_grad():
        fusion.constant.fill_(0.5)
    half = torch.tensor([0.5])
    present = torch.tensor([[True, True], [True, False]])
    found = fusion(vectors, present, NOTHING).vector.view(2, 3, 4)
    text, visual = (torch.cat((vectors[name], half.expand(2, 1)), 1) for name in ("text", "visual"))
    close(found[0], text[0][:, None] * visual[0])
    close(found[1], text[1][:, None] * half.expand(4))


def test_factors_begin_near_one():
    fusion = a_fusion("low_rank", {"text": 200, "visual": 3}, rank=5, width=40)
    for factors in fusion.layer.factors.values():
        assert torch.equal(factors[:, 0], torch.ones(5, 40))
        assert abs(float(factors[:, 1:].detach().std()) * factors.shape[1] ** 0.5 - 1) < 0.15
    original = a_fusion("low_rank", {"text": 200}, rank=5, width=40, compat=True).layer.factors["text"]
    assert abs(float(original.detach().std()) * 200**0.5 - 1) < 0.05 and original[:, 0].std() > 0


def test_what_the_others_say_is_dropped_too():
    fusion, vectors, rng = (
        a_fusion("modality_shifting", EQUAL, heads=2, beta=0.5),
        vectors_of(EQUAL),
        torch.tensor([3, 1]),
    )
    again = Draws(rng, torch.arange(5))
    tokens = torch.stack((vectors["visual"], vectors["speech"]), 1)
    said = again.dropped(fusion.attending(tokens, again).flatten(1), 0.2)
    shift = gated_shift(fusion.gate, fusion.shift, said, vectors["text"])
    expected = again.dropped(fusion.norm(shifted(vectors["text"], shift, 0.5)), 0.2)
    present = torch.ones(5, 3, dtype=torch.bool)
    close(fusion(vectors, present, Draws(rng, torch.arange(5))).vector, expected)


def test_what_tokens_read_is_dropped_too():
    rng, keys = torch.tensor([3, 1]), torch.arange(5)
    fusion, vectors = a_fusion("cross_attention", width=7, token_width=8, heads=2), vectors_of()
    again, tokens, found = Draws(rng, keys), fusion.tokens(vectors), []
    for name, token in tokens.items():
        others = torch.stack([tokens[other] for other in tokens if other != name], 1)
        read = fusion.attention[name](token[:, None], others, again)[:, 0]
        found.append(fusion.norms[name](token + again.dropped(read, 0.1)))
    present = torch.ones(5, 3, dtype=torch.bool)
    close(fusion(vectors, present, Draws(rng, keys)).vector, fusion.join(torch.cat(found, 1)))
    fusion, again = a_fusion("self_attention", width=7, token_width=8, heads=2), Draws(rng, keys)
    own = fusion.fusion
    tokens = torch.stack(list(own.tokens(vectors).values()), 1)
    read = own.attending.attention(tokens, tokens, again).flatten(1)
    attended = own.attending.norm(tokens + again.dropped(read, 0.1).view(tokens.shape))
    close(fusion(vectors, present, Draws(rng, keys)).vector, own.join(attended.flatten(1)))


def test_layers_drop_between_them():
    fusion, vectors, rng = a_fusion("concat", depth=2, dropout=0.5), vectors_of(), torch.tensor([3, 1])
    first, second = fusion.layers.layers
    again = Draws(rng, torch.arange(5))
    expected = second(F.gelu(again.dropped(first(torch.cat(list(vectors.values()), 1)), 0.5)))
    close(fusion(vectors, torch.ones(5, 3, dtype=torch.bool), Draws(rng, torch.arange(5))).vector, expected)
