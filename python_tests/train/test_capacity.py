"""How much room a training batch gets: what is usual, rather than what is possible."""

import json
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from runs import first_updates, small_corpus, small_recipe

from memofast.data import Loader, epoch, write_corpus
from memofast.data.batch import rounded_length
from memofast.data.demo import demo_corpus
from memofast.ops.philox import Purpose
from memofast.store import FeatureWriter, TextWriter
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("capacity"))


def plan_for(folder, corpus, **train):
    return make_plan(read(str(small_recipe(folder, corpus, train=train))))


@pytest.mark.parametrize("mixing", ["update", "sample"])
def test_usual_batches_fit_and_little_stays_empty(corpus, tmp_path, mixing):
    plan = plan_for(tmp_path, corpus, samples=24, mixing=mixing)
    lengths = plan.parts[0].train.lengths
    padded = 24 * lengths.max(0)
    room = np.array((plan.capacity.text, plan.capacity.visual, plan.capacity.speech))
    assert (room <= padded).all() and (room >= lengths.max(0)).all() and (room < padded).any()
    assert [update.micro_batches[0].batch.samples for update in first_updates(PreTraining(plan), 2)] == [24] * 2


def test_a_spare_row_keeps_the_rows_of_a_captured_step_round(corpus, tmp_path):
    capacity = plan_for(tmp_path, corpus, samples=32).capacity
    lengths = make_plan(read(str(small_recipe(tmp_path, corpus)))).parts[0].train.lengths
    for rows, spare, longest in ((capacity.text, 1, lengths[:, 0].max()), (capacity.visual, 0, lengths[:, 1].max())):
        assert (rows + spare) % 128 == 0 or rows == 32 * longest


def test_given_rows_are_taken(corpus, tmp_path):
    capacity = plan_for(tmp_path, corpus, samples=8, rows={"text": 77, "visual": 250}).capacity
    assert (capacity.text, capacity.visual) == (77, 250)


def test_a_batch_ends_early_rather_than_grow(corpus, tmp_path):
    plan = plan_for(tmp_path, corpus, samples=24, rows={"text": 60})
    batches = list(epoch(plan.parts[0].train, plan.capacity))
    assert sum(batch.samples for batch in batches) == len(plan.parts[0].train)
    assert max(int(batch.text_offsets[-1]) for batch in batches) <= 60 and batches[0].samples < 24


def test_a_corpus_of_words_beside_one_with_partners(tmp_path):
    whole = demo_corpus(tmp_path / "whole", {"train": 40, "validation": 8})
    words = tmp_path / "words"
    words.mkdir()
    description = json.loads((whole / "corpus.json").read_text()) | {"name": "words"}
    description["stores"] = {"text": str(whole / "text")}
    description.pop("streams")
    for entry in description["splits"].values():
        entry["file"] = str(whole / entry["file"])
    (words / "corpus.json").write_text(json.dumps(description))
    for mixing in ("sample", "update"):
        plan = make_plan(
            read("demo", [f"corpora=[{{path: {whole}}}, {{path: {words}}}]", f"train.mixing={mixing}",
                          "objectives={whole_word_mlm: {}, matching: {}}", "train.samples=5"])
        )  # fmt: skip
        task = PreTraining(plan)
        with closing(iter(Loader(task.streams(), capacity=task.capacity, seed=3, mixing=mixing, work=task))) as updates:
            seen = [micro_batch for update in islice(updates, 40) for micro_batch in update.micro_batches]
        read_of = {"demo": 0, "words": 0}
        for micro_batch in seen:
            read_of[micro_batch.corpus] += micro_batch.views[0].counts.get("matching", 0)
        assert {micro_batch.corpus for micro_batch in seen} == {"demo", "words"}
        assert read_of["demo"] > 0 and read_of["words"] == 0


def test_partners_may_be_longer_together_than_any_sample(tmp_path):
    with TextWriter(tmp_path / "text", cls_id=2, sep_id=3) as text, FeatureWriter(tmp_path / "visual", 8) as visual:
        for id, words, faces in (("a", 50, 1), ("b", 2, 40), ("c", 30, 5), ("d", 1, 60)):
            text.put(id, np.full(words, 9), np.arange(words))
            visual.put(id, np.ones((faces, 8)))
    stores = {name: tmp_path / name for name in ("text", "visual")}
    write_corpus(tmp_path, "uneven", stores, {"train": ["a", "b"], "validation": ["c", "d"]})
    lengths = {}
    for kind, options in (("whole_word_mlm", "{}"), ("matching", "{replaced: [visual]}")):
        plan = make_plan(read("demo", [f"corpora=[{{path: {tmp_path}}}]", f"objectives={{{kind}: {options}}}"]))
        lengths[kind] = plan.capacity.longest, plan.validation_capacity.longest
        samples = plan.parts[0].train.lengths, plan.parts[0].validation.lengths
    own = tuple(rounded_length(int(of.sum(1).max())) for of in samples)
    together = tuple(rounded_length(int(of.max(0).sum())) for of in samples)
    assert (own, together) == ((64, 64), (96, 96))
    assert lengths == {"whole_word_mlm": own, "matching": together}


def test_partners_of_validation_are_drawn_for_it_alone(tmp_path):
    corpus = demo_corpus(tmp_path / "demo", {"train": 20, "validation": 25})
    plan = make_plan(read("demo", [f"corpora=[{{path: {corpus}}}]", "objectives={matching: {}}", "train.seed=5"]))
    split, matching = plan.parts[0].validation, plan.objectives["matching"]
    pool, everyone = np.flatnonzero(matching.eligible(split.facts)), np.arange(len(split))
    wanted = matching.places(split, pool, everyone, 5, 0, Purpose.VALIDATION_PARTNER)["visual"]
    wanted = np.where(np.isin(everyone, pool), wanted, everyone)
    (views,) = zip(*PreTraining(plan).held_out[0].views(plan.objectives, 5), strict=True)
    shown = torch.cat([view.batch.targets["visual_of"] for view in views])
    assert shown.tolist() == split.keys[wanted].tolist()
