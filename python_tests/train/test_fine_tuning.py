"""Fine-tuning on any labelled split, not on merged text alone."""

import numpy as np
import pytest
import torch
from packed_batches import small_config

from memofast.data import Draw, MicroBatch, Stream, write_corpus
from memofast.errors import MemofastError
from memofast.inference.split_predictions import label_space_of, predict_split, truth_of
from memofast.model import MemoBertForEmotion
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning import FineTuning
from memofast.train.fine_tuning_recipe import Tuning
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

CLASSES = ("calm", "glad")


def small_model(classes=CLASSES):
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(classes)), "initializer_range": 0.2}
    return MemoBertForEmotion(small_config(visual_width=4, speech_width=0, **named))


def task_of(corpus, model=None, **options):
    tuning = {"samples": 8, "lr": 1e-2, "patience": 20, "precision": "fp32", "device": "cpu", "metric": "wa"}
    streams = [Stream(corpus.split("train"))]
    return FineTuning(model or small_model(), streams, corpus.split("validation"), Tuning(**tuning | options), 0)


def write(folder, labelled=True):
    """60 samples without words; their faces are ones where they are glad, zeros where calm; every tenth label is
    unknown."""
    ids = [f"s{number:02}" for number in range(60)]
    with (
        TextWriter(folder / "text", classes=CLASSES if labelled else ()) as text,
        FeatureWriter(folder / "visual", 4) as faces,
    ):
        for number, id in enumerate(ids):
            label = None if number % 10 == 9 or not labelled else number % 2
            text.put(id, [], [], label=label)
            faces.put(id, torch.full((1 + number % 20, 4), float(number % 2)).numpy())
    stores = {"text": folder / "text", "visual": folder / "visual"}
    return write_corpus(folder, "faces", stores, {"train": ids[:40], "validation": ids[40:]})


def test_faces_and_hard_labels(tmp_path):
    corpus = write(tmp_path / "corpus")
    validation = corpus.split("validation")
    truth = truth_of(validation, label_space_of(small_model()))
    assert truth.tolist() == [-1 if number % 10 == 9 else number % 2 for number in range(40, 60)]
    task = task_of(corpus, epochs=8)
    trainer = Trainer(task, tmp_path, Processes())
    state = trainer.run()
    assert state.scores["faces", "emotion"]["wa"] == 1.0 == -state.best_value
    trainer.keep_best()
    found = predict_split(task.model, validation, task.target).known
    assert len(found.ids) == 18
    assert found.truth.tolist() == truth[truth >= 0].tolist() == found.named.tolist()


def test_other_classes_and_none_are_refused(tmp_path):
    corpus, bare = write(tmp_path / "corpus"), write(tmp_path / "bare", labelled=False)
    with pytest.raises(MemofastError, match="classes calm, glad, the model sad"):
        task_of(corpus, small_model(("sad",)))
    with pytest.raises(MemofastError, match="has no labels"):
        task_of(bare)


def test_hidden_rows_read_the_mask_vector(tmp_path):
    """The share of rows that are hidden; the same ones at the same update, others at another; the mask vector
    learns, and only then."""
    corpus = write(tmp_path / "corpus")
    masks = {}
    for hide in (0.0, 0.4):
        (tmp_path / str(hide)).mkdir()
        task = task_of(corpus, epochs=2, hide=hide)
        mask = task.model.memobert.embeddings.visual.mask
        before = mask.detach().clone()
        Trainer(task, tmp_path / str(hide), Processes()).run()
        masks[hide] = not torch.equal(before, mask.detach())
    assert masks == {0.0: False, 0.4: True}
    indices = np.arange(40)
    batch = MicroBatch(corpus.split("train").pack(indices), Draw(task.streams()[0], indices, 0))
    views = [task.views(batch, step)[0] for step in (1, 1, 2)]
    first, again, other = (view.sources["visual"] for view in views)
    assert torch.equal(first, again) and not torch.equal(first, other)
    own = torch.arange(len(first), dtype=torch.int32)
    assert set(first[first != own].tolist()) == {-1} and views[0].batch.visual is batch.batch.visual
    lengths, hidden = batch.batch.visual_offsets.diff(), (first == -1).long()
    counts = torch.stack([part.sum() for part in hidden.split(lengths.tolist())])
    assert not counts[lengths < 5].any()
    assert (counts[lengths >= 5] > 0).all() and (counts <= 0.4 * lengths).all()
    assert counts[lengths >= 13].float().sum() > 0.2 * lengths[lengths >= 13].sum()
