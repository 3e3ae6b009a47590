"""Partners of matching beside any other sample: one modality alone, another class, one's own class, and the most
alike."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packed_batches import random_batch, small_config
from runs import here

from memofast import objectives
from memofast.data import Facts, write_corpus
from memofast.data.demo import demo_corpus
from memofast.errors import MemofastError
from memofast.ops.philox import Purpose
from memofast.store import FeatureWriter, TextWriter

RNG = torch.tensor([5, 17])
MANY = 6000


def built(**options):
    return objectives.build({"matching": options})["matching"]


def split_of(classes, emotions=None, rows=None):
    """Samples of all modalities; classes: their labels."""
    count = len(classes)
    targets = {"label": np.asarray(classes), "emotions": emotions}
    known = frozenset(name for name, values in targets.items() if values is not None)
    facts = Facts(np.full((count, 3), 4, np.int32), known, lambda: None, {}, targets.get)
    keys = np.random.default_rng(7).integers(-(2**62), 2**62, count)
    return SimpleNamespace(
        name="train", corpus=SimpleNamespace(path="corpora/c"), keys=keys, facts=facts, mean_rows=(rows or {}).get
    )


def drawn(split, epochs=1, pool=None, **options):
    """By what is shown [epochs, n]."""
    everyone, objective = np.arange(len(split.keys)), built(**options)
    pool = everyone if pool is None else pool
    found = [objective.places(split, pool, everyone, 1, epoch, Purpose.PARTNER) for epoch in range(epochs)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def near(count, total, share, deviations=4):
    assert abs(count - total * share) <= deviations * (total * share * (1 - share)) ** 0.5, (count, total * share)


MIXED = split_of(np.arange(MANY) % 3)


@pytest.mark.parametrize(("options", "faces"), [({}, 1 / 2), ({"faces": "1/5"}, 1 / 5), ({"faces": 1}, 1)])
@pytest.mark.parametrize("negatives", [0.5, 0.9])
def test_one_modality_is_replaced_and_never_both(negatives, options, faces):
    shown = drawn(MIXED, negatives=negatives, one_modality=True, **options)
    assert [*shown] == ["visual", "speech"]
    replaced = {name: owners[0] != np.arange(MANY) for name, owners in shown.items()}
    assert not (replaced["visual"] & replaced["speech"]).any()
    up, down = (replaced[name].sum() for name in shown)
    near(up + down, MANY, negatives)
    near(up, up + down, faces)
    together = drawn(MIXED, negatives=negatives)["visual"][0]  # who is a negative, and of whom, is as without
    both = np.where(replaced["visual"], shown["visual"][0], shown["speech"][0])
    np.testing.assert_array_equal(both, together)


def test_partners_are_of_another_class_and_each_as_likely():
    split = split_of([0, 2, 1, 0, 2, 2, -1, 0])
    pool = np.array([0, 1, 2, 3, 4, 5])  # the last two do not take part
    shown = drawn(split, 1500, pool, other_class="label", replaced=["speech"], negatives="9/10")["speech"]
    others = {0: [1, 2, 4, 5], 1: [0, 2, 3], 2: [0, 1, 3, 4, 5], 7: [1, 2, 4, 5]}
    for sample, allowed in others.items():
        counts = np.bincount(shown[:, sample], minlength=8)
        assert set(np.flatnonzero(counts)) == {sample, *allowed}
        negatives = 1500 - counts[sample]
        near(negatives, 1500, 0.9)
        for other in allowed:
            near(counts[other], negatives, 1 / len(allowed))


def test_the_class_may_be_the_likeliest_emotion():
    emotions = np.array([(0.5, 0.3, 0.2), (0.1, 0.5, 0.4), (0, 0, 0), (0.4, 0.35, 0.25)], np.float32)
    split, objective = split_of([0, 0, 0, 1], emotions), built(other_class="emotions")
    assert objective.eligible(split.facts).tolist() == [True, True, False, True]
    shown = drawn(split, 40, other_class="emotions")["visual"]
    assert [sorted(set(shown[:, sample])) for sample in (0, 1, 3)] == [[0, 1], [0, 1, 3], [1, 3]]


def test_a_match_may_be_any_of_the_class():
    split = split_of([1, 0, 1, 0, 1, 2])
    shown = drawn(split, 1200, other_class="label", any_of_class=True, negatives="1/4")
    np.testing.assert_array_equal(shown["visual"], shown["speech"])
    match = shown["match"] == np.arange(6)
    near(match.sum(), 7200, 3 / 4)
    classes = np.array([1, 0, 1, 0, 1, 2])
    np.testing.assert_array_equal(classes[shown["visual"]] == classes, match)
    for other in (0, 2, 4):
        near((shown["visual"][:, 2] == other).sum(), match[:, 2].sum(), 1 / 3)
    plain = drawn(split, 1200, other_class="label", negatives="1/4")["visual"]
    np.testing.assert_array_equal(plain[~match], shown["visual"][~match])
    alone = drawn(split, 40, other_class="label", any_of_class=True, one_modality=True)
    kept = np.where(classes[alone["visual"]] == classes, alone["visual"], alone["speech"])  # beside a replaced one
    negative = alone["visual"] != alone["speech"]
    np.testing.assert_array_equal(kept[negative], np.tile(np.arange(6), (40, 1))[negative])


def test_a_match_of_the_class_is_labelled_as_one():
    objective = built(other_class="label", any_of_class=True)
    batch = random_batch(small_config(), [(5, 3, 4), (3, 2, 1), (6, 1, 2)])
    keys = batch.sample_keys
    batch.targets |= {"label": torch.tensor([0, 1, 0]), "visual_of": keys[[2, 0, 2]], "speech_of": keys[[2, 0, 2]]}
    with pytest.raises(MemofastError, match="packed without partners"):
        objectives.views_for(batch, objective, RNG)
    batch.targets["match_of"] = keys[[0, 0, 2]]
    assert objectives.views_for(batch, objective, RNG)[0].reads["matching"].labels.tolist() == [1, 0, 1]


def test_one_replaced_modality_is_no_match():
    batch = random_batch(small_config(), [(5, 3, 4), (3, 2, 1), (6, 1, 2)])
    own = batch.sample_keys
    batch.targets |= {"visual_of": own[[0, 1, 0]], "speech_of": own[[1, 1, 2]]}
    read = objectives.views_for(batch, built(one_modality=True), RNG)[0].reads["matching"]
    assert read.labels.tolist() == [0, 1, 0]


def hard(**options):
    """What samples on a line come to show; their faces lie opposite ways round to their speech."""
    angles = np.linspace(0, np.pi, 40)
    faces = np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32)
    split = split_of(np.arange(40) % 2, rows={"visual": faces, "speech": np.roll(faces, 20, 0)})
    shown = drawn(split, 60, negatives="9/10", **options)
    return shown


def test_the_most_alike_of_the_candidates_is_shown():
    distance = {}
    for count in (1, 3, 30):
        shown = hard(replaced=["visual"], candidates=count)
        replaced = shown["visual"] != np.arange(40)
        near(replaced.sum(), 2400, 0.9)
        distance[count] = np.abs(shown["visual"] - np.arange(40))[replaced].mean()
    assert distance[30] < 0.3 * distance[3] < 0.3 * 0.7 * distance[1]
    shown = hard(replaced=["visual"], candidates=30, other_class="label")
    replaced = shown["visual"] != np.arange(40)
    assert ((shown["visual"] - np.arange(40))[replaced] % 2 == 1).all()
    alone = hard(one_modality=True, candidates=30)
    for modality in ("visual", "speech"):  # each is as near in its own rows
        replaced = alone[modality] != np.arange(40)
        places = {"visual": np.arange(40), "speech": (np.arange(40) - 20) % 40}[modality]
        assert np.abs(places[alone[modality]] - places)[replaced].mean() < 3


def test_of_candidates_that_are_equally_alike_the_smallest_key_is_shown():
    split = split_of([0] * 9, rows={"visual": np.tile(np.eye(3, 4, dtype=np.float32), (3, 1))})
    shown = drawn(split, 30, replaced=["visual"], candidates=64, negatives="9/10")["visual"]
    for sample in range(9):
        alike = [other for other in range(9) if other % 3 == sample % 3 and other != sample]
        assert set(shown[:, sample]) == {sample, min(alike, key=lambda other: split.keys[other])}


def test_candidates_are_those_of_seed_epoch_and_sample():
    faces = np.random.default_rng(2).standard_normal((50, 5)).astype(np.float32)
    split, everyone = split_of([0] * 50, rows={"visual": faces, "speech": faces}), np.arange(50)
    objective = built(candidates=5)
    whole = objective.places(split, everyone, everyone, 1, 4, Purpose.PARTNER)["speech"]
    some = np.array([7, 3, 44])
    np.testing.assert_array_equal(objective.places(split, everyone, some, 1, 4, Purpose.PARTNER)["speech"], whole[some])
    assert (objective.places(split, everyone, everyone, 1, 5, Purpose.PARTNER)["speech"] != whole).sum() > 20


def test_mean_rows_are_those_of_the_store(tmp_path):
    rows = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.full((1, 3), 2.5), np.eye(3)]
    with TextWriter(tmp_path / "text") as text, FeatureWriter(tmp_path / "visual", 3) as faces:
        for number, own in enumerate(rows):
            text.put(str(number), [1000], [0])
            if len(own):
                faces.put(str(number), own)
    stores = {name: tmp_path / name for name in ("text", "visual")}
    split = write_corpus(tmp_path, "means", stores, {"train": ["3", "1", "0", "2"]}).split("train")
    means = split.mean_rows("visual")
    np.testing.assert_allclose(means, [[1 / 3] * 3, [0] * 3, [1.5, 2.5, 3.5], [2.5] * 3], atol=1e-3)
    assert split.mean_rows("visual") is means


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"one_modality": True, "replaced": ["speech"]}, "one_modality has no effect where only speech is replaced"),
        ({"faces": 0.3}, "faces has no effect without one_modality"),
        ({"any_of_class": True}, "any_of_class needs other_class"),
        ({"other_class": "lexicon"}, "other_class: "),
        ({"candidates": 65}, "candidates: input should be less than or equal to 64"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(MemofastError, match=message):
        built(**options)


@pytest.mark.parametrize("classes", [[1, 1, 1, -1], [2, -1, -1, -1]])
def test_negatives_that_cannot_be_are_one_line(classes):
    message = "samples of one class of label" if classes[1] == 1 else "has 1 samples with words"
    with pytest.raises(MemofastError, match=f"split train of corpus corpora/c .*{message}") as error:
        drawn(split_of(classes), other_class="label")
    assert "\n" not in str(error.value)


def test_a_run_without_negatives_ends_in_one_line(tmp_path):
    corpus = demo_corpus(tmp_path / "corpus", {"train": 1, "validation": 9})
    asked = [f"corpora=[{{path: {corpus}}}]", "objectives={matching: {}}", "model.hidden_size=16", "train.updates=1"]
    done = here(tmp_path, "pretrain", "demo", *asked, "model.num_attention_heads=1", "model.num_hidden_layers=1")
    assert done.returncode == 2 and done.stderr.strip().count("\n") == 0, done.stderr
    assert f"split train of corpus {corpus} has 1 samples" in done.stderr and "no other one to show" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.real
def test_negatives_are_as_frequent_as_the_originals(real_data):
    golden = json.loads((real_data.parent / "golden" / "memobert" / "matching_structure.json").read_text())
    theirs, split = golden["rates_over_400_epochs"], split_of([0] * 25)
    both = drawn(split, 400)["visual"] != np.arange(25)
    one = drawn(split, 400, one_modality=True, negatives="8/10")
    faces, speech = (one[name] != np.arange(25) for name in ("visual", "speech"))
    for ours, name, share in (
        (both.sum(), "itm_neg", 0.5), (faces.sum() + speech.sum(), "one_neg", 0.8), (faces.sum(), "one_face", 0.4),
        (speech.sum(), "one_speech", 0.4),
    ):  # fmt: skip
        near(ours, 10_000, share)
        assert abs(ours - theirs[name]) <= 4 * (2 * 10_000 * share * (1 - share)) ** 0.5
    for entry in golden["onemodalnegitm"]:
        assert (entry["label"] == 1) == (entry["faces_of"] == entry["own"] == entry["speech_of"])
        assert entry["own"] in (entry["faces_of"], entry["speech_of"])
