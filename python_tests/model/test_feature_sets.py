"""Feature sets: those of other extractors are not mixed, models know what they learnt from, streams are read."""

import json
import shutil

import pytest
import torch
from runs import here, pretrain, small_corpus, small_recipe, the_run

from memofast.data import Corpus
from memofast.data.demo import SPEECH_WIDTH, VISUAL_WIDTH, vocabulary
from memofast.data.feature_choice import parse_features, reading
from memofast.errors import MemofastError
from memofast.inference.preparation import keep_preparation
from memofast.model import MemoBertConfig, MemoBertForEmotion
from memofast.model.feature_sets import (
    FeatureSet,
    check_feature_sets,
    feature_sets_in,
    feature_sets_of,
    joined,
    keep_feature_sets,
    unknown_feature_sets,
)

FACES, SOUND = FeatureSet("denseface", "d1", VISUAL_WIDTH), FeatureSet("wav2vec2, mean of 3", "w1", SPEECH_WIDTH)


def told(store, **entries):
    """The description of a store says this."""
    meta = json.loads((store / "meta.json").read_text())
    (store / "meta.json").write_text(json.dumps(meta | entries))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of known extractors, with a further store of speech rows as wide, and one under another name."""
    folder = tmp_path_factory.mktemp("feature_sets")
    corpus = small_corpus(folder)
    told(corpus / "visual", extractor="denseface, faces by yunet", fingerprint="d1")
    told(corpus / "speech", extractor="wav2vec2, mean of 3", fingerprint="w1")
    shutil.copytree(corpus / "speech", corpus / "other")
    told(corpus / "other", extractor="wav2vec2 layer conv, mean of 3", fingerprint="w2")
    described = json.loads((corpus / "corpus.json").read_text())
    described["streams"]["conv"] = {"store": "other", "modality": "speech"}
    (corpus / "corpus.json").write_text(json.dumps(described))
    return corpus


def copied(made, folder, **stores):
    """Another corpus, whose stores say otherwise."""
    other = shutil.copytree(made, folder / "second")
    described = json.loads((other / "corpus.json").read_text())
    (other / "corpus.json").write_text(json.dumps(described | {"name": "second"}))
    for modality, entries in stores.items():
        told(other / modality, **entries)
    return other


def test_what_a_corpus_says_of_its_rows(made):
    assert feature_sets_of(Corpus.open(made)) == {"visual": FACES, "speech": SOUND}
    assert (
        str(FACES) == "denseface (d1)" and str(FeatureSet("", "", 5)) == "rows of an unnamed extractor (no fingerprint)"
    )


def test_corpora_of_other_extractors_are_not_read_together(made, tmp_path):
    first = Corpus.open(made)
    detected = Corpus.open(copied(made, tmp_path, visual={"extractor": "denseface, faces by openface"}))
    assert joined([first, detected]) == ({"visual": FACES, "speech": SOUND}, [])
    told(tmp_path / "second/visual", extractor="denseface layer trans1")  # of the same weights
    with pytest.raises(MemofastError, match=r"visual rows are of denseface \(d1\) in corpus .* denseface layer trans1"):
        joined([first, Corpus.open(tmp_path / "second")])
    told(tmp_path / "second/visual", extractor="faces of a pickle", fingerprint="")
    for order in ([0, 1], [1, 0]):
        both = [first, Corpus.open(tmp_path / "second")]
        sets, lines = joined([both[n] for n in order])
        assert sets == {"visual": FACES, "speech": SOUND}
        assert len(lines) == 1 and "faces of a pickle (no fingerprint)" in lines[0] and "is not known" in lines[0]
    told(tmp_path / "second/speech", fingerprint="w3")
    recipe = small_recipe(tmp_path, made)
    asked = f"corpora.1={{path: {tmp_path / 'second'}}}"
    refused = pretrain(tmp_path, recipe, asked, "--dry-run")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "speech rows are of wav2vec2, mean of 3 (w1)" in refused.stderr and "mean of 3 (w3)" in refused.stderr


def test_a_checkpoint_knows_what_it_was_trained_on(made, tmp_path):
    recipe = small_recipe(tmp_path, made, train={"updates": 1, "save_every": 1}, validate={"every": 1})
    done = pretrain(tmp_path, recipe)
    assert done.returncode == 0 and f"visual rows: denseface (d1), {VISUAL_WIDTH} wide" in done.stderr
    run = the_run(tmp_path)
    assert feature_sets_in(run) == {"visual": FACES, "speech": SOUND}
    assert "- speech rows: wav2vec2, mean of 3 (w1)" in (run / "report.md").read_text()
    again = [f"model.init={run}", "--dry-run"]
    same = pretrain(tmp_path, recipe, *again)
    assert same.returncode == 0 and "is not known" not in same.stdout
    other = pretrain(tmp_path, recipe, "corpora.0.features={speech: conv}", *again)
    assert other.returncode == 2 and len(other.stderr.splitlines()) == 1
    assert "was trained on speech rows of wav2vec2, mean of 3 (w1)" in other.stderr and "layer conv" in other.stderr
    asked = [f"corpus={made}", *again]
    tuned = here(tmp_path, "finetune", *asked)
    assert tuned.returncode == 0 and "speech rows: wav2vec2, mean of 3 (w1)" in tuned.stdout
    tuned = here(tmp_path, "finetune", *asked, "modalities.features.speech=conv")
    assert tuned.returncode == 2 and "was trained on speech rows of wav2vec2, mean of 3 (w1)" in tuned.stderr
    for old in run.glob("checkpoints/*/features.json"):  # as an older one lacks it
        old.unlink()
    for program, line in (("pretrain", [recipe]), ("finetune", [f"corpus={made}"])):
        said = here(tmp_path, program, *line, *again)
        assert said.returncode == 0 and said.stdout.count("an extractor that its folder does not name") == 2


def test_a_fine_tuned_model_keeps_those_that_it_was_shown(made, tmp_path):
    keep_preparation(Corpus.open(made), ("lv", "l"), tmp_path, None)
    assert feature_sets_in(tmp_path) == {"visual": FACES}
    (tmp_path / "features.json").unlink()
    keep_preparation(Corpus.open(made), ("l",), tmp_path, None)
    assert not (tmp_path / "features.json").exists()


def test_a_model_is_evaluated_on_its_own_rows(made, tmp_path):
    corpus = Corpus.open(made)
    names = dict(enumerate(corpus.classes["label"]))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    torch.manual_seed(0)
    model = MemoBertForEmotion(MemoBertConfig(
        vocab_size=len(vocabulary()), mask_token_id=4, **sizes, visual_width=VISUAL_WIDTH, speech_width=SPEECH_WIDTH,
        id2label=names, label2id={name: number for number, name in names.items()},
    ))  # fmt: skip
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    line = [folder, "--corpus", made, "--conditions", "va"]
    said = here(tmp_path, "evaluate", *line)
    assert said.returncode == 0 and said.stdout.count("an extractor that its folder does not name") == 2, said.stderr
    conv = FeatureSet("wav2vec2 layer conv, mean of 3", "w2", SPEECH_WIDTH)
    keep_feature_sets({"visual": FACES, "speech": conv}, folder)
    refused = here(tmp_path, "evaluate", *line)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert f"was trained on speech rows of {conv}, those of corpus {made} are of {SOUND}" in refused.stderr
    extracting = ["extract", folder, "--corpus", made, "--split", "test", "--out", "a.npz"]
    assert here(tmp_path, *extracting).returncode == 2 and not (tmp_path / "a.npz").exists()
    for program in (["evaluate", *line], extracting):
        fits = here(tmp_path, *program, "--features", "speech=conv")
        assert fits.returncode == 0 and "whether these are alike" not in fits.stdout, fits.stderr
    matrix = here(tmp_path, "evaluate", *line, folder, "--features", "speech=conv")
    assert matrix.returncode == 2 and "--features is for one model on one corpus" in matrix.stderr
    keep_feature_sets({"visual": FACES, "speech": FeatureSet("rows of a pickle", "", SPEECH_WIDTH)}, folder)
    (unsure,) = unknown_feature_sets(folder, corpus)
    assert "those of rows of a pickle (no fingerprint)" in unsure
    check_feature_sets(folder, corpus)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"visual": {"extractor": "a"}}',
        '{"speech": {"extractor": "a\\nb", "fingerprint": "", "width": 3}}',
        '{"speech": {"extractor": "", "fingerprint": "", "width": -3}}',
    ],
)
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(MemofastError, match=r"features\.json is not a record of extractors") as error:
        feature_sets_in(tmp_path)
    assert "\n" not in str(error.value)


def test_a_stream_is_read_as_its_modality(made):
    corpus = Corpus.open(made)
    read = reading(corpus, {"speech": "conv"})
    assert read.stores["speech"].path == made / "other" and [*read.stores] == [*corpus.stores]
    assert read.stores["visual"] is corpus.stores["visual"] and corpus.stores["speech"].path == made / "speech"
    assert parse_features(["speech=conv", "visual=a=b"]) == {"speech": "conv", "visual": "a=b"}
    for features, message in (
        ({"speech": "glove"}, "no stream 'glove' of speech; it has conv"),
        ({"visual": "conv"}, "of visual; it has none"),
        ({"text": "glove"}, "no stream 'glove' of text"),
    ):  # fmt: skip
        with pytest.raises(MemofastError, match=message):
            reading(corpus, features)
    for given in (["speech"], ["speech="], ["words=a"], ["speech=a", "speech=b"]):
        with pytest.raises(MemofastError, match="is not MODALITY=STREAM"):
            parse_features(given)
