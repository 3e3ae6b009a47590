"""Sequence networks for tests: the originals' numbers, random rows, and that a batch changes no sample."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from memofast.model.draws import Draws
from memofast.model.family import Lesson
from memofast.model.sequence.network import Network, Shape
from memofast.model.sequence.networks import NETWORKS
from memofast.model.sequence.originals import renamed
from memofast.model.sequence.rows import Rows

WIDTHS = {"text": 12, "visual": 7, "speech": 5}  # as in the golden files
ORDER = ("text", "speech", "visual")  # of MMSA's inputs
NOTHING = Draws(None, torch.arange(3))


def parts_of(file, case: str) -> dict[str, Tensor]:
    """The arrays of one case of a golden file, in fp32, by the name after the case's."""
    names = [name for name in file.files if name.startswith(f"{case}/")]
    arrays = {name.removeprefix(f"{case}/"): torch.from_numpy(np.asarray(file[name])) for name in names}
    return {name: values.float() if values.is_floating_point() else values for name, values in arrays.items()}


def state_of(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("state/"): values for name, values in parts.items() if name.startswith("state/")}


def a_network(kind: str, shape: Shape | None = None, **options) -> Network:
    """With random weights that are the same each time, in evaluation mode."""
    torch.manual_seed(4)
    options_class, network = NETWORKS[kind]
    return network(options_class(kind=kind, **options), shape or Shape(WIDTHS, 1, "regression")).eval()


def an_original(kind: str, parts: Mapping[str, Tensor], shape: Shape | None = None, **options) -> Network:
    """With an original's weights, computing as it does."""
    network = a_network(kind, shape, compat=True, **options)
    network.load_state_dict(renamed(state_of(parts), network.state_names))
    return network


def padded(values: Tensor, lengths: Tensor | None = None) -> Rows:
    """Rows as an original gets them; lengths: None: all."""
    full = torch.full((len(values),), values.shape[1])
    return Rows(values, full if lengths is None else lengths)


def random_rows(lengths: Mapping[str, list[int]], seed: int = 1, longer: int = 0) -> dict[str, Rows]:
    """By modality of WIDTHS, for samples of these lengths, padded to the longest and `longer` more."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, own in lengths.items():
        values = torch.randn(len(own), max(*own, 1) + longer, WIDTHS[name], generator=generator)
        found[name] = Rows(values, torch.tensor(own)).with_values(values)
    return found


def one_of(rows: Mapping[str, Rows], sample: int) -> dict[str, Rows]:
    """A sample as a batch of its own, without padding."""
    cut = {name: max(int(one.lengths[sample]), 1) for name, one in rows.items()}
    return {
        name: Rows(one.values[sample : sample + 1, : cut[name]], one.lengths[sample : sample + 1])
        for name, one in rows.items()
    }


def assert_alone_as_in_a_batch(network: Network, rows: Mapping[str, Rows], atol: float = 1e-5) -> None:
    """f(batch)[i] = f(single), in evaluation mode."""
    with torch.no_grad():
        together = network(rows, NOTHING).outputs
        for sample in range(len(together)):
            alone = network(one_of(rows, sample), NOTHING).outputs[0]
            torch.testing.assert_close(alone, together[sample], rtol=0, atol=atol)
    assert together.isfinite().all() and together.std(0).min() > 1e-4  # it reads its rows


def golden_of(real_data, case: str) -> dict[str, Tensor]:
    """One case of MMSA's models."""
    return parts_of(np.load(real_data.parent / "golden" / "companions" / "mmsa_models.npz"), case)


def samples_lesson(samples: int, epoch: int = 1, state=None, values: Tensor | None = None) -> Lesson:
    """Of samples, of keys from 0, whose values [B, 1] are known, without those of single modalities; an update an
    epoch."""
    wanted = torch.linspace(-2, 3, samples)[:, None] if values is None else values
    return Lesson(wanted, torch.arange(samples), {}, epoch, epoch, torch.arange(samples), state)
