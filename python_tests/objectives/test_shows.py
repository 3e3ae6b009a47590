"""Modalities that samples of an objective do not show: they are left out before packing."""

from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from runs import small_corpus

from memofast import objectives
from memofast.data import Facts, Loader
from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read

ASKED = {
    "words": "{kind: whole_word_mlm}", "matching": "{share: 2, replaced: [visual], shows: [text, visual]}",
    "faces": "{kind: span_visual_regression, shows: [visual, speech]}", "view_contrast": "{shows: [speech]}",
}  # fmt: skip
SHOWS = {"words": MODALITIES, "matching": MODALITIES[:2], "faces": MODALITIES[1:], "view_contrast": MODALITIES[2:]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("shows"))


def task_of(corpus, mixing):
    asked = ", ".join(f"{name}: {options}" for name, options in ASKED.items())
    sizes = "model={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 1, intermediate_size: 32}"
    given = [f"train.mixing={mixing}", "train.samples=11", "train.seed=3"]
    return PreTraining(
        make_plan(read("demo", [f"corpora=[{{path: {corpus}}}]", f"objectives={{{asked}}}", sizes, *given]))
    )


def samples_of(view, name):
    """Of a batch, the samples that are read for an objective."""
    return torch.searchsorted(view.batch.offsets[1:].long(), view.reads[name].rows, right=True).unique().tolist()


def check_lengths(view, name, split, place_of):
    """Samples of an objective show what it says, own rows or a partner's, and nothing else."""
    lengths = np.stack([view.batch.offsets_of(modality).diff().numpy() for modality in MODALITIES], 1)
    for sample in samples_of(view, name):
        own = split.lengths[place_of[int(view.batch.sample_keys[sample])]]
        of = int(view.batch.targets["visual_of"][sample]) if "visual_of" in view.batch.targets else None
        faces = own[1] if of is None else split.lengths[place_of[of]][1]
        wanted = [own[0] if "text" in SHOWS[name] else 1, faces, own[2]]
        assert lengths[sample].tolist() == [
            wanted[column] if column == 0 or MODALITIES[column] in SHOWS[name] else 0 for column in range(3)
        ]
    return len(samples_of(view, name))


@pytest.mark.parametrize("mixing", ["sample", "update"])
def test_samples_show_what_their_objective_says(corpus, mixing):
    task = task_of(corpus, mixing)
    split, seen = task.plan.parts[0].train, dict.fromkeys(ASKED, 0)
    place_of = {int(key): place for place, key in enumerate(split.keys)}
    loader = Loader(task.streams(), capacity=task.capacity, seed=3, mixing=mixing, work=task)
    with closing(iter(loader)) as updates:
        for update in islice(updates, 12):
            (view, *_) = update.micro_batches[0].views
            for name in view.reads:
                seen[name] += check_lengths(view, name, split, place_of)
            if mixing == "sample":  # any other batch and order shows the same of a sample
                (micro_batch,) = update.micro_batches
                draw = micro_batch.draw
                places = task.places(draw, update.step)
                again = task.places(draw._replace(indices=draw.indices[::-1][:5].copy()), update.step)
                assert all(np.array_equal(places[name][::-1][:5], again[name]) for name in MODALITIES)
    assert min(seen.values()) > 10


def test_validation_shows_the_same(corpus):
    task = task_of(corpus, "sample")
    split, (held_out,) = task.plan.parts[0].validation, task.held_out
    place_of, seen = {int(key): place for place, key in enumerate(split.keys)}, dict.fromkeys(ASKED, 0)
    for view, *_ in held_out.views(task.objectives, 3):
        (name,) = view.reads
        seen[name] += check_lengths(view, name, split, place_of)
    able = {name: int(task.objectives[name].eligible(split.facts).sum()) for name in ASKED}
    assert 0 < seen.pop("words") <= able.pop("words") and seen == able  # a sample may have no masked word


def test_only_a_stream_that_hides_or_replaces_says_whose_rows(corpus):
    task = task_of(corpus, "update")
    asking = {stream.objective: task._asking(stream) for stream in task.streams()}
    assert asking == {"words": set(), **{name: {name} for name in ("matching", "faces", "view_contrast")}}
    assert {stream.objective for stream in task.streams() if stream.room} == {"matching"}


def test_a_sample_without_shown_rows_is_not_eligible():
    lengths = np.array([(5, 0, 0), (1, 3, 0), (5, 3, 2), (1, 0, 1), (1, 0, 0)], np.int32)
    facts = Facts(lengths, frozenset(), lambda: None)
    for shows, able in ((None, [1, 1, 1, 1, 0]), (["text"], [1, 0, 1, 0, 0]), (["visual", "speech"], [0, 1, 1, 1, 0])):
        objective = objectives.build({"view_contrast": {"shows": shows}})["view_contrast"]
        assert objective.eligible(facts).tolist() == [bool(one) for one in able]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "span_speech_regression",
            ["text", "visual"],
            "shows: speech rows are what it is about; add them to text, vis",
        ),
        ("whole_word_mlm", ["speech"], "shows: text rows are what it is about; add them to speech"),
        ("matching", ["text", "visual"], "shows: speech rows are what it is about"),
        ("visual_order", [], "shows: "),
        ("visual_order", ["visual", "visual"], "shows: names a modality twice"),
        ("view_contrast", ["faces"], "shows.*'text', 'visual' or 'speech'"),
    ],
)
def test_what_cannot_be_left_out_is_one_line(kind, options, message):
    with pytest.raises(MemofastError, match=rf"objectives\.mine.*{message}") as error:
        objectives.build({"mine": {"kind": kind, "shows": options}})
    assert "\n" not in str(error.value)


def test_the_neutral_class_has_the_corpus_name(corpus):
    """Of the demo faces, the class is found by its name; another name is one line."""
    given = [f"corpora=[{{path: {corpus}}}]", "train.samples=8"]
    plan = make_plan(read("demo", [*given, "objectives={emotional_visual_emotion: {}}"]))
    task, names = PreTraining(plan), plan.parts[0].corpus.classes["soft_labels"]
    with closing(iter(Loader(task.streams(), capacity=task.capacity, seed=3, work=task))) as updates:
        (view,) = next(updates).micro_batches[0].views
    shown = view.batch.targets["soft_labels"].argmax(1)[view.reads["emotional_visual_emotion"].labels]
    alone = shown == names.index("neutral")
    assert view.counts["emotional_visual_emotion"] >= 8 and alone.sum() < len(alone) / 2
    with pytest.raises(MemofastError, match=r"emotional_visual_emotion\.neutral: the soft labels have no class 'calm'"):
        make_plan(read("demo", [*given, "objectives={emotional_visual_emotion: {neutral: calm}}"]))


def test_rows_that_hidden_modalities_come_to_show(corpus):
    split = make_plan(read("demo", [f"corpora=[{{path: {corpus}}}]", "train.samples=8"])).parts[0].train
    nobody, own = np.array([-1, -1, 4]), split.lengths[[7, 3, 4]]
    rows = objectives.rows_shown(split, {"text": nobody, "speech": nobody}, np.array([7, 3, 4]))
    assert rows.tolist() == [[1, own[0, 1], 0], [1, own[1, 1], 0], own[2].tolist()]
