"""Small random packed batches for tests of everything above the operators."""

import torch

from memofast import objectives
from memofast.data import Facts, Read, View
from memofast.data.batch import PackedBatch
from memofast.model import MemoBertConfig, padded_width

LENGTHS = [(7, 5, 9), (3, 0, 4), (12, 33, 0), (1, 6, 17), (20, 16, 15)]


def small_config(**overrides) -> MemoBertConfig:
    """Two layers, 32 wide; a visual width that needs padding; no dropout unless asked."""
    sizes = {
        "vocab_size": 200,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "visual_width": 21,
        "speech_width": 24,
        "visual_positions": 48,
        "speech_positions": 48,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return MemoBertConfig(**{**sizes, **overrides})


def random_batch(
    config: MemoBertConfig,
    lengths: list[tuple[int, int, int]] | None = None,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    soft_labels: bool = True,
    lexicon: bool = False,
) -> PackedBatch:
    """A batch of the given (text, visual, speech) lengths; text counts [CLS] and [SEP], a length of 1 is [CLS] alone.

    Rows of a modality are zero in the padding of their width; a modality without any row is absent.
    """
    lengths = LENGTHS if lengths is None else lengths
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(lengths, dtype=torch.int32).reshape(-1, 3)
    pieces, words = [], []
    for length in counts[:, 0].tolist():
        inner = torch.randint(104, config.vocab_size, (max(length - 2, 0),), generator=generator)
        pieces += [101, *inner.tolist(), *([102] if length > 1 else [])]
        words += [-1, *(i // 2 for i in range(len(inner))), *([-1] if length > 1 else [])]

    def features(column: int, width: int) -> torch.Tensor | None:
        rows = int(counts[:, column].sum())
        if rows == 0 or width == 0:
            return None
        packed = torch.zeros(rows, padded_width(width))
        packed[:, :width] = torch.randn(rows, width, generator=generator)
        return packed.to(dtype)

    targets = {}
    visual, speech = features(1, config.visual_width), features(2, config.speech_width)
    if soft_labels and visual is not None:
        targets["soft_labels"] = torch.rand(visual.shape[0], config.visual_classes, generator=generator).softmax(-1)
    if lexicon:
        targets["lexicon"] = torch.randint(-1, 6, (len(pieces),), generator=generator, dtype=torch.int32)
    return PackedBatch(
        token_ids=torch.tensor(pieces, dtype=torch.int32),
        word_ids=torch.tensor(words, dtype=torch.int32),
        text_offsets=_offsets(counts[:, 0]),
        visual_offsets=_offsets(counts[:, 1]),
        speech_offsets=_offsets(counts[:, 2]),
        offsets=_offsets(counts.sum(1)),
        sample_keys=torch.randint(-(2**62), 2**62, (len(lengths),), generator=generator),
        visual=visual,
        speech=speech,
        targets=targets,
    )


def with_parts_of_speech(batch: PackedBatch, seed: int = 0) -> PackedBatch:
    """Parts of speech and polarities of the pieces, half of which are neutral, and a class of each sample, the last
    one's unknown."""
    generator, pieces = torch.Generator().manual_seed(seed), batch.word_ids >= 0

    def drawn(values: list[int], count: int) -> torch.Tensor:
        return torch.tensor(values)[torch.randint(len(values), (count,), generator=generator)]

    rows = len(batch.token_ids)
    batch.targets |= {
        "part_of_speech": drawn([0, 1, 2, 3, 4], rows).where(pieces, 4).int(),
        "polarity": drawn([0, 1, 2, 2], rows).where(pieces, 2).int(),
        "label": drawn([0, 1, 2, 3, 4], batch.samples),
    }
    batch.targets["label"][-1:] = -1
    return batch


def reading(batch: PackedBatch, reads: dict[str, tuple[str, torch.Tensor]], **fields) -> View:
    """A view of the batch that is read, by name, through a head at rows of the joint sequence."""
    return View(batch, reads={name: Read(head, rows) for name, (head, rows) in reads.items()}, **fields)


def select(batch: PackedBatch, samples: list[int]) -> PackedBatch:
    """The same samples, in the given order, as a batch of their own."""

    def rows(modality: str) -> torch.Tensor:
        offsets = getattr(batch, f"{modality}_offsets").tolist()
        chosen = [torch.arange(offsets[s], offsets[s + 1]) for s in samples]
        return torch.cat([torch.zeros(0, dtype=torch.int64), *chosen])

    def lengths(name: str) -> torch.Tensor:
        return getattr(batch, name).diff()[samples]

    text, visual, speech = rows("text"), rows("visual"), rows("speech")
    places = {"soft_labels": visual, "lexicon": text, "part_of_speech": text, "polarity": text, "label": samples}
    return PackedBatch(
        token_ids=batch.token_ids[text],
        word_ids=batch.word_ids[text],
        text_offsets=_offsets(lengths("text_offsets")),
        visual_offsets=_offsets(lengths("visual_offsets")),
        speech_offsets=_offsets(lengths("speech_offsets")),
        offsets=_offsets(lengths("offsets")),
        sample_keys=batch.sample_keys[samples],
        visual=None if batch.visual is None else batch.visual[visual],
        speech=None if batch.speech is None else batch.speech[speech],
        targets={name: values[places[name]] for name, values in batch.targets.items()},
    )


def _offsets(lengths: torch.Tensor) -> torch.Tensor:
    return torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))).to(torch.int32)


def assigned(batch: PackedBatch, built: dict, shares: dict[str, float], rng: torch.Tensor, **purpose) -> torch.Tensor:
    """The objective of each sample, as a step draws it."""
    able = objectives.eligible(Facts.of_batch(batch), built)
    return objectives.assign(able, batch.sample_keys, built, shares, rng, **purpose)


def shared_views(batch: PackedBatch, built: dict, shares: dict[str, float], rng: torch.Tensor) -> list[View]:
    """The views of a batch whose samples share all objectives by these shares."""
    chosen = objectives.chosen_by(assigned(batch, built, shares, rng), built)
    return objectives.views_of(batch, built, chosen, rng)
