"""Pseudo labels: the emotions a text model reads out of every sentence of a corpus, kept in its text store.

The labelled store is written beside the old one, which stays as it was, and `corpus.json` then names it instead: a kill
at any moment leaves the corpus as before, and the next run goes on. Batches are the same in every run, so that the
digests are too. Source: MEmoBERT, whose labeller ran sentence by sentence.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memofast.data import Corpus, Split
from memofast.data.corpus import replace_store
from memofast.devices import choose_device
from memofast.errors import MemofastError
from memofast.files import remove
from memofast.inference.loop import ROWS, run_over
from memofast.model.families import open_emotion_model
from memofast.model.family import EmotionModel
from memofast.model.folder import model_folder
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store import TextStore, TextWriter, environments
from memofast.store.text_copy import fields_of, writer_like

_NAME = "text-emotions-"
_NO_WORDS = 2  # rows: [CLS], [SEP]


@dataclass(frozen=True)
class LabelCounts:
    """labelled: sentences with emotions. without_words, too_long: those without; too long is more than the model has
    positions for."""

    labelled: int
    without_words: int
    too_long: int


def pseudo_label(path: Path, model: Path, console: Console, *, rows: int = ROWS, device: str = "auto") -> LabelCounts:
    """Write emotions for every sentence of the corpus at `path`.

    Args: model: folder of an emotion model or of the run that made it. rows: most rows of a batch. device: `auto`,
        `cpu` or `cuda`.
    Raises: `MemofastError` for a corpus without words, a model without emotion head, one with another vocabulary,
        emotions that are not finite, and a disk that is full.
    """
    corpus, labeller = Corpus.open(path), _Labeller(model, device)
    text = corpus.stores["text"]
    split, counts = _sentences(corpus, labeller.model.longest.get("text"))
    labeller.check_vocabulary(text)
    folder = path / labeller.store_name(text)
    if folder.resolve() == text.path.resolve():
        console.print(f"{path} holds the labels of this model already")
        _remove_others(folder)  # of a run that was killed then
        return counts
    with labeller.writer(folder, text) as writer:
        _label(split, labeller.model, writer, rows, console)
        for id in text.ids:
            if not writer.done(id):
                _copy(text, id, writer, None)
    facts = {"labeller": labeller.about, **vars(counts)}
    replace_store(path, "text", folder, {"pseudo_labels": facts})
    _remove_others(folder)
    return counts


class _Labeller:
    def __init__(self, folder: Path, device: str):
        chosen = choose_device(device)
        self.model = open_emotion_model(folder)
        self.model.to(chosen)
        if self.model.context is not None:
            raise MemofastError(
                f"{folder} reads utterances in their dialogues, pseudo labels are of sentences; give a model of those"
            )
        self.folder = model_folder(folder)
        digest = hashlib.blake2b(" ".join(self.model.outputs).encode(), digest_size=16)
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
        self.fingerprint = digest.hexdigest()
        self.about = {"name": folder.resolve().name, "fingerprint": self.fingerprint}

    def check_vocabulary(self, text: TextStore) -> None:
        own = WordPieces(self.folder).fingerprint
        if text.meta.get("fingerprint") != own:
            raise MemofastError(
                f"store {text.path} was made with another vocabulary than the model's; "
                f"prepare the corpus with --vocab {self.folder}"
            )

    def store_name(self, text: TextStore) -> str:
        """Another one for every model and every text, so that labels never outlive the sentences they were made for."""
        return _NAME + hashlib.blake2b((self.fingerprint + _origin(text)).encode(), digest_size=4).hexdigest()

    def writer(self, folder: Path, text: TextStore) -> TextWriter:
        """A writer of what the text store holds, and emotions."""
        labeller = self.about | {"labelled_store": _origin(text)}
        return writer_like(text, folder, emotions=self.model.outputs, labeller=labeller)


def _origin(text: TextStore) -> str:
    """Digest of the store without emotions, also where this one has them."""
    return text.meta.get("labeller", {}).get("labelled_store") or text.meta["digest"]


def _sentences(corpus: Corpus, longest: int | None) -> tuple[Split, LabelCounts]:
    """Everything that can be labelled as one split of text alone."""
    text = corpus.stores["text"]
    words, fits = text.lengths > _NO_WORDS, text.lengths <= (np.inf if longest is None else longest)
    chosen = np.flatnonzero(words & fits)
    if not len(chosen):
        raise MemofastError(f"corpus {corpus.path} has no text to label; prepare it with subtitles or a text column")
    counts = LabelCounts(len(chosen), int((~words).sum()), int((words & ~fits).sum()))
    alone = replace(corpus, stores={"text": text})
    return Split.of_ids(alone, "all", [text.ids[place] for place in chosen]), counts


def _label(split: Split, model: EmotionModel, writer: TextWriter, rows: int, console: Console) -> None:
    text, device, begun, labelled = split.corpus.stores["text"], next(model.parameters()).device, time.monotonic(), 0
    with _progress(console) as progress:
        bar = progress.add_task("labelling", total=sum(not writer.done(id) for id in split.ids), rate="")
        for results in run_over(
            split, lambda batch: {"emotions": model.probabilities(batch)}, device, "emotions",
            f" of corpus {split.corpus.path}", rows=rows,
            skip=lambda indices: all(writer.done(split.ids[index]) for index in indices),
        ):  # fmt: skip
            for index, emotions in zip(results.indices, results.found["emotions"], strict=True):
                if not writer.done(id := split.ids[index]):
                    _copy(text, id, writer, emotions)
                    progress.advance(bar)
                    labelled += 1
            rate = f"{labelled / (time.monotonic() - begun):.0f} sentences/s"
            progress.update(bar, rate=rate)
    if labelled:
        console.print(f"labelled {labelled:,} sentences, {rate}")


def _copy(text: TextStore, id: str, writer: TextWriter, emotions: np.ndarray | None) -> None:
    writer.put(id, **{**fields_of(text, id), "emotions": emotions})


def _remove_others(labelled: Path) -> None:
    """Labels of earlier models and texts go; the store that the preparation wrote stays, so that it can be prepared
    further."""
    for folder in labelled.parent.glob(f"{_NAME}*"):
        if folder != labelled:
            environments.close(folder)
            remove(folder)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
