"""The losses of a corrupted batch."""

from torch import Tensor, nn

from memofast.data.batch import PackedBatch
from memofast.objectives.corruption import Corruption
from memofast.objectives.objective import LossSum


def losses(model: nn.Module, batch: PackedBatch, corruption: Corruption, rng: Tensor | None) -> dict[str, LossSum]:
    """Run a `MemoBertForPreTraining` (bare or wrapped by DDP) and sum each objective's loss over its targets.

    An objective without targets has total 0 and count 0, and its total still backpropagates zeros to every parameter.

    Args: batch and corruption on the model's device; rng [2] int64, needed in training mode with dropout.
    """
    predictions = model(
        batch,
        {name: (targets.objective.head, targets.joint) for name, targets in corruption.targets.items()},
        token_ids=corruption.inputs.token_ids,
        visual_source=corruption.inputs.visual_source,
        speech_source=corruption.inputs.speech_source,
        rng=rng,
    )
    return {
        name: targets.objective.loss(predictions[name], batch, targets) for name, targets in corruption.targets.items()
    }
