"""Fusion that keeps information of what it is made of: lower bounds of the information between modalities, and between
the fusion and each of them, are raised while it learns.

Source: Han et al., "Improving multimodal fusion with hierarchical mutual information maximization" (MMIM), EMNLP 2021,
as MMSA 2.2.1 has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from memofast.errors import MemofastError
from memofast.model.bounds import Dropout, Width
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.sequence.network import AlignedOptions, Network, Shape
from memofast.model.sequence.recurrent import both_ends
from memofast.model.sequence.rows import Rows
from memofast.model.sequence.seen_features import SeenFeatures

Weight = Annotated[float, Field(ge=0, le=1e6)]
_LETTERS = {"text": "t", "visual": "v", "speech": "a"}
_NAMES = {"visual": "visual", "speech": "acoustic"}


class MmimOptions(AlignedOptions):
    """recurrent_*: width of each direction of an LSTM over rows; summary_*: of what is made of its ends; text is its
    [CLS]. width: of the fusion; dropout: before it. faces_and_speech: whether information between these two is raised
    too. information, contrast, entropy: weights of the losses. memory: updates whose samples the entropy is estimated
    from beside those at hand."""

    kind: Literal["mmim"]
    recurrent_visual: Width = 16
    recurrent_speech: Width = 16
    summary_visual: Width = 16
    summary_speech: Width = 16
    width: Width = 128
    dropout: Dropout = 0.1
    faces_and_speech: bool = False
    information: Weight = 0.1
    contrast: Weight = 0.1
    entropy: Weight = 0.1
    memory: Annotated[int, Field(ge=1, le=10**6)] = 1


class Mmim(Network):
    """LSTMs of faces and speech beside the text's [CLS], and a small network over all of them.

    losses: estimators, by which estimators of one modality from another learn, given the modalities as they are;
    information, by which the modalities learn from the estimators as they are; contrast, by which the fusion tells its
    sample's modalities from those of other samples; entropy, of modalities among positive and among negative samples.

    The original trains its estimators in an epoch of their own before each; here both learn in every update.
    """

    needs = ("text",)
    encodes = True
    state_names = (
        *(
            (rf"{theirs}_enc\.{part}\.(.+)", rf"{own_part}.{own}.\1")
            for own, theirs in _NAMES.items()
            for part, own_part in (("rnn", "encoders"), ("linear_1", "summaries"))
        ),
        *(
            (rf"mi_{_LETTERS[one]}{_LETTERS[other]}\.{theirs}\.(.+)", rf"estimators.{one}_{other}.{own}\1")
            for one, other in (("text", "visual"), ("text", "speech"), ("visual", "speech"))
            for theirs, own in (
                ("mlp_mu", "mean."),
                ("mlp_logvar", "log_variance."),
                (r"entropy_prj\.0", "projection_"),
            )
        ),
        *((rf"cpc_z{letter}\.net\.(.+)", rf"predictors.{name}.\1") for name, letter in _LETTERS.items()),
        (r"fusion_prj\.linear_1\.(.+)", r"join.\1"),
        (r"fusion_prj\.linear_2\.(.+)", r"fuse.\1"),
        (r"fusion_prj\.linear_3\.(.+)", r"head.\1"),
    )

    def __init__(self, options: MmimOptions, shape: Shape):
        super().__init__()
        if shape.kind != "regression":
            raise MemofastError(
                "model.network mmim estimates entropies of positive and negative values, of which classes have none; "
                "choose another"
            )
        self.options = options
        self.losses = {"estimators": 1.0, "information": options.information, "contrast": options.contrast}
        self.losses |= {"entropy": options.entropy} if options.entropy else {}
        self.encoders, self.summaries = nn.ModuleDict(), nn.ModuleDict()
        sizes = {"text": shape.text_encoder}
        for name in (one for one in ("speech", "visual") if one in shape.widths):  # the original's order
            recurrent, sizes[name] = getattr(options, f"recurrent_{name}"), getattr(options, f"summary_{name}")
            self.encoders[name] = nn.LSTM(shape.widths[name], recurrent, batch_first=True, bidirectional=True)
            self.summaries[name] = nn.Linear(2 * recurrent, sizes[name])
        self.pairs = [("text", name) for name in ("visual", "speech") if name in sizes]
        if options.faces_and_speech and len(self.pairs) == 2:
            self.pairs.append(("visual", "speech"))
        self.estimators = nn.ModuleDict(
            {f"{one}_{other}": Estimator(sizes[one], sizes[other]) for one, other in self.pairs}
        )
        self.predictors = nn.ModuleDict({name: nn.Linear(options.width, size) for name, size in sizes.items()})
        self.join = nn.Linear(sum(sizes.values()), options.width)
        self.fuse = nn.Linear(options.width, options.width)
        self.head = nn.Linear(options.width, shape.outputs)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.xavier_normal_(weight)

    def learning_state(self, keys: Tensor) -> SeenFeatures | None:
        if not self.options.entropy:
            return None
        widths = {name: estimator.projection_weight.shape[0] for name, estimator in self.estimators.items()}
        return SeenFeatures(keys, widths)

    def forward(self, rows: Mapping[str, Rows], draws: Draws, lesson: Lesson | None = None) -> Answers:
        if self.options.aligned:
            rows = {name: one.over(rows["text"].lengths) for name, one in rows.items()}
        found = {"text": rows["text"].values[:, 0]}
        for name, encoder in self.encoders.items():
            _, ends = both_ends(encoder, rows[name])
            found[name] = self.summaries[name](ends.transpose(0, 1).flatten(1))
        together = draws.dropped(torch.cat(list(found.values()), 1), self.options.dropout)
        fused = self.fuse(self.join(together).tanh()).tanh()
        outputs = self.head(fused)
        if lesson is None:
            return Answers(outputs)
        present = {name: one.lengths > 0 for name, one in rows.items()}
        return Answers(outputs, self._losses(found, fused, present, lesson))

    def _losses(
        self, found: Mapping[str, Tensor], fused: Tensor, present: Mapping[str, Tensor], lesson: Lesson
    ) -> dict[str, Tensor]:
        """Of the modalities that samples have."""
        nothing = fused.new_zeros(len(fused))
        learnt, told = nothing, nothing
        for one, other in self.pairs:
            estimator, there = self.estimators[f"{one}_{other}"], present[one] & present[other]
            held = {name: weight.detach() for name, weight in estimator.named_parameters()}
            learnt = learnt - estimator(found[one].detach(), found[other].detach()) * there
            told = told - functional_call(estimator, held, (found[one], found[other])) * there
        contrast = nothing
        for name, values in found.items():
            contrast = contrast + noise_contrast(values, self.predictors[name](fused)) * present[name]
        losses = {"estimators": learnt, "information": told, "contrast": contrast}
        return losses | ({"entropy": self._entropy(found, present, lesson)} if self.options.entropy else {})

    def _entropy(self, found: Mapping[str, Tensor], present: Mapping[str, Tensor], lesson: Lesson) -> Tensor:
        """Less the entropies of projected modalities among positive and negative samples, those last seen included; 0
        as long as they are too few for a covariance."""
        known, state, total = lesson.known, lesson.state, found["text"].new_zeros(())
        value, places = lesson.wanted[known, 0], state.places(lesson.keys[known])
        projected = {}
        for one, other in self.pairs:
            name, there = f"{one}_{other}", (present[one] & present[other])[known]
            features = self.estimators[name].projected(found[other][known]).float()
            kept, kept_value = state.since(name, lesson.update, self.options.memory, places)
            every, signs = torch.cat((kept, features[there])), torch.cat((kept_value, value[there])).sign()
            groups = every[signs > 0], every[signs < 0]
            if len(kept) and min(map(len, groups)) > 2 * every.shape[1]:
                total = total - sum(0.25 * torch.logdet(covariance(group)) for group in groups)
            projected[name] = features, there
        state.learn(places, value, projected, lesson.update)
        return total


class Estimator(nn.Module):
    """How likely a modality y [B, E] is of another x [B, C], by a normal distribution whose mean and variance are made
    of x. What entropies are estimated of is a projection of y that stays random, as the original's does."""

    def __init__(self, size: int, of: int):
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(size, of), nn.ReLU(), nn.Linear(of, of)) for _ in range(2)
        )
        weight = torch.empty(max(of // 4, 1), of)
        self.register_buffer("projection_weight", nn.init.xavier_normal_(weight))
        self.register_buffer("projection_bias", torch.zeros(len(weight)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[B]: log-likelihood of each sample, but for what does not depend on y or on the mean."""
        return -((self.mean(x) - y).square() / 2 / self.log_variance(x).exp()).sum(1)

    def projected(self, y: Tensor) -> Tensor:
        return F.linear(y, self.projection_weight, self.projection_bias).tanh()


def noise_contrast(values: Tensor, predicted: Tensor) -> Tensor:
    """[B]: loss of telling by cosines which of all predictions [B, C] is of a sample's values [B, C]."""
    cosines = F.normalize(values, dim=1) @ F.normalize(predicted, dim=1).T
    return cosines.logsumexp(1) - cosines.diagonal()


def covariance(values: Tensor) -> Tensor:
    """[C, C] of samples [n, C], divided by their number."""
    centred = values - values.mean(0)
    return centred.T @ centred / len(values)
