"""Simple baselines equal scikit-learn written by hand, choose inside the training part, and keep groups whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from runs import here, the_run
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import recall_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from memofast.data import Corpus, write_corpus
from memofast.data.demo import demo_corpus
from memofast.data.folds import write_groups
from memofast.errors import MemofastWarning
from memofast.evaluate import simple_baselines as module
from memofast.evaluate.baseline_report import with_baselines
from memofast.evaluate.results import Run, numbers, results_of
from memofast.evaluate.simple_baselines import PENALTIES, Blocks, fitted, models_of, simple_baselines
from memofast.evaluate.simple_inputs import Inputs, columns_of, inputs_of, products_of, side_by_side, summary
from memofast.inference.split_predictions import truth_of
from memofast.metrics.predictions import Predictions
from memofast.objectives.label_space import LabelSpace
from memofast.store import FeatureWriter, TextWriter
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read as recipe_of
from memofast.train.fold_parts import Fold


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = demo_corpus(tmp_path_factory.mktemp("demo") / "corpus", {"train": 70, "validation": 10, "test": 30})
    ids = Corpus.open(folder).stores["text"].ids
    write_groups(folder, "speaker", {id: f"s{number % 5}" for number, id in enumerate(ids)})
    return folder


@pytest.fixture(scope="module")
def opened(corpus):
    return Corpus.open(corpus)


@pytest.fixture(scope="module")
def fold(opened):
    return Fold("fixed", *(opened.split(name) for name in ("train", "validation", "test")), "validation")


def answers(opened, fold, conditions, **options):
    target = LabelSpace.of_corpus(opened)
    found = simple_baselines(opened, [fold], target, conditions, [1], **options)
    return {(name, run.condition): (run.predictions, settings) for name, run, settings in found}


def test_five_numbers_of_a_column():
    rows = np.array([[1.0, 10], [2, 10], [4, 40], [9, 0]], np.float16)
    assert summary(rows).tolist() == pytest.approx([4, 15, 9.5**0.5, 225**0.5, 1.75, 7.5, 3, 10, 5.25, 17.5])


def labels(split):
    return split.pack(np.arange(len(split))).targets["label"].numpy()


BY_HAND = {
    "logistic regression": LogisticRegression(max_iter=1000),
    "linear SVM": SVC(kernel="linear", break_ties=True),
}


def searched(model, seen, truth, scoring="balanced_accuracy"):
    """A search written by hand, with the inner folds that the baselines have."""
    inner = StratifiedKFold(3, shuffle=True, random_state=0)
    return GridSearchCV(model, {"C": PENALTIES}, scoring=scoring, cv=inner).fit(seen, truth)


def test_rows_and_words_equal_scikit_learn_by_hand(opened, fold):
    """Words alone, and beside 480 columns of rows of 70 samples."""
    found = answers(opened, fold, ["l", "la"], rows={"speech": "speech"})
    truth, store = labels(fold.train), opened.stores["speech"]
    sentences, sounds = [], []
    for split in (fold.train, fold.test):
        sentences.append([bytes(opened.stores["text"].read(id)["utf8"]).decode() for id in split.ids])
        nothing = np.full((1, store.width), np.nan)
        rows = [store.read(id)["rows"].astype(float) if id in store.rows_of else nothing for id in split.ids]
        quartiles = [np.percentile(one, (25, 50, 75), axis=0).ravel() for one in rows]
        sounds.append(np.array([np.r_[one.mean(0), one.std(0), q] for one, q in zip(rows, quartiles, strict=True)]))
    words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True).fit(sentences[0])
    mean = np.nanmean(sounds[0], 0)
    filled = [np.where(np.isnan(own), mean, own) for own in sounds]
    scale = StandardScaler().fit(filled[0])
    said_words, heard = ([words.transform(own).toarray() for own in sentences], [*map(scale.transform, filled)])
    by_hand = {"l": said_words}
    by_hand["la"] = [np.hstack((one, other / 480**0.5)) for one, other in zip(said_words, heard, strict=True)]
    assert by_hand["la"][0].shape[1] > 480 > len(truth)
    for condition, (seen, tested) in by_hand.items():
        for name, model in BY_HAND.items():
            search = searched(model, seen, truth)
            said, settings = found[name, condition]
            assert settings == search.best_params_, (name, condition)
            assert (said.named == search.predict(tested)).mean() > 0.95
            if name == "logistic regression":
                np.testing.assert_allclose(said.scores, search.predict_proba(tested), atol=2e-3)
            assert said.ids == tuple(fold.test.ids) and np.array_equal(said.truth, labels(fold.test))
    assert recall_score(said.truth, said.named, average="macro") > 0.7


@pytest.mark.parametrize("width", [7, 90])
def test_inner_products_are_all_that_models_see(width):
    """Fewer columns than samples (2 * 7 < 40), and more (2 * 90), some samples alike: the models are those of the
    columns themselves."""
    random, truth = np.random.default_rng(width), np.arange(40) % 3
    numbers = {name: random.normal(size=(55, width)) for name in ("visual", "speech")}
    numbers["visual"][:40, 0] += truth
    for values in numbers.values():
        values[:6] = values[33:39]
    blocks = Blocks(Inputs([""] * 55, numbers), np.arange(40), np.arange(40, 55))
    columns, products = blocks.of(("visual", "speech"))
    assert columns.seen.shape == (40, min(40, 2 * width)) and products.tested.shape == (15, 40)
    scaled = []
    for values in numbers.values():
        scaled.append((values - values[:40].mean(0)) / values[:40].std(0) / width**0.5)
    wide = np.hstack(scaled)
    assert (wide[:40] ** 2).sum(1).mean() == pytest.approx(2)
    np.testing.assert_allclose(columns.tested @ columns.seen.T, wide[40:] @ wide[:40].T, atol=1e-7)
    svm = SVC(kernel="linear", C=3, break_ties=True)
    classifiers = {"logistic regression": LogisticRegression(C=3), "linear SVM": svm}
    regressions = {"ridge regression": Ridge(1 / 3), "linear SVR": SVR(kernel="linear", C=3, epsilon=0)}
    for kind, target, own in (("single", truth, classifiers), ("regression", wide[:40, 0] * 3, regressions)):
        for name, by_hand in own.items():
            model = models_of(kind)[name]
            pair = products if model.by_products else columns
            ours = model.make().set_params(**{option: getattr(by_hand, option) for option in model.settings})
            said, expected = ours.fit(pair.seen, target).predict(pair.tested), by_hand.fit(wide[:40], target)
            np.testing.assert_allclose(said, expected.predict(wide[40:]), atol=5e-3)
            if name == "logistic regression":
                np.testing.assert_allclose(
                    ours.predict_proba(pair.tested), expected.predict_proba(wide[40:]), atol=1e-3
                )


def test_nothing_of_the_outer_part_is_seen(opened, fold, monkeypatch):
    """With other labels there, settings and scores stay as they are."""
    before = answers(opened, fold, ["a"])
    original = module.truth_of

    def spoilt(split, target):
        truth = original(split, target)
        return truth if split is fold.train else (truth + 3) % len(target.classes)

    monkeypatch.setattr(module, "truth_of", spoilt)
    after = answers(opened, fold, ["a"])
    for key, (said, settings) in before.items():
        assert settings == after[key][1] and np.array_equal(said.scores, after[key][0].scores)
        assert not np.array_equal(said.truth, after[key][0].truth)


def test_inner_folds_keep_groups_whole(opened, fold, monkeypatch):
    seen = []

    class Told(module.GroupKFold):
        def split(self, places, truth=None, groups=None):
            for learned, held in super().split(places, truth, groups):
                seen.append((set(groups[learned]), set(groups[held])))
                yield learned, held

    monkeypatch.setattr(module, "GroupKFold", Told)
    answers(opened, fold, ["a"], by="speaker")
    assert len(seen) == 6 and all(not learned & held for learned, held in seen)
    assert {group for _, held in seen for group in held} == {f"s{n}" for n in range(5)}


def test_a_sample_without_a_group_is_a_group_of_its_own(opened, fold, monkeypatch):
    """As it is where folds are made and intervals drawn."""
    seen, whole = [], module.fitted
    few = {id: f"s{number % 2}" for number, id in enumerate(fold.train.ids[:10])}

    def kept(*arguments):
        seen.append(arguments[4])
        return whole(*arguments)

    monkeypatch.setattr(module, "fitted", kept)
    monkeypatch.setattr(module, "read_groups", lambda *_: few)
    answers(opened, fold, ["a"], by="speaker")
    assert {len(set(groups)) for groups in seen} == {2 + len(fold.train) - 10}
    seen.clear()
    answers(opened, fold, ["a"])
    assert {len(set(groups)) for groups in seen} == {1}


def test_values_and_sets_of_labels(opened, fold):
    inputs, every, nobody = inputs_of(opened, fold.train.ids), np.arange(70), np.full(70, "")
    columns, products = Blocks(inputs, every, every).of(("speech",))
    values = inputs.numbers["speech"][:, :8].sum(1)
    values[np.isnan(values)] = np.nanmean(values)
    for name, model in models_of("regression").items():
        pair = products if model.by_products else columns
        search = fitted(model, "regression", pair.seen, values, nobody)
        assert isinstance(search.best_estimator_, Ridge if name == "ridge regression" else SVR)
        assert np.corrcoef(model.scores(search, pair.tested), values)[0, 1] > 0.9
    sets = np.stack((labels(fold.train) % 2, labels(fold.train) // 4), 1).astype(float)
    words = columns_of(inputs, "text", every, every)
    model = models_of("multi")["logistic regression"]
    search = fitted(model, "multi", words.seen, sets, nobody)
    assert ((model.scores(search, words.tested) >= 0.5) == sets).mean() > 0.9


def test_a_fit_that_did_not_converge_is_told(opened, fold, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 2)
    with pytest.warns(MemofastWarning, match="had not converged"):
        answers(opened, fold, ["l"])


def test_samples_without_rows_are_the_training_mean(opened, fold):
    inputs, every = inputs_of(opened, fold.train.ids), np.arange(70)
    lacking = int(np.flatnonzero(np.isnan(inputs.numbers["visual"][:, 0]))[0])
    columns = columns_of(inputs, "visual", every, np.array([lacking]))
    np.testing.assert_allclose(columns.tested, 0, atol=1e-9)
    assert not np.isnan(columns.seen).any()


def test_many_samples_have_no_inner_products(opened, fold, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 69)
    with pytest.warns(MemofastWarning, match="no linear SVM: it takes 69 samples at most"):
        found = answers(opened, fold, ["la"])
    assert found.keys() == {("logistic regression", "la")}
    assert (found["logistic regression", "la"][0].named == labels(fold.test)).mean() > 0.7


def test_few_samples_have_no_baselines(opened, fold):
    small = replace(fold, train=type(fold.train).of_ids(opened, "train", fold.train.ids[:5]))
    with pytest.warns(MemofastWarning, match="of fold fixed: 5 samples are too few to choose a penalty by"):
        assert answers(opened, small, ["l"]) == {}


def test_words_without_a_word_are_a_column_of_zeros():
    inputs = Inputs(["", "", "12-7"], {})
    assert columns_of(inputs, "text", np.array([0, 1]), np.array([2])).tested.tolist() == [[0]]
    pair = columns_of(inputs, "text", np.array([2, 0]), np.array([2]))
    assert pair.seen.toarray().tolist() == [[1], [0]] and side_by_side([pair], products_of(pair)) is pair


def test_rows_of_text_are_seen_beside_words_or_alone(opened, fold):
    rows = {"visual": "visual", "glove": "text"}
    inputs, places = inputs_of(opened, fold.train.ids, rows), np.arange(70)
    assert inputs.numbers.keys() == rows.keys()
    store = opened.streams["glove"][0]
    expected = summary(store.read(fold.train.ids[3])["rows"].reshape(-1, store.width))
    np.testing.assert_array_equal(inputs.numbers["glove"][3], expected)
    assert inputs.names_of("text") == ["text", "glove"] and inputs.names_of("visual") == ["visual"]
    assert inputs.names_of("speech") == ["speech"]  # of which there is nothing
    seen = Blocks(inputs, places, places[:5]).of(("text",))[1].seen
    apart = [columns_of(inputs, name, places, places[:5]).seen for name in ("text", "glove")]
    words = apart[0].toarray()
    np.testing.assert_allclose(seen, words @ words.T + apart[1] @ apart[1].T, atol=1e-9)
    mute = replace(inputs, words=[""] * 70)
    assert mute.names_of("text") == ["glove"] and Inputs([""], {}).names_of("text") == ["text"]
    np.testing.assert_allclose(Blocks(mute, places, places[:5]).of(("text",))[1].seen, apart[1] @ apart[1].T)
    whole = inputs_of(opened, fold.train.ids)
    assert list(whole.numbers) == ["visual", "speech", "glove"]


@pytest.fixture(scope="module")
def mute(tmp_path_factory):
    """A corpus of values without a word, which its rows of text say, and those of speech do not."""
    folder, random = tmp_path_factory.mktemp("mute"), np.random.default_rng(3)
    ids = [f"s{number:02}" for number in range(60)]
    with (
        TextWriter(folder / "text", value="sentiment") as text,
        FeatureWriter(folder / "bert", 6) as rows,
        FeatureWriter(folder / "speech", 4) as speech,
    ):
        for id in ids:
            value = float(random.uniform(-2, 2))
            text.put(id, [], [], value=value)
            rows.put(id, value + random.normal(0, 0.5, (random.integers(2, 6), 6)))
            speech.put(id, random.normal(size=(2, 4)))
    stores, splits = {name: folder / name for name in ("text", "speech")}, (ids[:36], ids[36:44], ids[44:])
    named = dict(zip(("train", "validation", "test"), splits, strict=True))
    return write_corpus(folder, "mute", stores, named, {}, {"bert": (folder / "bert", "text")}).path


def correlations(results):
    rows = results["baselines"]["ridge regression"]["rows"]
    return {row["condition"]: numbers(row)["runs"]["corr"]["mean"] for row in rows if row["split"] == "test"}


def test_the_command_reads_rows_of_text_where_there_is_no_word(mute, tmp_path):
    told = here(tmp_path, "baseline", mute, "target.kind=regression")
    assert told.returncode == 0, told.stderr
    found = correlations(json.loads((the_run(tmp_path) / "results.json").read_text()))
    assert found.keys() == {"l", "a", "la"} and found["l"] > 0.9 and abs(found["a"]) < 0.6


@pytest.mark.parametrize(("inputs", "read"), [(None, {"speech": "speech", "bert": "text"}), ("bert", {"bert": "text"})])
def test_baselines_of_a_model_read_what_it_reads(mute, tmp_path, monkeypatch, inputs, read):
    given = {"family": "sequence"} | ({"inputs": {"text": inputs}} if inputs else {})
    train = {"epochs": 1, "precision": "fp32", "device": "cpu"}
    told = {"settings_chosen_on": "nothing", "corpus": str(mute), "model": given, "target": {"kind": "regression"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(told | {"train": train}))
    plan = make_fine_tuning_plan(recipe_of(str(tmp_path / "recipe.yaml")))
    assert plan.rows == read
    (test,) = [fold.test for fold in plan.folds]
    truth = truth_of(test, plan.target)
    said = Predictions("regression", tuple(test.ids), truth, np.zeros_like(truth), ())
    runs = [Run(plan.folds[0].name, 42, condition, "test", "validation", said) for condition in plan.evaluate]
    seen = []
    original = module.inputs_of
    monkeypatch.setattr(module, "inputs_of", lambda *given: seen.append(given[2]) or original(*given))
    results = with_baselines(results_of(runs), plan, runs, tmp_path / "run", Console(quiet=True))
    assert seen == [read] and correlations(results)["l"] > 0.9


def test_a_share_of_the_labels_is_drawn_by_seed(opened, fold):
    target = LabelSpace.of_corpus(opened)
    found = list(simple_baselines(opened, [fold], target, ["a"], [1, 2], share=0.3))
    assert [(name, run.seed) for name, run, _ in found] == [
        (name, seed) for seed in (1, 2) for name in ("logistic regression", "linear SVM")
    ]
    assert not np.array_equal(found[0][1].predictions.scores, found[2][1].predictions.scores)
    assert not list(simple_baselines(opened, [replace(fold, test=None)], target, ["v"], [1]))


def test_the_command_prints_and_keeps_a_table(corpus, tmp_path):
    told = here(tmp_path, "baseline", corpus, "modalities.evaluate=[l,a]", "folds.by=speaker")
    assert told.returncode == 0, told.stderr
    assert "a, linear SVM" in told.stdout and "l, logistic regression" in told.stdout and "majority" in told.stdout
    kept = json.loads((the_run(tmp_path) / "results.json").read_text())
    assert kept["baseline_settings"].keys() == {"logistic regression", "linear SVM"}
    assert [row["condition"] for row in kept["baselines"]["linear SVM"]["rows"]] == ["l", "a"]
    assert (the_run(tmp_path) / "results.md").read_text().startswith("# Simple baselines of ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["model.head=vqa"], "model.head=vqa: baselines have no such setting; they take folds, target"),
        (["train.epochs=3"], "train.epochs=3: baselines have no such setting"),
        (["folds.test=null"], "no fold has a test part"),
        (["target.kind=regression"], "has no values to learn"),
        (["baselines=false"], "baselines=false: baselines have no such setting"),
    ],
)
def test_what_baselines_do_not_take(corpus, tmp_path, line, says):
    refused = here(tmp_path, "baseline", corpus, *line)
    assert refused.returncode == 2 and says in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_raw_rows_are_refused(tmp_path):
    raw = demo_corpus(tmp_path / "raw", {"train": 30, "test": 9}, raw=True)
    refused = here(tmp_path, "baseline", raw, "folds.validation=null")
    assert refused.returncode == 2 and "raw rows of visual" in refused.stderr
