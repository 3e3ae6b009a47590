"""Whole models as transformers classes: the encoder, and the encoder with its pre-training heads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from memofast.data.batch import PackedBatch
from memofast.data.modality import FEATURES
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model.adapters.kept import Adaptation, save_adapted
from memofast.model.face_networks.frozen_norm import FrozenNorm
from memofast.model.folder import in_one_line, load_whole
from memofast.model.memobert import conversion, original
from memofast.model.memobert.configuration import MemoBertConfig
from memofast.model.memobert.embeddings import FeatureEmbeddings, MemoBertEmbeddings, SinusoidPositions
from memofast.model.memobert.encoder import MemoBertEncoder, ReadRows
from memofast.model.memobert.folder_config import read_config
from memofast.model.memobert.heads import PreTrainingHeads, TiedHead, WordHead
from memofast.model.weights import check_stored

if TYPE_CHECKING:
    from typing import Self

_OF_POOLED = ("pooled", "pooled_classes")  # heads that read a sample's pooled row
_OF_FACE_NETWORK = r"(memobert\.)?embeddings\.visual\.network\."


@dataclass
class MemoBertOutput(ModelOutput):
    """hidden [N, C]: packed hidden rows, zero past the last offset. pooled [B, C]: tanh(W h + b) of each sample's [CLS]
    row."""

    hidden: Tensor | None = None
    pooled: Tensor | None = None


class MemoBertPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation that all MemoBert models share. Nothing is fetched from a hub unless asked."""

    config_class = MemoBertConfig
    base_model_prefix = "memobert"
    # what operators read in fp32, whatever the rest of a model is loaded in
    _keep_in_fp32_modules_strict = (r"embeddings\.norm", r"projection_norm", r"(visual|speech)\.norm", r"\w+_norm")
    # what a training from another model's encoder adds
    _may_begin_anew = r"(heads|emotion|(memobert\.)?embeddings\.tables)\."
    _keys_to_ignore_on_load_unexpected = (r"embeddings\.tables\.",)  # which only some objectives read
    given: frozenset[str] = frozenset()  # names of parameters that a training takes from a checkpoint as they are
    adapted: Adaptation | None = None

    @property
    def reads(self) -> Mapping[str, int]:
        """As `family.Reader.reads`."""
        return self.config.reads

    @property
    def streams(self) -> Mapping[str, str]:
        """As `family.Reader.streams`; it reads none."""
        return {}

    @property
    def raw(self) -> frozenset[str]:
        """As `family.Reader.raw`."""
        return self.config.raw

    @property
    def longest(self) -> Mapping[str, int]:
        """As `family.Reader.longest`."""
        return self.config.longest

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)
            return
        if isinstance(module, FrozenNorm):
            for tensor, fill in zip((*module.parameters(), *module.buffers()), (1.0, 0.0, 0.0, 1.0), strict=True):
                init.constant_(tensor, fill)
            return
        super()._init_weights(module)
        if isinstance(module, FeatureEmbeddings):
            init.normal_(module.mask, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, TiedHead):
            init.zeros_(module.bias)
        elif isinstance(module, SinusoidPositions):
            module.compute()

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike | None, *arguments, **options) -> Self:
        """Load a checkpoint folder that `save_pretrained` wrote.

        A hub name needs `local_files_only=False`. dtype: of the weights but for the norms, which stay fp32; None: as
        they are stored, or fp32 where that is fp16 and there is no GPU. Raises `MemofastError` where the folder is
        missing or holds another architecture, or its weights are not those of its configuration.
        """
        local = path is not None and options.setdefault("local_files_only", True)
        if local:
            stored = cls._stored_config(Path(path))
            older = options.pop("torch_dtype", None)
            if (dtype := _computed_type(Path(path), stored, options.pop("dtype", older))) is not None:
                options["dtype"] = dtype
        told = options.pop("output_loading_info", False)
        options.pop("trust_remote_code", None)  # never; see load_whole
        anew = cls._may_begin_anew
        if path is not None and Path(path).is_dir() and not cls.read_config(Path(path)).get("face"):
            anew += "|" + _OF_FACE_NETWORK  # as of a model of feature rows that is trained on with a network
        if local:
            cls.check_weights(Path(path), options.get("config"), anew)
        model, found = load_whole(partial(super().from_pretrained, path, *arguments, **options), str(path), anew)
        return (model, found) if told else model

    @classmethod
    def read_config(cls, folder: Path) -> dict[str, Any]:
        """The `config.json` of a BERT or a model of this family. Raises: as `folder_config.read_config`."""
        return read_config(folder)

    @classmethod
    def _stored_config(cls, folder: Path) -> dict[str, Any]:
        """That of a model of this family. Raises: `MemofastError` where the folder holds none."""
        if not folder.is_dir():
            raise MemofastError(f"{folder}: no such checkpoint folder; give the folder that holds config.json")
        if not (found := cls.read_config(folder)):
            raise MemofastError(f"{folder}: no config.json; give the folder that save_pretrained wrote")
        if (kind := found.get("model_type")) != (own := cls.config_class.model_type):
            remedy = "; start from it with from_bert" if kind == "bert" else "; give a memofast checkpoint"
            raise MemofastError(f"{folder}: holds a {kind!r} model, not {own!r}{remedy}")
        return found

    @classmethod
    def check_weights(cls, folder: Path, config: MemoBertConfig | None = None, anew: str = "") -> None:
        """Raises: `MemofastError`, before memory is taken for them, where the weights are not the configuration's.
        anew: pattern of those that may be missing; empty: any."""
        if config is None:
            open_config = cls.config_class.from_pretrained
            config = in_one_line(folder, lambda: open_config(folder, local_files_only=True, trust_remote_code=False))
        with torch.device("meta"):
            model = in_one_line(folder, lambda: cls(config))
        wanted = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
        check_stored(folder, wanted, "memobert.", r"(heads|emotion|embeddings\.tables)\.", anew)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *arguments, **options) -> nn.Embedding:
        """Change the number of word pieces, of the table and of what the word head adds to each; see transformers.

        Raises: `MemofastError` where [MASK] or a word of the prompt would be none of them.
        """
        words, prompt = self.config.vocab_size, getattr(self.config, "prompt", None) or {}
        needed = [self.config.mask_token_id, *prompt.get("words", ()), *prompt.get("template", ())]
        lost = [piece for piece in needed if new_num_tokens is not None and new_num_tokens <= piece < words]
        if lost:
            raise MemofastError(
                f"a vocabulary of {new_num_tokens} word pieces lacks {max(lost)}, which is [MASK] or of the prompt; "
                "keep more, or set config.mask_token_id first"
            )
        table = super().resize_token_embeddings(new_num_tokens, *arguments, **options)
        for module in self.modules():
            if isinstance(module, WordHead):
                module.resize(table.num_embeddings)
        return table

    @classmethod
    def from_bert(cls, path: str | os.PathLike, **overrides) -> Self:
        """Start from a local BERT checkpoint folder; face and speech parts keep their random initialisation.

        Args: path: folder of a transformers BERT checkpoint (any head); overrides: configuration entries, such as
            `visual_width`.
        Raises `MemofastError` where the folder holds no BERT checkpoint.
        """
        return cls._from_foreign(conversion.read_bert(Path(path)), overrides, str(path))

    @classmethod
    def from_original(cls, path: str | os.PathLike, **overrides) -> Self:
        """Start from a state dict of the original MEmoBERT (`model_step_N.pt`); sizes come from its shapes, the number
        of attention heads from what lies beside it.

        Raises `MemofastError` where the file is no such state dict.
        """
        checkpoint, found = original.read_original(Path(path), overrides.get("num_attention_heads"))
        overrides = {"heads": found.heads, "tables": found.tables} | overrides
        return cls._from_foreign(_without_emotion(checkpoint), overrides, str(path))

    @classmethod
    def from_foreign(cls, path: str | os.PathLike, **overrides) -> Self | None:
        """Start from a file, see `from_original`, or the folder of a BERT, see `from_bert`; None: it is neither."""
        if Path(path).is_file():
            return cls.from_original(path, **overrides)
        return cls.from_bert(path, **overrides) if is_bert(path) else None

    @classmethod
    def _from_foreign(cls, checkpoint: conversion.Checkpoint, overrides: dict, origin: str) -> Self:
        config = cls.config_class(**{**checkpoint.sizes, **overrides})
        with torch.device("meta"):
            conversion.check_shapes(cls(config), checkpoint, origin)  # before memory is taken
        model = cls(config)
        model.given = conversion.load(model, checkpoint, origin)
        return model.eval()

    def begin_with(self, encoder: MemoBertModel) -> None:
        """Take over the weights of a checkpoint's encoder, as far as this model has them: a modality may be left
        out."""
        own, taken = self.state_dict(), encoder.state_dict()
        self.memobert.load_state_dict(taken, strict=False)
        self.given = frozenset(f"memobert.{name}" for name in taken) & own.keys()

    def save_pretrained(self, save_directory: str | os.PathLike, *arguments, **options) -> None:
        """Write configuration and weights into a folder; of an adapted model the adapters and what is trained as a
        whole alone, in the type that its recipe says. See transformers."""
        if self.adapted is None:
            super().save_pretrained(save_directory, *arguments, **options)
        else:
            save_adapted(self, Path(save_directory), self.adapted.dtype)


class MemoBertModel(MemoBertPreTrainedModel):
    """Embeddings, encoder and pooler over a packed batch."""

    # heads of the model that a checkpoint is of, and tables
    _keys_to_ignore_on_load_unexpected = (r"^heads\.", r"^emotion\.", r"embeddings\.tables\.")
    embeddings_class = MemoBertEmbeddings

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        self.embeddings = self.embeddings_class(config)
        self.encoder = MemoBertEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word = value

    def forward(self, seen: View | PackedBatch, *, rng: Tensor | None = None) -> MemoBertOutput:
        """Encode a batch, or what a view shows of one.

        Args: rng: [2] int64, run seed and update number; needed in training mode with dropout.
        """
        view = View.of(seen)
        hidden = self.encode(view, rng)
        return MemoBertOutput(hidden=hidden, pooled=self.pooled(hidden[first_rows(view.batch)]))

    def encode(self, view: View, rng: Tensor | None = None, read: ReadRows | None = None) -> Tensor:
        """`forward` without the pooler; raw rows may have been perceived before. Returns: [N, C]; with `read` [n, C],
        the rows read."""
        if (
            rng is None
            and self.training
            and (self.config.hidden_dropout_prob or self.config.attention_probs_dropout_prob)
        ):
            raise ValueError(
                "a model in training mode needs rng [2] int64 (seed, step) for its dropout; or call eval()"
            )
        return self.encoder(self.embeddings(view, rng), view, rng, read)

    def pooled(self, hidden: Tensor) -> Tensor:
        """tanh(W h + b) of samples' first rows [n, C]."""
        return torch.tanh(self.pooler(hidden))

    def freeze(self, layers: int | None) -> None:
        """Take the embeddings and the lowest `layers` layers out of training; with None everything, with 0 nothing.

        Raises `MemofastError` for more layers than there are.
        """
        if layers is not None and not 0 <= layers <= len(self.encoder.layers):
            raise MemofastError(f"{layers} layers cannot be frozen, the model has {len(self.encoder.layers)}")
        if layers == 0:
            return
        for module in [self] if layers is None else [self.embeddings, *self.encoder.layers[:layers]]:
            module.requires_grad_(False)


class MemoBertForPreTraining(MemoBertPreTrainedModel):
    """The encoder with the heads of masked modelling; a head runs on its target rows only."""

    encoder_class = MemoBertModel

    def __init__(self, config: MemoBertConfig):
        super().__init__(config)
        self.memobert = self.encoder_class(config)
        self.heads = PreTrainingHeads(config)
        self.post_init()

    def forward(self, view: View, *, rng: Tensor | None = None) -> dict[str, Tensor]:
        """Predictions where a view is read.

        Args: view: its reads name heads (see `MemoBertConfig.every_head`) and rows of the joint sequence; rng: as in
            `MemoBertModel.forward`.
        Returns: per objective [n, outputs of its head]: logits over words, classes or emotions, features in their true
            width, or pooled rows.

        Every parameter takes part in the graph, so that those a batch does not use get zero gradients (as DDP needs).
        """
        reads = view.reads
        read = ReadRows.of(view.batch, [read.rows for read in reads.values()]) if reads else None
        hidden = self.memobert.encode(view, rng, read)
        idle = self._no_part_of(view) if torch.is_grad_enabled() else None
        if idle is not None and reads:
            hidden = hidden + idle.to(hidden.dtype)
        parts = hidden.split([read.rows.shape[0] for read in reads.values()]) if reads else ()
        of_head: dict[str, dict[str, Tensor]] = {}
        for (name, read), selected in zip(reads.items(), parts, strict=True):
            of_head.setdefault(read.head, {})[name] = selected
        found = {}
        for head, own in of_head.items():  # once each, as the product with all words costs as much for a few rows
            lengths = [selected.shape[0] for selected in own.values()]
            selected = torch.cat(list(own.values())) if len(own) > 1 else next(iter(own.values()))
            found |= zip(own, self._predict(head, selected).split(lengths), strict=True)
        return {name: found[name] for name in reads}

    def perceived(self, views: Sequence[View], rng: Tensor | None = None) -> list[View]:
        """The views with feature rows in place of raw ones, as `forward` makes them too where nobody did before."""
        return self.memobert.embeddings.perceived(views, rng)

    def _predict(self, head: str, hidden: Tensor) -> Tensor:
        kind, embeddings = self.heads.kinds[head], self.memobert.embeddings
        if kind.kind == "hidden":
            return hidden
        if kind.kind in _OF_POOLED:
            pooled = self.memobert.pooled(hidden)
            return getattr(self.heads, head)(pooled) if kind.outputs else pooled
        module = getattr(self.heads, head)
        if kind.kind == "words":
            return module(hidden, embeddings.word.weight)
        if kind.kind == "table":
            return module(hidden, embeddings.tables[head].weight)
        if kind.kind == "rows":
            return module(hidden, getattr(embeddings, kind.modality).projection.weight.T)
        return module(hidden)

    def _no_part_of(self, view: View) -> Tensor:
        """A zero that depends on every parameter this pass does not read."""
        used = {read.head for read in view.reads.values()}
        pools = any(self.heads.kinds[name].kind in _OF_POOLED for name in used)
        parameters = [] if pools else list(self.memobert.pooler.parameters())
        for name, head in self.heads.named_children():
            if name not in used:
                parameters += list(head.parameters())  # a compiler of torch 2.11 adds no generator to a list
        for name, table in self.memobert.embeddings.tables.items():
            if name not in view.tables:
                parameters += list(table.parameters())
        for modality in FEATURES:
            embeddings = getattr(self.memobert.embeddings, modality)
            if embeddings is not None and view.batch.rows_of(modality) is None:
                parameters += list(embeddings.parameters())
            elif embeddings is not None and modality not in view.sources:
                parameters.append(embeddings.mask)
        if not parameters:
            return torch.zeros((), device=self.memobert.pooler.weight.device)
        return sum(parameter.flatten()[:0].sum() for parameter in parameters)


def first_rows(batch: PackedBatch) -> Tensor:
    """Rows [B] int64 of the joint sequence that hold the samples' [CLS]."""
    return batch.offsets[:-1].to(torch.int64).clamp(max=max(batch.rows - 1, 0))


def is_bert(path: str | os.PathLike) -> bool:
    """Whether the folder holds a BERT checkpoint of transformers. Raises: as `read_config`."""
    return read_config(Path(path)).get("model_type") == "bert"


def _without_emotion(checkpoint: conversion.Checkpoint) -> conversion.Checkpoint:
    """Without the classifier of a fine-tuned model, which a training begins anew."""
    left = [name for ours, name in checkpoint.names.items() if ours.startswith("emotion.")]
    weights, names = (
        {ours: value for ours, value in of.items() if not ours.startswith("emotion.")}
        for of in (checkpoint.weights, checkpoint.names)
    )
    return replace(checkpoint, weights=weights, names=names, left=sorted([*checkpoint.left, *left]))


def _computed_type(folder: Path, stored: Mapping[str, Any], asked: Any) -> Any:
    """The dtype to load in. Raises: `MemofastError` for fp16 where there is only a CPU, which does not compute in
    it."""
    if torch.cuda.is_available():
        return asked
    if asked in (None, "auto"):
        return torch.float32 if (stored.get("dtype") or stored.get("torch_dtype")) == "float16" else asked
    if str(asked).removeprefix("torch.") == "float16":
        raise MemofastError(
            f"{folder}: no operator of a CPU computes in float16; load it with dtype=torch.bfloat16 or torch.float32"
        )
    return asked


AutoConfig.register(MemoBertConfig.model_type, MemoBertConfig)
AutoModel.register(MemoBertConfig, MemoBertModel)
AutoModelForPreTraining.register(MemoBertConfig, MemoBertForPreTraining)
