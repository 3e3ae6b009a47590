"""A network over rows as an emotion model: rows of a batch, standardised, into it, and its answers out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from memofast.data.batch import PackedBatch
from memofast.data.conditions import keep
from memofast.data.modality import FEATURES, MODALITIES
from memofast.data.view import DRAWS, View
from memofast.errors import MemofastError
from memofast.model.columns import Columns
from memofast.model.draws import Draws
from memofast.model.family import Answers, Lesson
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.pre_training import MemoBertModel
from memofast.model.problems import EmotionOutputs
from memofast.model.sequence.configuration import SequenceConfig, SequenceFile
from memofast.model.sequence.network import COMPLETE_TEXT, Shape
from memofast.model.sequence.networks import NETWORKS
from memofast.model.sequence.rows import Rows
from memofast.model.weights import open_whole


class SequenceForEmotion(EmotionOutputs, PreTrainedModel):
    """Logits of emotion classes, or a value, by one of `networks.NETWORKS`."""

    config_class = SequenceConfig
    base_model_prefix = "sequence"

    def __init__(self, config: SequenceConfig):
        super().__init__(config)
        options = config.options()
        self.columns = nn.ModuleDict({entry["of"]: Columns(entry["width"]) for entry in config.inputs})
        widths = {entry["of"]: entry["width"] for entry in config.inputs}
        network = NETWORKS[config.network["kind"]][1]
        if config.text_encoder is not None:
            self.text_encoder = MemoBertModel(MemoBertConfig(**config.text_encoder))
            if not network.pooled:
                self.text_encoder.pooler = None  # nothing would train it
            widths["text"] = self.text_encoder.config.hidden_size
        elif config.embedding is not None:
            self.word_pieces = nn.Embedding(config.vocab_size, config.embedding)
            widths["text"] = config.embedding
        shape = Shape(
            {name: widths[name] for name in MODALITIES if name in widths},
            config.num_labels,
            self.kind,
            config.lengths,
            widths["text"] if config.text_encoder is not None else 0,
        )
        if lacking := [name for name in network.needs if name not in widths]:
            raise ValueError(f"network {config.network['kind']} needs {lacking[0]} rows")
        if network.encodes and not shape.text_encoder:
            raise ValueError(f"network {config.network['kind']} needs a text encoder")
        pieces = config.text_encoder["vocab_size"] if config.text_encoder is not None else config.vocab_size
        if (piece := getattr(options, "unknown_piece", 0)) >= pieces:
            raise MemofastError(
                f"model.network.unknown_piece {piece} is none of the text encoder's {pieces} word pieces; "
                "give its [UNK]"
            )
        self.compat = options.compat
        self.network = network(options, shape)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: what a network and PyTorch begin a part with stays; a text encoder has its own rule."""

    @property
    def reads(self) -> Mapping[str, int]:
        """As `family.Reader.reads`."""
        rows = {entry["name"]: entry["width"] for entry in self.config.inputs}
        if self.config.text_encoder is not None:
            return {"text": self.text_encoder.config.vocab_size, **rows}
        return {"text": self.config.vocab_size, **rows} if self.config.embedding is not None else rows

    @property
    def streams(self) -> Mapping[str, str]:
        """As `family.Reader.streams`."""
        return {entry["name"]: entry["of"] for entry in self.config.inputs if entry["name"] not in FEATURES}

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`; it reads none."""
        return frozenset()

    @property
    def longest(self) -> Mapping[str, int]:
        """As `family.Reader.longest`; rows have no bound, word pieces that of their encoder, and with `compat` what
        samples are padded to."""
        bound = dict(self.text_encoder.longest) if self.config.text_encoder is not None else {}
        return {**bound, **(self.config.lengths if self.compat else {})}

    @property
    def losses(self) -> Mapping[str, float]:
        """Weight of each loss that is learnt by beside that of the answers, by name."""
        return self.network.losses

    def learning_state(self, keys: Tensor) -> nn.Module | None:
        """What it keeps of the training samples, keys [n] int64, over updates; None: nothing."""
        return self.network.learning_state(keys)

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> Tensor:
        """Logits [B, classes]. rng [2] int64: seed and update, needed in training mode.

        Raises: `ValueError` for a view that gives rows other positions, which these networks do not have.
        """
        return self.answer(View.of(seen), rng=rng).outputs

    def answer(self, view: View, *, rng: Tensor | None = None, lesson: Lesson | None = None) -> Answers:
        """All that the network says of a view; with a lesson also the losses that it learns by."""
        if view.positions:
            raise ValueError("the network reads rows in their order; it has no positions that a view could change")
        if self.training and rng is None:
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        draws = Draws(rng if self.training else None, view.keys)
        rows = {name: self._rows(name, view) for name in self.columns}
        if self.config.text_encoder is not None:
            rows = {**self._texts(view, rows, draws, rng, lesson), **rows}
        elif self.config.embedding is not None:
            token_ids = view.batch.token_ids if view.token_ids is None else view.token_ids
            embedded = self.word_pieces(token_ids.to(torch.int64))
            rows = {"text": Rows.packed(embedded, view.batch.text_offsets, self._length("text")), **rows}
        return self.network(rows, draws, lesson)

    def _rows(self, modality: str, view: View) -> Rows:
        entry = next(entry for entry in self.config.inputs if entry["of"] == modality)
        name, batch, columns = entry["name"], view.batch, self.columns[modality]
        if name in FEATURES:
            rows, offsets = batch.rows_of(name), batch.offsets_of(name)
        elif name in batch.streams:
            rows, offsets = batch.streams[name].values, batch.streams[name].offsets
        else:
            raise ValueError(f"the model reads stream {name!r}, which the batch does not carry; pack it with it")
        if rows is None:
            nothing = columns.mean.new_zeros(batch.samples, self._length(modality) or 1, columns.width)
            return Rows(nothing, torch.zeros(batch.samples, dtype=torch.int64, device=nothing.device))
        return Rows.packed(columns.standardised(rows, view.sources.get(name)), offsets, self._length(modality))

    def _texts(
        self, view: View, rows: Mapping[str, Rows], draws: Draws, rng: Tensor | None, lesson: Lesson | None
    ) -> dict[str, Rows]:
        """Text as the network reads it, with a lesson also complete where some of it is unknown."""
        lengths = view.batch.text_offsets.diff().to(torch.int64)
        unknown = None if lesson is None else self.network.unknown(lengths, draws)
        if unknown is None:
            return {"text": self._encoded(view, rows, draws, rng)}
        inside = torch.arange(unknown.shape[1], device=unknown.device) < lengths[:, None]
        token_ids = view.batch.token_ids if view.token_ids is None else view.token_ids
        changed = token_ids.masked_fill(unknown[inside], self.network.options.unknown_piece)
        complete = replace(view, draw=(view.draw + 1) % DRAWS)  # with dropout of its own
        return {
            "text": self._encoded(replace(view, token_ids=changed), rows, draws, rng),
            COMPLETE_TEXT: self._encoded(complete, rows, draws, rng),
        }

    def _encoded(self, view: View, rows: Mapping[str, Rows], draws: Draws, rng: Tensor | None) -> Rows:
        """Hidden states of word pieces; the network may change them between the encoder's embeddings and layers."""
        words = View(keep(view.batch, "l"), view.token_ids, draw=view.draw)
        encoder, offsets = self.text_encoder, words.batch.text_offsets
        hidden = encoder.embeddings(words, rng)
        if self.network.adapts:
            changed = self.network.adapted(Rows.packed(hidden, offsets), rows, draws)
            hidden = changed.values[changed.inside]
        hidden = encoder.encoder(hidden, words, rng)
        if self.network.pooled:
            pooled = encoder.pooled(hidden[offsets[:-1].to(torch.int64)])
            return Rows(pooled[:, None], torch.ones_like(words.keys))
        return Rows.packed(hidden, offsets, self._length("text"))

    def _length(self, modality: str) -> int | None:
        return self.config.lengths[modality] if self.compat else None


def open_sequence_model(folder: Path) -> SequenceForEmotion:
    """A trained model in evaluation mode from its folder. Raises: as `open_whole`."""
    return open_whole(folder, SequenceForEmotion, SequenceFile)


AutoConfig.register(SequenceConfig.model_type, SequenceConfig)
AutoModel.register(SequenceConfig, SequenceForEmotion)
