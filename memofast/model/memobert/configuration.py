"""The configuration of every MemoBert model."""

from typing import Any

from transformers import PretrainedConfig

from memofast.data.modality import FEATURES
from memofast.model.face_networks.network import WIDTHS
from memofast.model.heads import Head

EMOTION_HEADS = ("emocls", "vqa", "small_vqa", "emocls_inner")
POSITION_ENCODINGS = ("learned", "sinusoid")
SIZES = {  # of the original's configurations
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "medium": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048},
    "small": {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048},
}


def padded_width(width: int) -> int:
    """The width that feature rows have in a batch: the next multiple of 8."""
    return (width + 7) // 8 * 8


class MemoBertConfig(PretrainedConfig):
    """Sizes of a single-stream encoder over text, faces and speech; the defaults are the published base model.

    vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings: as in
    BERT.
    visual_width, speech_width: true width of a feature row (batches pad it to a multiple of 8); 0: a model without that
    modality.
    face: entries of `FaceNetwork`, which makes the rows of faces out of raw crops and sets visual_width; None: rows
    come ready.
    visual_positions, speech_positions: most rows of one sample, the sizes of the two position tables.
    position_encoding: of face and speech rows: `learned` tables, or a fixed `sinusoid` that is never trained.
    projection_block: whether face and speech rows pass through a further layer after the projection's norm.
    shared_types: whether speech rows have the token type of faces, and no own one.
    visual_classes: classes of the soft labels that the visual emotion head predicts.
    heads: by name, heads of pre-training beside the published ones, as `Head.described` gives them.
    tables: by name, input tables that a view may add to its tokens, with their numbers of entries.
    mask_token_id: the token that stands for a masked word piece.
    emotion_head: one of `EMOTION_HEADS`, see `EmotionHead`; problem_type: what its outputs are, as transformers names
    it: `single_label_classification` (None too), `multi_label_classification` or `regression`.

    Raises `ValueError` where heads do not divide the hidden width into multiples of 8, or for an unknown head or
    position encoding.

    Source: MEmoBERT, arXiv 2111.00865.
    """

    model_type = "memobert"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        visual_width: int = 342,
        speech_width: int = 768,
        visual_positions: int = 512,
        speech_positions: int = 512,
        position_encoding: str = "learned",
        projection_block: bool = False,
        shared_types: bool = False,
        face: dict[str, Any] | None = None,
        visual_classes: int = 8,
        heads: dict[str, dict] | None = None,
        tables: dict[str, int] | None = None,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 0,
        mask_token_id: int = 103,
        emotion_head: str = "emocls",
        **kwargs,
    ):
        if emotion_head not in EMOTION_HEADS:
            raise ValueError(f"emotion_head is {' or '.join(EMOTION_HEADS)}, not {emotion_head!r}")
        if position_encoding not in POSITION_ENCODINGS:
            raise ValueError(f"position_encoding is {' or '.join(POSITION_ENCODINGS)}, not {position_encoding!r}")
        if num_attention_heads < 1 or hidden_size < 1 or hidden_size % num_attention_heads:
            raise ValueError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}"
            )
        if (width := hidden_size // num_attention_heads) % 8:
            raise ValueError(
                f"hidden_size {hidden_size} with num_attention_heads {num_attention_heads} makes heads {width} wide; "
                "choose a width that is a multiple of 8"
            )
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.visual_width = WIDTHS[face["network"]] if face and visual_width else visual_width
        self.face = face if visual_width else None
        self.speech_width = speech_width
        self.visual_positions = visual_positions
        self.speech_positions = speech_positions
        self.position_encoding = position_encoding
        self.projection_block = projection_block
        self.shared_types = shared_types
        self.visual_classes = visual_classes
        self.heads = heads or {}
        self.tables = tables or {}
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        self.mask_token_id = mask_token_id
        self.emotion_head = emotion_head

    def feature_width(self, modality: str) -> int:
        """True width of a row of `visual` or `speech` features; 0 where the model has no such modality."""
        return getattr(self, f"{modality}_width")

    def feature_positions(self, modality: str) -> int:
        return getattr(self, f"{modality}_positions")

    @property
    def every_head(self) -> dict[str, Head]:
        """All heads of pre-training by name: those of the published objectives, as far as there are their modalities,
        then further ones."""
        found = {"words": Head("words")}
        if self.visual_width:
            found |= {"visual_features": Head("rows", "visual"), "visual_emotions": Head("soft_labels", "visual")}
        if self.speech_width:
            found["speech_features"] = Head("rows", "speech")
        return found | {name: Head(**values) for name, values in self.heads.items() if name not in found}

    @property
    def reads(self) -> dict[str, int]:
        """As `family.Reader.reads`."""
        widths = {m: width for m in FEATURES if (width := self.feature_width(m))}
        return {"text": self.vocab_size} | widths | ({"visual": self.face["crop"] ** 2} if self.face else {})

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`."""
        return frozenset(["visual"] if self.face else [])

    @property
    def made(self) -> frozenset[str]:
        """Modalities whose rows a network of the model makes."""
        return self.raw

    @property
    def told_by_neighbours(self) -> frozenset[str]:
        """Modalities whose network makes a row of its neighbours too, which then tell of one that is hidden."""
        return frozenset(["visual"] if self.face and self.face["network"] == "resnet3d" else [])

    @property
    def layers(self) -> int:
        """Layers of all encoders."""
        return self.num_hidden_layers

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Attention heads that layers have."""
        return (self.num_attention_heads,)

    @property
    def longest(self) -> dict[str, int]:
        """As `family.Reader.longest`."""
        features = {m: self.feature_positions(m) for m in FEATURES if self.feature_width(m)}
        return {"text": self.max_position_embeddings} | features
