"""The modalities, in the order of their rows in a sample's joint sequence."""

from typing import NamedTuple


class Modality(NamedTuple):
    """name: of batch entries and stores. letter: of conditions (language, visual, acoustic). features: rows of values,
    not word pieces."""

    name: str
    letter: str
    features: bool


TABLE = (
    Modality("text", "l", features=False),
    Modality("visual", "v", features=True),
    Modality("speech", "a", features=True),
)
MODALITIES = tuple(modality.name for modality in TABLE)
FEATURES = tuple(modality.name for modality in TABLE if modality.features)
LETTERS = {modality.letter: modality.name for modality in TABLE}
