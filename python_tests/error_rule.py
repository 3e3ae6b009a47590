"""The rule that floating results are held to, and what tests told of errors under it, for the speed report."""

from collections.abc import Mapping, Sequence

from torch import Tensor

FORWARD, GRADIENT = 2, 3  # times the error of plain PyTorch in the same type
told: list[tuple[str, str]] = []  # of the test that runs, as properties of its JUnit XML


def assert_within_rule(
    got: Sequence[Tensor] | Mapping[str, Tensor],
    ordinary: Sequence[Tensor] | Mapping[str, Tensor],
    exact: Sequence[Tensor] | Mapping[str, Tensor],
    *,
    tiny: float = 1e-6,
    of_sums: bool = False,
    doubled: bool = False,
) -> None:
    """Largest errors against fp64 at most twice (gradients: three times) those of plain PyTorch in the same type, the
    flash-attention rule.

    Args: the output first (by name: `out`), then gradients; tiny: allowed on top, where plain PyTorch happens to be
        exact; of_sums: that much of the largest exact value plus one; doubled: allow twice as much.
    """
    named = [dict(x) if isinstance(x, Mapping) else dict(enumerate(x)) for x in (got, ordinary, exact)]
    assert named[0].keys() == named[1].keys() == named[2].keys()
    for name, truth in named[2].items():
        forward = name in (0, "out")
        mine, theirs = named[0][name], named[1][name]
        assert mine.shape == truth.shape, name
        if not truth.numel():
            continue
        error, plain = (float((values.double() - truth).abs().max()) for values in (mine, theirs))
        allowed = (1 + doubled) * (FORWARD if forward else GRADIENT) * plain
        allowed += tiny * (1 + float(truth.abs().max()) if of_sums else 1)
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"
        kind = f"{'forward' if forward else 'gradients'} {str(mine.dtype).removeprefix('torch.')}"
        told.append((f"error {kind}", f"{error:.6g} {plain:.6g} {allowed:.6g}"))
