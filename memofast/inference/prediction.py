"""What a model says of one utterance."""

from dataclasses import asdict, dataclass, field
from typing import Any

OF_DIALOGUES = ("dialogue", "position", "speaker")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one utterance, or of somebody else's face during it.

    named: the likeliest class, None of a regression, which says a `value`. probabilities: class -> probability; where
    any number of classes may hold they do not sum to 1. modalities: those that the model saw. importance: modality ->
    by how much the named class's probability (or the value) falls where it is left out; empty where the model saw one
    only. start, end: seconds in `file`, None of what has no times. track: number of the person whose face was taken,
    the same number for the same face throughout a file; None without a face. score: see `ordered_score`, where an
    order was given. speaks: False of the others who are seen during the utterance `id`, of whom the model sees the face
    alone. dialogue, position, speaker: where a table says that it is said and by whom, None where none says so; they
    are in files only then. notes: what was missing or odd.
    """

    id: str
    named: str | None
    probabilities: dict[str, float]
    modalities: tuple[str, ...]
    importance: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    score: float | None = None
    text: str | None = None
    file: str | None = None
    start: float | None = None
    end: float | None = None
    track: int | None = None
    speaks: bool = True
    dialogue: str | None = None
    position: int | None = None
    speaker: str | None = None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        said = asdict(self) | {"modalities": list(self.modalities), "notes": list(self.notes)}
        unknown = OF_DIALOGUES if all(said[name] is None for name in OF_DIALOGUES) else ()
        return {name: value for name, value in said.items() if name not in unknown}
