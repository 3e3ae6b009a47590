"""Small models to adapt: a pre-trained one with faces and speech, a BERT, and emotion models of them."""

from pathlib import Path

import torch
from packed_batches import small_config
from torch import nn
from transformers import BertConfig, BertModel

from memofast.model import MemoBertForPreTraining
from memofast.model.memobert.adapting import adapt
from memofast.model.memobert.emotion import MemoBertForEmotion
from memofast.model.memobert.section import LoraSection

CLASSES = ("calm", "glad", "cross")


def pre_trained(folder: Path, **sizes) -> Path:
    """Every weight is drawn, also those of norms, and biases."""
    torch.manual_seed(0)
    model = MemoBertForPreTraining(small_config(**sizes))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(BertConfig(vocab_size=200, max_position_embeddings=64, **sizes, **dropout)).save_pretrained(folder)
    return folder


def adapted_model(base: Path, dtype: str = "float32", drawn: bool = False, entries: dict | None = None, **lora):
    """An emotion model on `base`. drawn: adapters are not zero."""
    torch.manual_seed(2)
    model = MemoBertForEmotion.start(base, CLASSES, emotion_head="emocls", **(entries or {}))
    options = {"target_modules": "all-linear", "r": 3, "lora_alpha": 6} | lora
    adapt(model, LoraSection(dtype=dtype, **options), str(base))
    if drawn:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)
                assert "lora_" in name or name.startswith("emotion.") or "bias" in name or "embeddings." in name, name
    return model.eval()
