"""Networks over rows as the rest of the package knows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from memofast.data import Corpus, Split
from memofast.data.feature_statistics import feature_statistics
from memofast.data.modality import FEATURES, MODALITIES
from memofast.errors import MemofastError, nearest
from memofast.model.bounds import check_memory
from memofast.model.compatibility import has_words
from memofast.model.family import Family
from memofast.model.memobert.pre_training import MemoBertModel
from memofast.model.problems import PROBLEMS
from memofast.model.sequence.configuration import SequenceConfig
from memofast.model.sequence.emotion import SequenceForEmotion, open_sequence_model
from memofast.model.sequence.networks import NETWORKS
from memofast.model.sequence.section import SequenceSection
from memofast.sections import Section


def start(
    section: SequenceSection, kind: str, classes: Sequence[str], train: Split | None, prompt: Section | None = None
) -> SequenceForEmotion:
    """A network with random weights for the rows of a corpus, see `family.Start`.

    Raises: `MemofastError` for a prompt, without a corpus, and for an input that the corpus does not have.
    """
    if prompt is not None:
        raise MemofastError("model.family sequence has no prompts; leave prompt out")
    if train is None:
        raise MemofastError("model.family sequence reads feature rows, of which text alone has none; choose memobert")
    corpus, encoder, network = train.corpus, None, NETWORKS[section.network.kind][1]
    if network.encodes and not section.init:
        raise MemofastError(
            f"model.network {section.network.kind} reads word pieces through a BERT; give its folder as model.init"
        )
    if section.init:
        encoder = MemoBertModel.from_bert(section.init, visual_width=0, speech_width=0)
    words = encoder is not None or section.embedding is not None
    if words and not has_words(corpus):
        raise MemofastError(
            f"corpus {corpus.path} has no words, which model.{'init' if encoder else 'embedding'} reads; import it "
            "with its sentences, or leave that out"
        )
    inputs = _inputs(section, corpus, words)
    read = {entry["of"] for entry in inputs} | ({"text"} if words else set())
    if lacking := [modality for modality in network.needs if modality not in read]:
        raise MemofastError(
            f"model.network {section.network.kind} needs {lacking[0]} rows, which corpus {corpus.path} does not have "
            "or model.inputs does not name"
        )
    if network.learns_of_modalities and not any(f"value_{modality}" in corpus.targets for modality in read):
        raise MemofastError(
            f"model.network {section.network.kind} learns from labels of single modalities, which corpus {corpus.path} "
            "does not have; import one of SIMS, or choose a network without them"
        )
    config = SequenceConfig(
        network=section.network.plain(),
        inputs=inputs,
        lengths=_lengths(corpus, read, inputs) if section.network.compat or network.sized else {},
        text_encoder=encoder.config.to_dict() if encoder is not None else None,
        embedding=section.embedding,
        vocab_size=section.vocab_size,
        problem_type=PROBLEMS[kind],
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    with torch.device("meta"):
        check_memory(sum(weight.numel() for weight in SequenceForEmotion(config).parameters()))
    model = SequenceForEmotion(config)
    if encoder is not None:
        if not network.pooled:
            encoder.pooler = None
        model.text_encoder.load_state_dict(encoder.state_dict())
    if section.standardise == "training":
        _standardise(model, train)
    return model


def _standardise(model: SequenceForEmotion, train: Split) -> None:
    for entry in model.config.inputs:
        if (found := feature_statistics(train, entry["name"])) is not None:
            model.columns[entry["of"]].standardise(*found)
    model.config.standardised_on = f"{len(train):,} samples of {train.name} of corpus {train.corpus.name}"


def _inputs(section: SequenceSection, corpus: Corpus, words: bool) -> list[dict]:
    known = {name: name for name in FEATURES if name in corpus.stores}
    known |= {name: modality for name, (_, modality) in corpus.streams.items()}
    names = section.inputs or _of_corpus(corpus, words)
    if not names and not words:
        raise MemofastError(f"corpus {corpus.path} has neither feature rows nor streams; choose model.family memobert")
    found = []
    for modality in (one for one in MODALITIES if one in names):
        name = names[modality]
        if name not in known:
            raise MemofastError(
                f"model.inputs.{modality}: corpus {corpus.path} has no rows {name!r}{nearest(name, known)}"
            )
        if known[name] != modality:
            raise MemofastError(f"model.inputs.{modality}: {name!r} of corpus {corpus.path} is made of {known[name]}")
        if "." in name or hasattr(nn.ModuleDict, name):
            raise MemofastError(
                f"corpus {corpus.path} names rows {name!r}, which no model can call a part of its own; rename them in "
                "its corpus.json, or name others in model.inputs"
            )
        if name in corpus.raw:
            raise MemofastError(
                f"corpus {corpus.path} keeps {name} as raw rows, of which model.family sequence makes no features; "
                "name other rows in model.inputs"
            )
        found.append({"name": name, "width": corpus.width(name), "of": modality})
    return found


def _of_corpus(corpus: Corpus, words: bool) -> dict[str, str]:
    names = {name: name for name in FEATURES if name in corpus.stores}
    of_text = [name for name, (_, modality) in corpus.streams.items() if modality == "text"]
    if words or not of_text:
        return names
    if len(of_text) > 1:
        raise MemofastError(
            f"corpus {corpus.path} has several rows of text: {', '.join(of_text)}; name one in model.inputs.text"
        )
    return {"text": of_text[0], **names}


def _lengths(corpus: Corpus, read: Iterable[str], inputs: Sequence[dict]) -> dict[str, int]:
    """Rows of the longest sample of a corpus by modality, to which an original pads all."""
    return {modality: _longest(corpus, modality, inputs) for modality in read}


def _longest(corpus: Corpus, modality: str, inputs: Sequence[dict]) -> int:
    name = next((entry["name"] for entry in inputs if entry["of"] == modality), "text")
    store = corpus.streams[name][0] if name in corpus.streams else corpus.stores[name]
    return max(1, int(store.lengths.max()))


SEQUENCE = Family(
    name=SequenceConfig.model_type,
    section=SequenceSection,
    start=start,
    open=open_sequence_model,
    capturable=lambda model, precision, device: False,  # its lengths are read on the host
)
