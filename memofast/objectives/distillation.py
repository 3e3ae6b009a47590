"""Learning from a teacher's answers or representations.

Sources: Huang et al., "Knowledge distillation from a stronger teacher" (DIST), NeurIPS 2022; Yun et al., "TelME", NAACL
2024; Hinton et al., "Distilling the knowledge in a neural network", 2015. Student and teacher are [B, C] logits or [B,
D] representations, computed in fp32 or wider; gradients are the student's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dist_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    within: float = 1.0,
    between: float = 1.0,
    earlier: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """DIST: 1 less the correlation of both sides' probabilities, times the squared temperature.

    Args: logits [B, C]. within: weight of correlations of the classes of a sample, meaned over samples; between: of
        the samples of a class, meaned over classes: below three samples that is +-1 or 0, without a gradient. earlier:
        probabilities of student and teacher [n, C] of samples that the latter compares too.
    """
    own, taught = (logits / temperature for logits in (student, teacher))
    own, taught = own.softmax(-1), taught.softmax(-1)
    loss = within * (1 - _correlations(own, taught)).mean()
    if earlier is not None:
        own, taught = (torch.cat(pair) for pair in zip((own, taught), earlier, strict=True))
    return temperature**2 * (loss + between * (1 - _correlations(own.T, taught.T)).mean())


def feature_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """TelME's: divergence of how alike a teacher's representation is to the student's of all samples from how alike it
    is to the teacher's own."""
    own, taught = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    wanted = (taught @ taught.T / temperature).log_softmax(-1)
    found = (taught @ own.T / temperature).log_softmax(-1)
    return F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy [B] of the student's probabilities with the teacher's, times the squared temperature."""
    wanted = (teacher / temperature).softmax(-1)
    return -(wanted * (student / temperature).log_softmax(-1)).sum(-1) * temperature**2


class AnswerQueue(nn.Module):
    """Probabilities of student and teacher of the last samples, saved with a checkpoint."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        self.register_buffer("student", torch.zeros(size, classes))
        self.register_buffer("teacher", torch.zeros(size, classes))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def earlier(self) -> tuple[Tensor, Tensor]:
        """Those that there are [n, C], the newest first."""
        return self.student[: self.count].clone(), self.teacher[: self.count].clone()

    @torch.no_grad()
    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Put [n, C] in front; the oldest go."""
        for kept, new in ((self.student, student), (self.teacher, teacher)):
            kept.copy_(torch.cat((new, kept))[: len(kept)])
        self.count.copy_((self.count + len(student)).clamp(max=len(self.student)))


def _correlations(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, of each row [n]."""
    return F.cosine_similarity(one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True), dim=1)
