"""A text emotion model from text corpora: merge, fine-tune, evaluate, keep."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from memofast.cpu import limit_compiled_products
from memofast.data import Corpus, Split, Stream
from memofast.data.emotion_labels import target_classes
from memofast.devices import device_of_rank
from memofast.errors import MemofastError
from memofast.files import write_json, writing
from memofast.inference.split_predictions import label_space_of, predict_split, truth_of
from memofast.locks import entries
from memofast.metrics.class_scores import class_scores, print_scores
from memofast.model.families import FAMILIES
from memofast.model.family import EmotionModel
from memofast.model.folder import model_folder, model_type
from memofast.prepare.run.report import print_text_log
from memofast.prepare.sources.splits import TRAIN
from memofast.prepare.text.text_log import TextLog
from memofast.prepare.text.word_pieces import WordPieces, copy_vocabulary
from memofast.schemas import Schema, read_described
from memofast.text_emotion.merged_text import EVALUATED, LONGEST_TEXT, VALIDATION, MergeCounts, TextSource, merge
from memofast.train import device_faults
from memofast.train.checkpoints import remove_checkpoints
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.folder import TEXT_REPORT, TEXT_SETTINGS
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


@dataclass(frozen=True)
class EmotionTextRun:
    """What is trained on what. init: BERT or memofast folder; vocab: its vocabulary, None where it lies in `init`."""

    sources: Sequence[TextSource]
    evaluated: Sequence[TextSource]
    init: Path
    out: Path
    vocab: Path | None = None
    target: str = "ekman"
    validation: float = 0.1
    validate_on: str | None = None
    tuning: Tuning = field(default_factory=lambda: Tuning(metric="weighted_f1"))
    seed: int = 0


def train_emotion_text(run: EmotionTextRun, console: Console) -> dict[str, Any]:
    """Train, or go on where an interrupted training stopped, and write `out/model`; what is finished stays as it is.
    Returns: the report, also in `out/report.json`.

    Raises: `MemofastError` for bad input, or where `out` was begun with other options.
    """
    classes = target_classes(run.target)
    model_type(init := model_folder(run.init))  # which says what is missing in that folder
    pieces = WordPieces(run.vocab or init)
    torch.manual_seed(run.seed)
    family = FAMILIES["memobert"]
    text_alone = family.section(init=str(init), head="emocls", visual_width=0, speech_width=0)
    model = family.start(text_alone, "single", classes, None)
    if pieces.size > (known := model.reads["text"]):
        raise MemofastError(f"the vocabulary has {pieces.size} pieces, {run.init} knows {known}; give its own --vocab")
    _check_settings(run)
    if (run.out / TEXT_REPORT).is_file():
        kept = read_described(run.out / TEXT_REPORT, Schema, "the report of a training", "remove it and run again")
        remove_checkpoints(run.out)
        console.print(f"{run.out} is finished: its model is {run.out / 'model'}")
        return kept
    logging.disable_progress_bar()  # of saving, which is quick
    with TextLog() as text_log:
        corpus, counts = merge(
            run.sources, run.evaluated, run.target, pieces, run.out / "corpus",
            validation=run.validation, validate_on=run.validate_on,
        )  # fmt: skip
    _print_counts(counts, console)
    print_text_log(text_log.as_json(), console)
    validation = corpus.split(VALIDATION)
    limit_compiled_products()
    task = FineTuning(model, [Stream(corpus.split(TRAIN))], validation, run.tuning, run.seed)
    with device_faults.explained(run.out, device_of_rank(run.tuning.device)):
        trainer = Trainer(task, run.out, Processes(), "run the same command again to go on")
    console.print(
        f"{run.tuning.epochs} epochs of {task.per_epoch:,} updates, {trainer.precision} on {trainer.device.type}, "
        f"best by {run.tuning.metric} on validation"
    )
    with device_faults.explained(run.out, trainer.device, trainer.state):
        state = trainer.run()
        trainer.keep_best()
    _save(model, run)
    report = {
        "classes": list(classes),
        "counts": counts.sources,
        "dropped": counts.rules(),
        "text": text_log.as_json(),
        "best_update": state.best,
        "updates": state.step,
        "precision": trainer.precision,
        "splits": _evaluate(model, corpus, trainer.precision, console),
    }
    write_json(run.out / TEXT_REPORT, report)
    remove_checkpoints(run.out)
    console.print(f"wrote {run.out / 'model'}")
    return report


def _check_settings(run: EmotionTextRun) -> None:
    """Refuse to go on in a folder that was begun with other options."""
    settings = json.loads(json.dumps(asdict(run) | {"out": "", "tuning": run.tuning.model_dump()}, default=str))
    path = run.out / TEXT_SETTINGS
    if path.is_file():
        begun = read_described(path, Schema, "the options of a training", "restore it or choose another --out")
        if changed := [name for name in settings if begun.get(name) != settings[name]]:
            raise MemofastError(f"{run.out} was begun with another {changed[0]}; use the same options or another --out")
        return
    if entries(run.out):
        raise MemofastError(f"{run.out} is not empty and no training of this kind; choose another --out")
    with writing(run.out):
        run.out.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def _print_counts(counts: MergeCounts, console: Console) -> None:
    columns = {
        "read": "read", "unmapped": "no class", "wordless": "no word", "shortened": f"cut at {LONGEST_TEXT} pieces",
        "like_evaluated": "like evaluated",
        "like_evaluated_long": "of these long",
        "like_validation": "like validation", TRAIN: "train", VALIDATION: "validation", EVALUATED: "evaluated",
    }  # fmt: skip
    table = Table(title="sentences; near-duplicates of evaluated and validation ones are removed", title_justify="left")
    for heading in ("corpus", *columns.values()):
        table.add_column(heading, justify="left" if heading == "corpus" else "right", no_wrap=heading == "corpus")
    for source, row in counts.sources.items():
        table.add_row(source, *(f"{row.get(name, 0):,}" for name in columns))
    table.add_row("all", *(f"{counts.total(name):,}" for name in columns))
    console.width = max(console.width, Console(width=1000).measure(table).maximum)  # no number is cut short
    console.print(table)


def _evaluate(model: EmotionModel, corpus: Corpus, precision: str, console: Console) -> dict[str, Any]:
    """Scores of the validation split and of every evaluated one, each beside always naming the class most frequent in
    train."""
    most = int(np.bincount(truth_of(corpus.split(TRAIN), label_space_of(model))).argmax())
    found = {}
    for name in corpus.splits:
        if name != TRAIN:
            scores, majority = _scores(model, corpus.split(name), most, precision)
            print_scores(name, scores, majority, model.classes, console)
            found[name] = scores | {"majority": majority}
    return found


def _scores(model: EmotionModel, split: Split, most: int, precision: str) -> tuple[dict, dict]:
    found = predict_split(model, split, label_space_of(model), precision)
    scores = class_scores(found.truth, found.named, model.classes)
    majority = class_scores(found.truth, np.full_like(found.truth, most), model.classes)
    return scores, {"class": model.classes[most]} | {n: v for n, v in majority.items() if isinstance(v, float)}


def _save(model: EmotionModel, run: EmotionTextRun) -> None:
    """Write the model with its vocabulary under a temporary name, then put it in place of an earlier one."""
    final, temporary, former = (run.out / name for name in ("model", ".model.partial", ".model.former"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.save_pretrained(temporary)
        copy_vocabulary(run.vocab or model_folder(run.init), temporary)
        if final.exists():
            shutil.rmtree(former, ignore_errors=True)
            os.replace(final, former)
        os.replace(temporary, final)
    except OSError as error:
        raise MemofastError(f"{final} cannot be written ({error.strerror}); free space and run again") from error
    shutil.rmtree(former, ignore_errors=True)
