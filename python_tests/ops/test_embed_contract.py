"""What every operator promises beside its numbers: repeatability, raw ops, compilation, refusals, instruction sets."""

import pytest
import torch
from embed_cases import FAST, ODD, assert_equal, every_backend, flat, operands, run
from torch.utils._python_dispatch import TorchDispatchMode

from memofast.ops import embed
from memofast.ops.embed import _embed, _embed_backward


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeats_bitwise_with_any_number_of_threads(backend, dtype):
    given = operands(ODD * 9, dtype=dtype)  # more samples than one thread's share of a sum
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(embed, given, p=0.1, backend=backend))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_equal(results[0], other)


@every_backend
@pytest.mark.parametrize("speech", [True, False])
def test_opcheck(backend, speech):
    given = operands([(2, 3, 4), (1, 2, 0)], width=16)
    if not speech:
        given |= {"speech": None, "offsets": given["text"].offsets + given["visual"].offsets}
    arguments = flat(given, 0.1, backend, 12)
    torch.library.opcheck(_embed, arguments)
    out, statistics = _embed(*arguments)
    torch.library.opcheck(_embed_backward, (torch.randn_like(out), statistics, *arguments))


@every_backend
def test_compiles_whole(backend):
    given = operands([(2, 3, 4), (1, 2, 0)], width=16)
    compiled = torch.compile(lambda **options: embed(**options), fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, given, p=0.1, backend=backend), run(embed, given, p=0.1, backend=backend))


def test_raw_op_has_no_derivative():
    given = operands([(1, 1, 1)])
    given["types"].requires_grad_()
    with pytest.raises(RuntimeError, match="has no derivative"):
        _embed(*flat(given, 0.0, "reference", 3))


class SeenOperators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.names.append(function.name())
        return function(*arguments, **(keywords or {}))


def test_modes_see_the_raw_ops_and_a_second_derivative_is_refused():
    given = operands([(2, 3, 4), (1, 2, 0)], width=16)
    leaf = given["types"].requires_grad_()
    with SeenOperators() as seen:
        torch.autograd.grad(embed(**given, p=0.1).sum(), leaf)
    assert {"memofast::embed", "memofast::embed_backward"} <= set(seen.names)
    out = embed(**given, p=0.1)
    with pytest.raises(RuntimeError, match="has no derivative"):
        torch.autograd.grad(out.square().sum(), leaf, create_graph=True)


def replaced(name, **fields):
    return lambda given: given | {name: given[name]._replace(**{k: f(given[name]) for k, f in fields.items()})}


@every_backend
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("text", token_ids=lambda t: t.token_ids + 60), "text.token_ids must lie in"),
        (replaced("text", token_ids=lambda t: t.token_ids - 60), "text.token_ids must lie in"),
        (replaced("text", position=lambda t: t.position[:2]), "text.position has 2 rows, but a sample has 3"),
        (replaced("visual", position=lambda v: v.position[:3]), "visual.position has 3 rows, but a sample has 4"),
        (replaced("visual", source=lambda v: v.source * 0 + 99), "visual.source must lie in"),
        (replaced("visual", source=lambda v: v.source * 0 + 5), "visual.source must name rows of the same sample"),
        (replaced("speech", source=lambda s: s.source * 0 - 1, mask=lambda s: None), "speech.source must lie in"),
        (replaced("speech", offsets=lambda s: s.offsets.flip(0)), "speech.offsets must start at 0"),
        (replaced("speech", projected=lambda s: s.projected[:-1]), "speech.source must have shape"),
        (replaced("speech", gamma=lambda s: s.gamma[:-1]), "speech.gamma must have shape"),
        (replaced("text", word=lambda t: t.word.T.contiguous().T), "text.word must be contiguous"),
        (replaced("text", token_ids=lambda t: t.token_ids.long()), "text.token_ids must be torch.int32"),
        (lambda given: given | {"offsets": given["offsets"] * 2}, "offsets must be the sum"),
        (lambda given: given | {"rows": 3}, "rows must be at least"),
        (lambda given: given | {"rng": None}, "needs rng and sample_keys"),
        (lambda given: given | {"p": 1.0}, "dropout probability"),
        (lambda given: given | {"backend": "magic"}, "is not one of"),
    ],
)
def test_refuses_clearly(backend, change, message):
    given = {"backend": backend, "p": 0.1} | operands([(3, 4, 2), (2, 3, 1)])
    with pytest.raises(ValueError, match=message):
        embed(**change(given))
