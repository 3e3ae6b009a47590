"""What a recipe of fine-tuning says of its losses: that of the labels, and further ones, each with a `kind`.

Those that compare samples take `gather: ranks`: the samples of the micro-batches of all processes are compared, and
what a loss keeps of samples is of them all; without it each process compares its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, model_validator

from memofast.data.conditions import CONDITIONS
from memofast.sections import FilePath, Section

Weight = Annotated[float, Field(gt=0, le=1e6)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Share = Annotated[float, Field(ge=0, le=1)]
Gather = Literal["ranks"] | None
LossName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class CrossEntropySection(Section):
    """weight: in the sum of losses. detached: it trains the head alone, given the representation as it is, as SPCL
    does."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    weight: Weight = 1.0
    detached: bool = False


class FocalSection(Section):
    """Cross-entropy times (1 - p)^gamma. weight, detached: as of cross_entropy."""

    kind: Literal["focal"]
    gamma: Annotated[float, Field(gt=0, le=100)] = 2.0
    weight: Weight = 1.0
    detached: bool = False


class SupervisedContrastSection(Section):
    """Of all samples of a micro-batch, see `class_contrast.supervised_contrast`."""

    kind: Literal["supervised_contrast"]
    weight: Weight = 1.0
    temperature: Temperature = 0.1
    gather: Gather = None


class SpclSection(Section):
    """Contrast with pools' prototypes, see `class_contrast.prototype_contrast`. pool: most members of a class's pool;
    support: of which a prototype is made.

    centres: where pools begin and what prototypes of smaller pools are: `epoch`: at the beginning of every epoch the
    means of the classes' training representations, as the original; `random`: orthonormal rows, once, as the MELD
    system. anchors: samples, or prototypes too (`all`). curriculum: samples come in from easy to hard ones. compat:
    anchors without positives count, as originally.
    """

    kind: Literal["spcl"]
    weight: Weight = 1.0
    form: Literal["coupled", "decoupled"] = "coupled"
    temperature: Temperature = 0.05
    pool: Annotated[int, Field(ge=1, le=2**16)] = 256
    support: Annotated[int, Field(ge=1, le=2**16)] = 64
    centres: Literal["epoch", "random"] = "epoch"
    anchors: Literal["samples", "all"] = "samples"
    curriculum: bool = False
    compat: bool = False
    gather: Gather = None

    @model_validator(mode="after")
    def _goes_together(self) -> SpclSection:
        if self.support > self.pool:
            raise ValueError(f"support {self.support} is more than a pool of {self.pool} has; raise pool")
        if self.curriculum and self.centres != "epoch":
            raise ValueError("curriculum measures distances from centres of the epoch; set centres: epoch")
        return self


class ApclSection(Section):
    """Contrast, decoupled, with prototypes moved by a momentum of their samples; see
    `class_prototypes.AdaptivePrototypes`.

    form: `head`: gamma, alpha, prototypes orthonormal; `first`: beta, gamma, as published first. gamma: None: .99, of
    `first` .01. compat: anchors without positives count, and prototypes are made orthonormal by QR, as originally.
    """

    kind: Literal["apcl"]
    weight: Weight = 1.0
    form: Literal["head", "first"] = "head"
    temperature: Temperature = 0.08
    alpha: Share = 0.5
    beta: Share = 0.9
    gamma: Share | None = None
    compat: bool = False
    gather: Gather = None

    @model_validator(mode="after")
    def _of_the_form(self) -> ApclSection:
        foreign = "beta" if self.form == "head" else "alpha"
        if foreign in self.model_fields_set and getattr(self, foreign) != type(self).model_fields[foreign].default:
            raise ValueError(f"form {self.form} has no {foreign}; leave it out")
        return self


class TeacherSection(Section):
    """path: folder of a trained model or run. condition: of modalities that it is shown; None: all that it reads and
    the corpus has."""

    path: FilePath
    condition: str | None = None

    @model_validator(mode="after")
    def _is_a_condition(self) -> TeacherSection:
        if not self.path:
            raise ValueError("names no teacher; give path: RUN")
        if self.condition is not None and self.condition not in CONDITIONS:
            raise ValueError(f"{self.condition!r} is no condition; there are {', '.join(CONDITIONS)}")
        return self


class _OfTeachers(Section):
    weight: Weight = 1.0
    teachers: list[TeacherSection] = Field(min_length=1, max_length=64)


class DistSection(_OfTeachers):
    """DIST from the teachers' logits, mean over teachers. within: weight of the correlation of a sample's classes,
    between: of a class's samples. queue: earlier samples that the latter compares too, for small batches."""

    kind: Literal["dist"]
    temperature: Temperature = 4.0
    within: Share = 1.0
    between: Share = 1.0
    queue: Annotated[int, Field(ge=0, le=2**16)] = 0
    gather: Gather = None

    @model_validator(mode="after")
    def _learns(self) -> DistSection:
        if not self.within and not self.between:
            raise ValueError("within and between are both 0; raise one")
        if self.queue and not self.between:
            raise ValueError("queue is for between, which is 0; leave one out")
        return self


class FeaturesSection(_OfTeachers):
    """TelME's distillation of representations, mean over teachers; they are as wide as the model's."""

    kind: Literal["feature_distillation"]
    temperature: Temperature = 1.0
    gather: Gather = None


class SoftCrossEntropySection(_OfTeachers):
    """Cross-entropy with the teachers' probabilities, mean over teachers."""

    kind: Literal["soft_cross_entropy"]
    temperature: Temperature = 1.0


def _union(sections: tuple[type[Section], ...], default: str = "") -> Any:
    def kind(values: Any) -> str:
        if isinstance(values, dict):
            return str(values.get("kind", default))
        return getattr(values, "kind", default or kinds[0])  # what is no section is refused as one of it

    kinds = [section.model_fields["kind"].annotation.__args__[0] for section in sections]
    pairs = zip(kinds, sections, strict=True)
    return Annotated[Union[*(Annotated[section, Tag(name)] for name, section in pairs)], Discriminator(kind)]


BY_REPRESENTATION = (SupervisedContrastSection, SpclSection, ApclSection, FeaturesSection)
BY_TEACHERS = (DistSection, FeaturesSection, SoftCrossEntropySection)
LabelLoss = _union((CrossEntropySection, FocalSection), "cross_entropy")
FurtherLoss = _union((SupervisedContrastSection, SpclSection, ApclSection, *BY_TEACHERS))
