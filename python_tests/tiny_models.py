"""Small transformers models in folders, with weights that differ from row to row."""

import json
from pathlib import Path

import torch

_SOUND = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def save_speech_model(folder: Path, kind: str, normalise: bool | None = True, **changes) -> Path:
    """A model of `kind` with three layers of width 16; `normalise` None leaves out its preprocessor_config.json."""
    import transformers

    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "data2vec": "Data2VecAudio"}[kind]
    settings = dict(_SOUND)
    if kind == "data2vec":
        settings |= {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(settings | changes))
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    if normalise is not None:
        settings = {"do_normalize": normalise, "sampling_rate": 16_000}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_vit(folder: Path, classes: tuple[str, ...] = (), **changes) -> Path:
    """A ViT of width 16 for pictures of 32; with `classes` a classifier."""
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    settings = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    config = ViTConfig(**(settings | (names if classes else {}) | changes))
    (ViTForImageClassification if classes else ViTModel)(config).save_pretrained(folder)
    return folder


def save_bert(folder: Path, words: list[str]) -> Path:
    """A BERT of width 16 over `words`, with its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **settings)).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return folder


def save_roberta(folder: Path, sentences: list[str], **changes) -> Path:
    """A RoBERTa of width 16 with a byte-level BPE that these sentences taught, and its tokenizer.json."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(sentences, vocab_size=320, min_frequency=1, special_tokens=special)
    settings = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 66, "vocab_size": tokenizer.get_vocab_size(),
    }  # fmt: skip
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(**(settings | changes))).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_video_model(folder: Path, kind: str, preprocessor: dict | None = None, **changes) -> Path:
    """A `videomae` or `timesformer` of width 16 that sees 4 pictures of 16 pixels; preprocessor: entries of
    preprocessor_config.json beside the usual ones."""
    import transformers

    settings = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "image_size": 16, "patch_size": 8, "num_frames": 4,
    }  # fmt: skip
    name = {"videomae": "VideoMAE", "timesformer": "Timesformer"}[kind]
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**(settings | changes)))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # some begin as zeros
    model.save_pretrained(folder)
    told = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_mean": [0.5, 0.4, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(told | (preprocessor or {})))
    return folder
