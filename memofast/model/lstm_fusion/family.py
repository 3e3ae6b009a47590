"""LSTM fusion as the rest of the package knows it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from memofast.data import Corpus, Split
from memofast.data.feature_statistics import feature_statistics
from memofast.data.modality import FEATURES
from memofast.errors import MemofastError, nearest
from memofast.model.bounds import check_memory
from memofast.model.family import Family
from memofast.model.lstm_fusion.configuration import LstmFusionConfig
from memofast.model.lstm_fusion.emotion import LstmFusionForEmotion, open_lstm_fusion
from memofast.model.lstm_fusion.section import LstmFusionSection
from memofast.model.problems import PROBLEMS
from memofast.sections import Section


def start(
    section: LstmFusionSection, kind: str, classes: Sequence[str], train: Split | None, prompt: Section | None = None
) -> LstmFusionForEmotion:
    """A model with random weights for the rows of a corpus, see `family.Start`.

    Raises: `MemofastError` for a prompt, without a corpus, and for an input that the corpus does not have.
    """
    if prompt is not None:
        raise MemofastError(
            "model.family lstm_fusion reads no word pieces, so that it has no prompts; leave prompt out"
        )
    if train is None:
        raise MemofastError(
            "model.family lstm_fusion reads feature rows, of which text alone has none; choose memobert"
        )
    named = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
    inputs, size = _inputs(section.inputs, train.corpus), section.hidden_size
    further = (section.num_hidden_layers - 1) * 2 * size
    check_memory(sum(8 * size * (size + entry["width"] + further) for entry in inputs))
    model = LstmFusionForEmotion(
        LstmFusionConfig(
            inputs=inputs, hidden_size=section.hidden_size,
            num_hidden_layers=section.num_hidden_layers, hidden_dropout_prob=section.hidden_dropout_prob,
            problem_type=PROBLEMS[kind], **named,
        )
    )  # fmt: skip
    for name, lstm in model.inputs.items():
        if (found := feature_statistics(train, name)) is not None:
            lstm.standardise(*found)
    return model


def _inputs(names: Sequence[str] | None, corpus: Corpus) -> list[dict]:
    known = {name: name for name in FEATURES if name in corpus.stores}
    known |= {name: modality for name, (_, modality) in corpus.streams.items()}
    if names is None and not known:
        raise MemofastError(f"corpus {corpus.path} has neither feature rows nor streams; choose model.family memobert")
    for name in names or ():
        if name not in known:
            raise MemofastError(f"model.inputs: corpus {corpus.path} has no rows {name!r}{nearest(name, known)}")
    for name in names or known:
        if "." in name or hasattr(nn.ModuleDict, name):
            raise MemofastError(
                f"corpus {corpus.path} names rows {name!r}, which no model can call a part of its own; rename them in "
                "its corpus.json, or name others in model.inputs"
            )
    if raw := [name for name in names or known if name in corpus.raw]:
        raise MemofastError(
            f"corpus {corpus.path} keeps {raw[0]} as raw rows, of which model.family lstm_fusion makes no features; "
            "name other rows in model.inputs, or choose memobert with model.face"
        )
    return [{"name": name, "width": corpus.width(name), "of": known[name]} for name in names or known]


LSTM_FUSION = Family(
    name=LstmFusionConfig.model_type,
    section=LstmFusionSection,
    start=start,
    open=open_lstm_fusion,
    capturable=lambda model, precision, device: False,  # its lengths are read on the host
)
