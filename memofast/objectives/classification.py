"""The loss of naming a sample's class, known for certain or as probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor


def class_targets(targets: dict[str, Tensor], classes: int) -> Tensor:
    """Probabilities [B, classes] float32 from a batch's targets: `emotions` where it has them, else one-hot `label`;
    zero where unknown."""
    if "emotions" in targets:
        return targets["emotions"]
    label = targets["label"]
    return F.one_hot(label.clamp(min=0), classes).float() * (label >= 0)[:, None]


def balanced_weights(counts: Tensor) -> Tensor:
    """Class weights inverse to the classes' counts [classes], their mean over samples 1; classes without samples get
    0."""
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1e-9))
    return torch.where(present, weights, 0.0).float()


def classification_losses(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> Tensor:
    """Cross-entropy -sum_c w_c q_c (1 - p_c)^gamma log p_c of each sample [B] fp32; 0 where its class is not known.

    Args: logits [B, classes]; targets q [B, classes], probabilities or zero rows; class_weights w [classes]; smoothing:
        share of q that is spread over all classes; gamma: above 0 the focal loss, which makes less of what is found
        already (Lin et al., ICCV 2017).
    """
    known = targets.sum(-1) > 0
    wanted = targets * (1 - smoothing) + smoothing / targets.shape[-1] * known[:, None]
    wanted = wanted if class_weights is None else wanted * class_weights
    logs = F.log_softmax(logits.float(), -1)
    if gamma:
        wanted = wanted * (-torch.expm1(logs)).clamp(min=torch.finfo(torch.float32).tiny) ** gamma
    return -(wanted * logs).sum(-1)
