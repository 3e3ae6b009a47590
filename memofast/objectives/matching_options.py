"""Options of matching: what a negative is, and what is replaced."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from memofast.objectives.objective import ObjectiveOptions
from memofast.objectives.ratios import Ratio
from memofast.sections import FilePath


class MatchingOptions(ObjectiveOptions):
    """negatives: share of the samples that show another's rows. replaced: the modalities that are replaced, all of one
    other sample. one_modality: each negative replaces only one of the two; faces: share of them in which it is faces;
    None: half.
    other_class: the other sample is of another class, by its likeliest pseudo label (`emotions`) or its `label`;
    any_of_class: those that match may then show the rows of any sample of their class. candidates: that many others are
    drawn, and shown is the one whose mean rows are most like the sample's own: a hard negative. pooled: file of
    `memofast extract`, whose pooled vectors say in place of mean rows which samples are alike: as the model sees them
    that made it, and under the condition it was shown."""

    negatives: Ratio = (1, 2)
    replaced: list[Literal["visual", "speech"]] = Field(["visual", "speech"], min_length=1)
    one_modality: bool = False
    faces: Ratio | None = None
    other_class: Literal["emotions", "label"] | None = None
    any_of_class: bool = False
    candidates: int = Field(1, ge=1, le=64)
    pooled: FilePath | None = None

    @field_validator("negatives")
    @classmethod
    def _both(cls, negatives: tuple[int, int]) -> tuple[int, int]:
        if not 0 < negatives[0] < negatives[1]:
            raise ValueError("must be above 0 and below 1, so that there are both kinds")
        return negatives

    @field_validator("replaced")
    @classmethod
    def _each_once(cls, replaced: list[str]) -> list[str]:
        if len(set(replaced)) < len(replaced):
            raise ValueError("names a modality twice")
        return replaced

    @model_validator(mode="after")
    def _all_takes_effect(self) -> MatchingOptions:
        if self.one_modality and len(self.replaced) < 2:
            raise ValueError(f"one_modality has no effect where only {self.replaced[0]} is replaced; leave it out")
        if self.faces is not None and not self.one_modality:
            raise ValueError("faces has no effect without one_modality; leave it out")
        if self.any_of_class and self.other_class is None:
            raise ValueError("any_of_class needs other_class; name emotions or label there")
        if self.pooled is not None and self.candidates < 2:
            raise ValueError("pooled has no effect with one candidate; raise candidates")
        return self
