"""The original MEmoBERT's names of tensors, beside ours; of BERT's those of its encoder, which are the same.

Theirs stand here without the prefix of the encoder (`uniter.`, `bert.`).
"""

from collections.abc import Collection, Mapping

MODALITIES = {"visual": "img", "speech": "speech"}
TYPES = "embeddings.token_type_embeddings.weight"
SPEECH_TYPE = "speech_embeddings.token_type_embeddings.weight"
LARE_HEADS = {"part_of_speech": "pos_tag", "word_polarity": "senti_word", "sentence_polarity": "senti_utt"}
LARE_TABLES = {  # of our input tables
    name: f"embeddings.{theirs}_embedding.weight"
    for name, theirs in zip(LARE_HEADS, ("pos_tag", "word_senti", "utt_senti"), strict=True)
}
TIED = {  # what checkpoints hold once more
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "feat_regress.weight": "img_embeddings.img_linear.weight",
    "speech_feat_regress.weight": "speech_embeddings.speech_linear.weight",
    **{f"{LARE_HEADS[name]}_predictions.decoder.weight": table for name, table in LARE_TABLES.items()},
}
ENCODER = ("embeddings", "encoder", "pooler", "img_embeddings", "speech_embeddings")
MATCHING = "heads.matching"  # the head of `objectives.matching`, which is the original's itm
_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_HEADS = {
    "heads.words.transform.dense": "cls.predictions.transform.dense",
    "heads.words.transform.norm": "cls.predictions.transform.LayerNorm",
    "heads.visual_features.transform.dense": "feat_regress.net.0",
    "heads.visual_features.transform.norm": "feat_regress.net.2",
    "heads.speech_features.transform.dense": "speech_feat_regress.net.0",
    "heads.speech_features.transform.norm": "speech_feat_regress.net.2",
    "heads.visual_emotions.transform.dense": "region_classifier.net.0",
    "heads.visual_emotions.transform.norm": "region_classifier.net.2",
    "heads.visual_emotions.classifier": "region_classifier.net.3",
    MATCHING: "itm_output",
}
for _ours, _theirs in LARE_HEADS.items():
    _HEADS[f"heads.{_ours}.transform.dense"] = f"{_theirs}_predictions.transform.dense"
    _HEADS[f"heads.{_ours}.transform.norm"] = f"{_theirs}_predictions.transform.LayerNorm"
_HEAD_BIASES = {
    "heads.words.bias": "cls.predictions.bias",
    "heads.visual_features.bias": "feat_regress.bias",
    "heads.speech_features.bias": "speech_feat_regress.bias",
    **{f"heads.{ours}.bias": f"{theirs}_predictions.bias" for ours, theirs in LARE_HEADS.items()},
}
_TABLES = {f"embeddings.tables.{ours}.weight": theirs for ours, theirs in LARE_TABLES.items()}
_VQA = {"emotion.widen.0": "output.output.0", "emotion.widen.2": "output.output.2"}
_EMOTION = {  # of `emocls`, a linear map alone, the original has no name
    "vqa": _VQA | {"emotion.classifier": "output.output.3"},
    "small_vqa": _VQA | {"emotion.classifier": "output.output.3"},
    "emocls_inner": {"emotion.widen.0": "output.output.1", "emotion.classifier": "output.output.4"},
}
_NO_BIAS = (".word.bias", ".position.bias")  # of tables


def named_alike(layers: int, emotion_head: str = "") -> dict[str, str]:
    """Our name to theirs for every tensor that both store alike; emotion_head: that of a fine-tuned model."""
    modules = _EMBEDDINGS | _HEADS | _EMOTION.get(emotion_head, {})
    for layer in range(layers):
        modules |= {f"encoder.layers.{layer}.{ours}": f"encoder.layer.{layer}.{name}" for ours, name in _LAYER.items()}
    for ours, name in MODALITIES.items():
        own, other = f"embeddings.{ours}", f"{name}_embeddings"
        modules |= {
            f"{own}.projection": f"{other}.{name}_linear",
            f"{own}.projection_norm": f"{other}.{name}_layer_norm",
            f"{own}.block": f"{other}.projs_linear.1",
            f"{own}.block_norm": f"{other}.projs_linear.3",
            f"{own}.position": f"{other}.position_embeddings",
            f"{own}.norm": f"{other}.LayerNorm",
        }
    tensors = {f"{ours}.{kind}": f"{name}.{kind}" for ours, name in modules.items() for kind in ("weight", "bias")}
    return {ours: name for ours, name in tensors.items() if not ours.endswith(_NO_BIAS)} | _HEAD_BIASES | _TABLES


def query_key_value(layer: int, kind: str) -> tuple[str, str, str]:
    """Their names of the three parts of our `encoder.layers.LAYER.qkv.KIND`, in order."""
    return tuple(f"encoder.layer.{layer}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))


def mask_table(modality: str) -> str:
    """Their table of which row 1 is our mask vector, and row 0 takes no part."""
    return f"{MODALITIES[modality]}_embeddings.mask_embedding.weight"


def is_needed(ours: str, pairs: Mapping[str, str], theirs: Collection[str], sizes: Mapping) -> bool:
    """Whether a checkpoint without this weight is not whole; of a head or the pooler none, or all of it is there."""
    if ours in _TABLES:
        return False
    for modality in MODALITIES:
        own = f"embeddings.{modality}."
        if ours.startswith(own):
            optional = {
                "block": sizes.get("projection_block"), "block_norm": sizes.get("projection_block"),
                "position": sizes.get("position_encoding") != "sinusoid",
            }  # fmt: skip
            return bool(sizes.get(f"{modality}_width")) and bool(optional.get(ours.removeprefix(own).split(".")[0], 1))
    if not ours.startswith(("heads.", "pooler.", "emotion.")):
        return True
    depth = 2 if ours.startswith("heads.") else 1
    part = ".".join(ours.split(".")[:depth]) + "."
    return any(other.startswith(part) and name in theirs for other, name in pairs.items())
