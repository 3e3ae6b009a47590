"""Corpora that carry rows of several extractors: which of them are read as a modality's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from memofast.data.corpus import Corpus
from memofast.data.modality import FEATURES, MODALITIES
from memofast.errors import MemofastError


def reading(corpus: Corpus, features: Mapping[str, str]) -> Corpus:
    """The same corpus, whose faces or speech are the rows of a stream that was made of them.

    Args: features: modality -> stream.
    Raises: `MemofastError` where the corpus has no such stream of that modality.
    """
    for modality, name in features.items():
        own = [stream for stream, (_, of) in corpus.streams.items() if of == modality]
        if modality not in FEATURES or name not in own:
            raise MemofastError(
                f"corpus {corpus.path} has no stream {name!r} of {modality}; "
                f"it has {', '.join(own) or 'none'}: list a feature store under streams in its corpus.json, or leave "
                f"features.{modality} out for the rows of its {modality} store"
            )
    stores = corpus.stores | {modality: corpus.streams[name][0] for modality, name in features.items()}
    return replace(corpus, stores={modality: stores[modality] for modality in MODALITIES if modality in stores})


def parse_features(given: Iterable[str]) -> dict[str, str]:
    """`MODALITY=STREAM` of a command line, as `reading` takes it. Raises: `MemofastError` for anything else."""
    found: dict[str, str] = {}
    for one in given:
        modality, equals, name = one.partition("=")
        if not equals or not name or modality not in FEATURES or modality in found:
            raise MemofastError(f"--features {one!r} is not MODALITY=STREAM, as speech=compare, each modality once")
        found[modality] = name
    return found
