import pytest
import torch
from embed_cases import (
    ODD,
    ONE_LONG,
    assert_equal,
    cast,
    every_backend,
    move,
    offsets_of,
    operands,
    run,
)
from error_rule import assert_within_rule

from memofast.ops import embed, embed_reference, library


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table", ["fp32", "compute"])
@pytest.mark.parametrize(("p", "sources"), [(0.0, True), (0.1, True), (0.1, False)])
@pytest.mark.parametrize("lengths", [ODD, ONE_LONG], ids=["odd", "one"])
def test_matches_reference(backend, dtype, table, p, sources, lengths, poisoned_memory):
    given = operands(
        lengths, 40 if lengths is ODD else 136, dtype, torch.float32 if table == "fp32" else dtype, sources, spare=3
    )
    got = run(embed, given, p=p, backend=backend)
    plain = run(embed_reference, cast(given, dtype), p=p)
    exact = run(embed_reference, cast(given, torch.float64), p=p)
    assert got["out"].dtype == dtype and got["text.word"].dtype == given["text"].word.dtype
    assert_within_rule(got, plain, exact, of_sums=True)
    assert not got["out"][-9:].any() and not got["visual.projected"][-3:].any()


@every_backend
@pytest.mark.parametrize("width", [8, 20, 128, 768])
def test_widths(backend, width, poisoned_memory):
    given = operands([(5, 3, 0), (2, 4, 6)], width)
    got = run(embed, given, p=0.1, backend=backend)
    exact = run(embed_reference, cast(given, torch.float64), p=0.1)
    assert_within_rule(got, run(embed_reference, given, p=0.1), exact, of_sums=True)


@every_backend
@pytest.mark.parametrize("absent", [("visual",), ("speech",), ("visual", "speech")])
def test_absent_modality_equals_one_without_rows(backend, absent, poisoned_memory):
    lengths = [(7, 0 if "visual" in absent else 9, 0 if "speech" in absent else 4), (3, 0, 0)]
    given = operands(lengths)
    present = run(embed, given, p=0.2, backend=backend)
    got = run(embed, given | dict.fromkeys(absent), p=0.2, backend=backend)
    assert_equal(got, present)
    for name in absent:
        assert not present[f"{name}.gamma"].any() and not present[f"{name}.mask"].any()


@every_backend
@pytest.mark.parametrize("lengths", [[], [(0, 0, 0)], [(1, 0, 0)]])
def test_empty_batches(backend, lengths, poisoned_memory):
    given = operands(lengths, spare=2)
    got = run(embed, given, p=0.1, backend=backend)
    assert got["out"].shape == (sum(map(sum, lengths)) + 6, 40)
    exact = run(embed_reference, cast(given, torch.float64), p=0.1)
    assert_within_rule(got, run(embed_reference, given, p=0.1), exact, of_sums=True)
    assert embed(**operands([]), backend=backend).shape == (0, 40)


@every_backend
def test_packed_order_and_formulas(backend):
    given = operands([(2, 1, 2), (1, 2, 0)], sources=False)
    text, visual, speech, types = (given[name] for name in ("text", "visual", "speech", "types"))
    out = embed(**given, backend=backend)

    def norm(x, gamma, beta):
        return (x - x.mean()) / (x.var(correction=0) + 1e-12).sqrt() * gamma + beta

    def word(row, position):
        total = text.word[text.token_ids[row]] + text.position[position] + types[0]
        return norm(total, text.gamma, text.beta)

    def feature(own, kind, row, position):
        inner = norm(own.projected[row], own.feature_gamma, own.feature_beta)
        return norm(inner + own.position[position] + types[kind], own.gamma, own.beta)

    expected = [word(0, 0), word(1, 1), feature(visual, 1, 0, 0), feature(speech, 2, 0, 0), feature(speech, 2, 1, 1)]
    expected += [word(2, 0), feature(visual, 1, 1, 0), feature(visual, 1, 2, 1)]
    torch.testing.assert_close(out, torch.stack(expected))


@every_backend
def test_source_reads_other_rows_and_the_mask(backend):
    given = operands([(1, 4, 0)], width=16)
    source = torch.tensor([1, 1, -1, 1], dtype=torch.int32)
    visual = given["visual"]._replace(source=source)
    copied = visual._replace(
        projected=torch.stack([visual.projected[1], visual.projected[1], visual.mask, visual.projected[1]]), source=None
    )
    assert torch.equal(
        embed(**given | {"visual": visual}, backend=backend), embed(**given | {"visual": copied}, backend=backend)
    )
    got, each = (run(embed, given | {"visual": own}, backend=backend) for own in (visual, copied))
    rows = each["visual.projected"]
    torch.testing.assert_close(got["visual.projected"][1], rows[[0, 1, 3]].sum(0))
    assert not got["visual.projected"][[0, 2, 3]].any()
    torch.testing.assert_close(got["visual.mask"], rows[2])


@every_backend
def test_sample_does_not_depend_on_its_batch(backend):
    batch, alone = operands(ODD), operands(ODD)
    full = embed(**batch, p=0.1, backend=backend)
    for b, (t, v, s) in enumerate(ODD):
        t0, v0, s0 = (int(batch[name].offsets[b]) for name in ("text", "visual", "speech"))

        def only(own, first, count):
            source = own.source[first : first + count]
            source = torch.where(source >= 0, source - first, source).to(torch.int32)
            return own._replace(
                projected=own.projected[first : first + count], source=source, offsets=offsets_of([count])
            )

        alone |= {
            "text": batch["text"]._replace(token_ids=batch["text"].token_ids[t0 : t0 + t], offsets=offsets_of([t])),
            "visual": only(batch["visual"], v0, v),
            "speech": only(batch["speech"], s0, s),
            "offsets": offsets_of([t + v + s]),
            "sample_keys": batch["sample_keys"][b : b + 1],
        }
        first = int(batch["offsets"][b])
        assert torch.equal(embed(**alone, p=0.1, backend=backend), full[first : first + t + v + s])


def test_gradcheck_of_reference():
    given = cast(operands([(2, 3, 1), (1, 0, 2)], width=8), torch.float64)
    given["text"] = given["text"]._replace(token_ids=given["text"].token_ids % 4, word=given["text"].word[:4])
    given = move(given, lambda t: t[:4].clone() if t.shape == (170, 8) else t)
    floats = []

    def collect(tensor):
        if tensor.is_floating_point():
            floats.append(tensor.requires_grad_())
        return tensor

    move(given, collect)

    def call(*values):
        values = iter(values)
        return embed_reference(**move(given, lambda t: next(values) if t.is_floating_point() else t), p=0.3)

    assert torch.autograd.gradcheck(call, floats, fast_mode=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sources", [True, False])
def test_gpu_matches_reference(dtype, sources):
    given = operands(ODD, 768, dtype, sources=sources, spare=3, device="cuda")
    got = run(embed, given, p=0.1, backend="cuda")
    plain = run(embed_reference, cast(given, dtype), p=0.1)
    assert_within_rule(got, plain, run(embed_reference, cast(given, torch.float64), p=0.1), of_sums=True)
    assert_equal(got, run(embed, given, p=0.1, backend="cuda"))


@pytest.mark.gpu
def test_gpu_waits_only_to_debug(monkeypatch):
    given = operands([(3, 4, 2), (2, 3, 1)], device="cuda")
    given["rng"].add_(0)  # the device is awake before waiting becomes an error
    torch.cuda.set_sync_debug_mode("error")
    try:
        leaf = given["types"].requires_grad_()
        grad = torch.ones(15, 40, device="cuda")
        torch.autograd.grad(embed(**given, p=0.1, backend="cuda"), leaf, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    monkeypatch.setattr(library, "_debugging", True)
    text = given["text"]._replace(token_ids=given["text"].token_ids + 60)
    with pytest.raises(ValueError, match="token_ids must lie in"):
        embed(**given | {"text": text}, p=0.1, backend="cuda")
