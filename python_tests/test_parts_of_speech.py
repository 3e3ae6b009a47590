"""Parts of speech and polarities of words: from lines of a file, from senses, from streams, into a training."""

import json

import numpy as np
import pytest
import yaml
from runs import here, losses, pretrain, small_corpus, small_recipe, the_run

from memofast.data import Corpus
from memofast.data.corpus import write_corpus
from memofast.store import FeatureWriter, TextWriter

WORDS = [0, 0, 1, 2, 2]  # three words in five pieces
SENSES = "# POS\tID\n" + "".join(
    f"{pos}\t{number:08}\t{good}\t{bad}\t{terms}\ta gloss\n"
    for number, (pos, good, bad, terms) in enumerate([
        ("a", 0.75, 0, "glad#1 happy#2"), ("a", 0, 0.5, "happy#1 ill#3"), ("n", 0, 0.625, "ill#1"),
        ("v", 0.1, 0.1, "be#1"),
    ])
)  # fmt: skip
SOUND = {"polarity": [0, 1, 2]}


def corpus_of(folder, ids, name="words", streams=False):
    """Sentences of three words; with a class by turns, the last one's unknown."""
    with TextWriter(folder / "text", cls_id=2, sep_id=3, classes=["low", "high"], lexicon_classes=["x", "y"]) as out:
        for number, id in enumerate(ids):
            pieces = [10 + (number * 7 + place) % 50 for place in range(len(WORDS))]
            label = None if number == len(ids) - 1 else number % 2
            out.put(id, pieces, WORDS, lexicon=[-1, -1, 0, 1, 1], utf8=f"text {number}", label=label)
    told = {}
    for stream, values in {"pos_ids": [4, 3, 3, 1, 0, 0, 4], "word_senti_ids": [2, 2, 2, 0, 1, 1, 2]}.items():
        if streams:
            with FeatureWriter(folder / stream, 1, dtype="float32") as out:
                out.put(ids[0], np.array(values, np.float32)[:, None])
            told[stream] = (folder / stream, "text")
    third = len(ids) // 3
    splits = {"train": ids[: 2 * third], "validation": ids[2 * third :]}
    return write_corpus(folder, name, {"text": folder / "text"}, splits, streams=told)


def lines(folder, *given):
    path = folder / "given.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in given))
    return path


def columns(folder, id):
    record = Corpus.open(folder).stores["text"].read(id)
    return record["part_of_speech"].tolist(), record["polarity"].tolist()


def test_words_and_pieces_of_a_file(tmp_path):
    before = corpus_of(tmp_path, ["a", "b", "c"]).stores["text"].read("b")
    given = [
        {"id": "a", "part_of_speech": ["noun", "VBZ", "RBR"], "polarity": [2, "negative", "positive"]},
        {"id": "c", "part_of_speech": [0, "JJ", "NNP", "RP", "NUM"], "polarity": [0, 1, 2, 1, 0]},
    ]
    ended = here(tmp_path, "parts-of-speech", tmp_path, lines(tmp_path, *given))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "2 samples have parts of speech, 1 without are of other, neutral words\n"
    assert columns(tmp_path, "a") == ([4, 3, 3, 0, 2, 2, 4], [2, 2, 2, 0, 1, 1, 2])
    assert columns(tmp_path, "c") == ([4, 0, 1, 3, 4, 4, 4], [2, 0, 1, 2, 1, 0, 2])
    assert columns(tmp_path, "b") == ([4] * 7, [2] * 7)
    after = Corpus.open(tmp_path).stores["text"].read("b")
    assert all(np.array_equal(before[name], after[name]) for name in before) and len(after) == len(before) + 2


def test_polarities_of_first_senses(tmp_path):
    corpus_of(tmp_path, ["a", "b", "c"])
    (tmp_path / "senses.txt").write_text(SENSES)
    given = lines(
        tmp_path,
        {"id": "a", "part_of_speech": ["adjective", "noun", "verb"], "words": ["Happy", "ill", "be"]},
        {"id": "b", "part_of_speech": ["JJ", "JJ", "NN"], "words": ["glad", "ill", "unknown"]},
    )
    assert here(tmp_path, "parts-of-speech", tmp_path, given, "--senses", tmp_path / "senses.txt").returncode == 0
    assert columns(tmp_path, "a")[1] == [2, 0, 0, 0, 2, 2, 2]
    assert columns(tmp_path, "b")[1] == [2, 1, 1, 2, 2, 2, 2]


def test_columns_of_the_originals_databases_are_streams(tmp_path):
    corpus_of(tmp_path, ["a", "b", "c"], streams=True)
    for _ in range(2):  # again, of the store that it made
        assert here(tmp_path, "parts-of-speech", tmp_path).stdout.startswith("1 samples have parts of speech, 2 ")
        assert columns(tmp_path, "a") == ([4, 3, 3, 1, 0, 0, 4], [2, 2, 2, 0, 1, 1, 2])
    assert len(list(tmp_path.glob("text-words-*"))) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"id": "a", "part_of_speech": [0, 1], **SOUND}, "has 2 entries, sample 'a' has 3 words in 5 "),
        ({"id": "a", "part_of_speech": [0, 1, 5], **SOUND}, "part_of_speech 5; they are verb, adjective"),
        ({"id": "a", "part_of_speech": ["verbs", 1, 0], **SOUND}, "part_of_speech 'verbs'; they are verb"),
        ({"id": "a", "part_of_speech": [0, 1, 2], "polarity": [0, -1, 2]}, "polarity -1; they are negative, "),
        ({"id": "a", "part_of_speech": [0, 1, 2]}, "has no polarity; give it, or as many words"),
        ({"id": "z", "part_of_speech": [0, 1, 2], **SOUND}, "'z' is no sample of the corpus; take"),
        ({"id": "a", "part_of_speech": 3, **SOUND}, "part_of_speech: input should be a valid list"),
        ([1], "give id, part_of_speech and polarity or words"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tmp_path, line, told):
    corpus_of(tmp_path, ["a", "b", "c"])
    ended = here(tmp_path, "parts-of-speech", tmp_path, lines(tmp_path, line))
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and told in ended.stderr, ended.stderr
    assert "given.jsonl line 1" in ended.stderr and not list(tmp_path.glob("text-words-*"))


def test_a_corpus_that_lacks_what_an_objective_needs_is_one_line(tmp_path):
    small_corpus(tmp_path)
    corpus_of(tmp_path / "said", [*"abcdef"])
    given = lines(tmp_path, *({"id": id, "part_of_speech": [0, 1, 2], **SOUND} for id in "abcdef"))

    def told(corpus, **objectives):
        recipe = small_recipe(tmp_path, tmp_path / corpus)
        recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | {"objectives": objectives}))
        ended = pretrain(tmp_path, recipe)
        assert ended.returncode == 2 and ended.stderr.count("\n") == 1
        return ended.stderr

    lacking = "objectives.lare: no corpus can serve it, none has text rows and part_of_speech and polarity and "
    assert f"{lacking}label; leave it out" in told("said", lare={})
    assert "label of corpus" in (few := told("corpus", lare={})) and few.endswith("lare.sentence_classes=8\n")
    assert here(tmp_path, "parts-of-speech", tmp_path / "said", given).returncode == 0
    assert f"{lacking}emotions; leave it out" in told("said", lare={"sentence": "emotions"})
    few = told("corpus", whole_word_mlm={"emotion_rate": 1})
    assert f"lexicon of corpus {tmp_path / 'corpus'} is of 7 classes, more than 6; set objectives." in few
    assert few.endswith("set objectives.whole_word_mlm.emotion_classes=7\n")


def test_a_corpus_of_text_alone_beside_a_trimodal_one(tmp_path):
    """LARE and masked words with classes on one without faces and speech, the published four on the other."""
    ids = [f"s{number}" for number in range(30)]
    corpus_of(tmp_path / "said", ids, "said")
    given = [{"id": id, "part_of_speech": [n % 5, 3, 4], "polarity": [n % 3, 2, n % 2]} for n, id in enumerate(ids)]
    assert here(tmp_path, "parts-of-speech", tmp_path / "said", lines(tmp_path, *given)).returncode == 0
    assert here(tmp_path, "parts-of-speech", tmp_path / "said").returncode == 2
    corpora = [
        {"path": str(small_corpus(tmp_path)), "objectives": ["span_visual_regression"]},
        {"path": str(tmp_path / "said"), "objectives": ["emotion", "lare"]},
    ]
    chosen = {
        "span_visual_regression": {"share": 1},
        "emotion": {"kind": "whole_word_mlm", "share": 1, "emotion_rate": 0.5, "policy": "whole_word_emotion"},
        "lare": {"share": 1, "late_supervision": "1/2"},
    }
    for mixing in ("update", "sample"):
        folder = tmp_path / mixing
        folder.mkdir()
        recipe = small_recipe(folder, None, train={"updates": 4, "mixing": mixing}, validate={"every": 4})
        values = yaml.safe_load(recipe.read_text()) | {"corpora": corpora, "objectives": chosen}
        recipe.write_text(yaml.safe_dump(values))
        ended = pretrain(folder, recipe)
        assert ended.returncode == 0, ended.stderr
        scores = {entry["objective"]: entry for entry in losses(the_run(folder)) if entry["split"] == "validation"}
        assert scores.keys() == chosen.keys()
        assert scores["lare"].keys() >= {"accuracy.words", "accuracy.part_of_speech", "accuracy.sentence", "trivial"}
        assert 0 < scores["emotion"]["targets.emotions"] <= scores["emotion"]["targets"]
