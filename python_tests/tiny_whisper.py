"""A Whisper model made on the spot that hears the same sentence in every sound."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

SAYS = "Red blue now."
_WORDS = ("Red", "\u0120blue", "\u0120now")  # \u0120 stands for a space in byte-level pieces
_SPECIAL = ("endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev", "nospeech")


def write_tokenizer(folder: Path) -> Tokenizer:
    special = [f"<|{name}|>" for name in (*_SPECIAL, "notimestamps", *(f"{n * 0.02:.2f}" for n in range(1501)))]
    merges = [(word[:n], word[n]) for word in _WORDS for n in range(1, len(word))]
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + list(dict.fromkeys(a + b for a, b in merges))
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces + special)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end).save_pretrained(
        folder
    )
    return tokenizer


@torch.no_grad()
def write_whisper(folder: Path) -> Path:
    """A faster-whisper model folder. Its layers are silent: what it says next is written into its positions, and each
    piece attends to the sound a fifth of a second after the one before, which times the words."""
    from ctranslate2.converters import TransformersConverter

    source, width = folder / "transformers", 128
    tokenizer = write_tokenizer(source)
    id = tokenizer.token_to_id
    end = id("<|endoftext|>")
    said = [id("<|0.00|>"), *tokenizer.encode(SAYS).ids, id("<|2.00|>"), end]
    layers = {f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=width,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        decoder_start_token_id=id("<|startoftranscript|>"),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        begin_suppress_tokens=[],  # by default ids beyond this vocabulary, which CTranslate2 would write to
        **layers | {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    encoder, decoder = model.model.encoder, model.model.decoder
    attention = decoder.layers[0].encoder_attn
    silent = [encoder.conv1, encoder.conv2, attention.out_proj]
    for layer in (encoder.layers[0], decoder.layers[0]):
        silent += [layer.self_attn.out_proj, layer.fc2]
    for module in silent:
        module.weight.zero_()
        module.bias.zero_()
    table = torch.nn.functional.normalize(torch.randn(config.vocab_size, width), dim=1)
    quiet = [n for token, n in tokenizer.get_vocab().items() if token.startswith("<|") and n not in said]
    table[quiet] = 0  # other times and languages never win
    decoder.embed_tokens.weight.copy_(table)
    positions = decoder.embed_positions.weight
    following = torch.tensor(said + [end] * (len(positions) - len(said)))
    positions.copy_(50 * table[following])
    moments = encoder.embed_positions.weight  # 50 a second
    heard = torch.stack([moments[10 * n] for n in range(len(said) - 1)] + [moments[10 * len(said) :].mean(0)])
    heard = torch.nn.functional.normalize(heard, dim=1)
    attention.q_proj.weight.copy_(2 * heard.T @ table[said])
    attention.q_proj.bias.zero_()
    attention.k_proj.weight.copy_(torch.eye(width))
    model.save_pretrained(source)
    TransformersConverter(str(source), copy_files=["tokenizer.json"]).convert(str(folder / "model"))
    return folder / "model"
