"""Fine-tuning on any labelled split, not on merged text alone."""

import pytest
import torch
from packed_batches import small_config

from memofast.data import MicroBatch, Stream, write_corpus
from memofast.errors import MemofastError
from memofast.inference.split_predictions import answer, target_of, truth_of
from memofast.model import MemoBertForEmotion
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning import FineTuner, FineTuning

CLASSES = ("calm", "glad")


def small_model(classes=CLASSES):
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(classes)), "initializer_range": 0.2}
    return MemoBertForEmotion(small_config(visual_width=4, speech_width=0, **named))


def write(folder, labelled=True):
    """60 samples without words; their faces are ones where they are glad, zeros where calm; every tenth label is unknown."""
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
    truth = truth_of(validation, target_of(small_model()))
    assert truth.tolist() == [-1 if number % 10 == 9 else number % 2 for number in range(40, 60)]
    options = FineTuning(epochs=8, samples=8, lr=1e-2, patience=20, precision="fp32", device="cpu")
    tuner = FineTuner(small_model(), [Stream(corpus.split("train"))], validation, options, tmp_path)
    state = tuner.run()
    assert state.best_scores["wa"] == 1.0
    found = answer(tuner.model, validation, tuner.target).known
    assert len(found.ids) == 18
    assert found.truth.tolist() == truth[truth >= 0].tolist() == found.named.tolist()


def test_other_classes_and_none_are_refused(tmp_path):
    corpus, bare = write(tmp_path / "corpus"), write(tmp_path / "bare", labelled=False)
    with pytest.raises(MemofastError, match="classes calm, glad, the model sad"):
        FineTuner(
            small_model(("sad",)), [Stream(corpus.split("train"))], corpus.split("validation"), FineTuning(), tmp_path
        )
    with pytest.raises(MemofastError, match="has no labels"):
        FineTuner(small_model(), [Stream(bare.split("train"))], bare.split("validation"), FineTuning(), tmp_path)


def test_hidden_rows_read_the_mask_vector(tmp_path):
    """The share of rows that are hidden; the same ones at the same update, others at another; the mask vector learns, and only then."""
    corpus = write(tmp_path / "corpus")
    masks = {}
    for name in ("0.0", "0.4"):
        (tmp_path / name).mkdir()
    for hide in (0.0, 0.4):
        options = FineTuning(epochs=2, samples=8, lr=1e-2, patience=20, precision="fp32", device="cpu", hide=hide)
        tuner = FineTuner(
            small_model(), [Stream(corpus.split("train"))], corpus.split("validation"), options, tmp_path / str(hide)
        )
        before = tuner.model.memobert.embeddings.visual.mask.detach().clone()
        tuner.run()
        masks[hide] = not torch.equal(before, tuner.model.memobert.embeddings.visual.mask.detach())
    assert masks == {0.0: False, 0.4: True}
    batch = MicroBatch(corpus.split("train").pack(range(40)), "train", None)
    first, again, other = (tuner._shown(batch, step).sources["visual_source"] for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    own = torch.arange(len(first), dtype=torch.int32)
    assert set(first[first != own].tolist()) == {-1} and tuner._shown(batch, 1).batch is batch.batch
    lengths, hidden = batch.batch.visual_offsets.diff(), (first == -1).long()
    counts = torch.stack([part.sum() for part in hidden.split(lengths.tolist())])
    assert not counts[lengths < 5].any()
    assert (counts[lengths >= 5] > 0).all() and (counts <= 0.4 * lengths).all()
    assert counts[lengths >= 13].float().sum() > 0.2 * lengths[lengths >= 13].sum()
