"""Pickles of MMSA and MultiBench as corpora: padding, infinities, values, groups, and files that are something else."""

import json
import pickle
import sys

import numpy as np
import pytest

from memofast.data.corpus import Corpus
from memofast.data.folds import read_groups

SPLITS = {"train": 4, "valid": 2, "test": 2}


@pytest.fixture
def imported(monkeypatch, capsys, tmp_path):
    """Runs the command on these contents; returns exit code and what was printed."""

    def run_here(contents, *arguments):
        from memofast.cli import run
        from memofast.import_features import main

        (tmp_path / "f.pkl").write_bytes(pickle.dumps(contents))
        given = [tmp_path / "f.pkl", "--out", tmp_path / "c", *arguments]
        monkeypatch.setattr(sys, "argv", ["import-features", *map(str, given)])
        with pytest.raises(SystemExit) as ended:
            run(main, "import-features")
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out + captured.err

    return run_here


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]))
    return path


def multibench():
    """Rows k of a sample of n true rows hold k + 1; zeros in front."""
    contents = {}
    for split, count in SPLITS.items():
        part = {"vision": np.zeros((count, 6, 3)), "audio": np.zeros((count, 6, 5)), "text": np.zeros((count, 6, 4))}
        for place in range(count):
            for rows in part.values():
                rows[place, -(place + 2) :] = np.arange(1, place + 3)[:, None]
        labels = np.linspace(-3, 3, count).reshape(count, 1, 1)
        contents[split] = part | {"labels": labels, "id": np.array([f"{split}{i // 2}[{i}]" for i in range(count)])}
    return contents


def mmsa():
    """Unaligned: lengths, zeros at the back of audio and in front of vision."""
    contents = {}
    for split, count in SPLITS.items():
        audio, vision, bert = np.zeros((count, 8, 5)), np.zeros((count, 9, 2)), np.zeros((count, 3, 5))
        lengths = [place + 2 for place in range(count)]
        for place, length in enumerate(lengths):
            audio[place, :length], vision[place, 9 - length :], bert[place, :2, : place + 1] = 1, 2, 1
        contents[split] = {
            "raw_text": np.array(["red blue"] * count, object),
            "text": np.ones((count, 5, 4)),
            "text_bert": bert,
            "audio": audio,
            "vision": vision,
            "audio_lengths": lengths,
            "vision_lengths": np.array(lengths),
            "id": [f"{split}$_${place}" for place in range(count)],
            "annotations": ["Positive"] * count,
            "regression_labels": np.linspace(-1, 1, count),
        }
    return contents


def test_multibench(imported, tmp_path):
    contents = multibench()
    contents["train"]["audio"][1, 5, 2:4] = np.inf, -np.inf
    contents["train"]["audio"][3, 5, 2] = np.nan
    contents["train"]["text"][2] = 0  # nothing was said
    contents["train"]["vision"][0] = 0  # nobody was seen
    contents["test"]["audio"][1, 4] = 0  # silence between words is no padding
    contents["valid"]["labels"][1] = np.nan
    code, told = imported(contents)
    assert code == 0
    assert "speech: 1 +inf, 1 -inf, 1 NaN in 2 samples (columns 2, 3) are now 0" in told
    assert "1 samples without text left out" in told and "1 labels that are no number" in told
    assert "no sentences in the file" in told
    corpus = Corpus.open(tmp_path / "c")
    assert {name: len(corpus.split(name)) for name in corpus.splits} == {"train": 3, "validation": 2, "test": 2}
    speech, visual = corpus.stores["speech"], corpus.stores["visual"]
    assert speech.read("train1[3]")["rows"][:, 0].tolist() == [1, 2, 3, 4, 5] and speech.dtype == "float32"
    assert speech.read("train0[1]")["rows"][2].tolist() == [3, 3, 0, 0, 3]
    assert speech.read("test0[1]")["rows"][:, 0].tolist() == [1, 0, 3]
    assert "train0[0]" not in visual.rows_of and visual.rows_of["train0[1]"] == 3
    assert read_groups(corpus, "video")["train1[3]"] == "train1"
    batch = corpus.split("validation").pack(np.arange(2))
    assert batch.targets["value"][0] == -3 and batch.targets["value"][1].isnan()
    assert batch.speech.shape == (5, 8) and batch.token_ids.tolist() == [101, 101]
    found = json.loads((tmp_path / "c" / "import.json").read_text())["found"]
    assert len(found) == 3 and corpus.description["protocol_notes"] == found
    assert imported(contents)[0] == 0  # a second run finds everything done


def test_mmsa(imported, vocabulary, tmp_path):
    contents = mmsa()
    contents["train"]["audio_lengths"][0] = 1  # rows go on beyond
    contents["test"]["raw_text"][1] = "red " * 100 + "blue"
    code, told = imported(contents, "--vocab", vocabulary)
    assert code == 0 and "1 lengths that contradict their rows" in told
    assert "1 sentences of more than 100 words, kept without their end" in told
    corpus = Corpus.open(tmp_path / "c")
    text = corpus.stores["text"]
    assert text.read("train$_$0")["tokens"].tolist() == [2, 5, 6, 3]
    assert text.read("train$_$0")["value"].tolist() == [-1]
    for store in ("speech", "visual"):
        rows = corpus.stores[store].rows_of
        assert [rows[f"train$_${place}"] for place in (1, 2, 3)] == [3, 4, 5]
        assert (corpus.stores[store].read("train$_$3")["rows"] > 0).all()
    assert read_groups(corpus, "video")["test$_$1"] == "test"
    assert corpus.streams["text_features"][1] == "text"


def test_a_length_that_contradicts_its_rows_is_told(imported, vocabulary, tmp_path):
    contents = mmsa()
    contents["valid"]["vision_lengths"][0] = 1
    contents["valid"]["vision"][0] = 0
    contents["valid"]["vision"][0, 3:5] = 1
    code, told = imported(contents, "--vocab", vocabulary)
    assert code == 0 and "1 lengths that contradict their rows" in told
    assert Corpus.open(tmp_path / "c").stores["visual"].rows_of["valid$_$0"] == 2


def test_ids_that_name_the_video_alone_are_made_unique(imported, tmp_path):
    contents = multibench()
    for split, count in SPLITS.items():
        contents[split]["id"] = np.array([[split]] * count)
    assert imported(contents)[0] == 0
    assert Corpus.open(tmp_path / "c").split("train").ids == ["train", "train#2", "train#3", "train#4"]


def test_a_video_in_two_splits_leaks(imported, tmp_path):
    contents = multibench()
    contents["test"]["id"] = np.array(["train0[7]", "x[1]"])
    code, told = imported(contents)
    assert code == 2 and "the splits leak: video 'train0' is in train and in test" in told
    assert not (tmp_path / "c").exists()


def test_without_text_steps_are_those_of_all_rows(imported, tmp_path):
    """As of features that were taken of films alone: a row of zeros at one modality's end is a row."""
    contents = multibench()
    for part in contents.values():
        del part["text"]
        part["audio"][:, -1] = 0
    contents["test"]["vision"][1] = contents["test"]["audio"][1] = 0  # nothing at all
    code, printed = imported(contents)
    assert code == 0, printed
    corpus = Corpus.open(tmp_path / "c")
    assert not corpus.streams and corpus.stores["visual"].lengths.tolist() == corpus.stores["speech"].lengths.tolist()
    assert corpus.stores["speech"].read("train0[1]")["rows"].tolist() == [[1.0] * 5, [2.0] * 5, [0.0] * 5]
    assert "1 samples without any rows, kept" in printed
    assert len(corpus.split("test")) == 2 and "test0[1]" not in corpus.stores["visual"].ids


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.clear(), "no pickle of MMSA or MultiBench"),
        (lambda c: c["train"].pop("labels"), "f.pkl, train has no labels, or none of vision, audio, text"),
        (lambda c: c.update(train=[1]), "f.pkl, train has no labels, or none of vision, audio, text"),
        (lambda c: c["train"].update(audio=c["train"]["audio"][:2]), "4 labels, but another number of audio"),
        (lambda c: c["train"].update(audio=["x"] * 4), "audio are not numbers of one shape"),
        (lambda c: c["train"].update(vision=np.zeros(4)), r"vision has shape [4], not [samples, rows, width]"),
        (lambda c: c["test"].pop("vision"), "train and test differ, one has no vision"),
        (lambda c: c["test"].update(labels=print), "is refused: it asks for builtins.print"),
    ],
)
def test_files_of_another_layout(imported, tmp_path, change, told):
    contents = multibench()
    change(contents)
    code, printed = imported(contents)
    assert code == 2 and told in printed and len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()


def deep(depth):
    """2^depth zeros in a few hundred bytes."""
    values = 0.0
    for _ in range(depth):
        values = [values, values]
    return values


def holds_itself():
    values = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("id", ["a\u2028b", "c", "d", "e"], r"sample 0: the id 'a\u2028b' is no line of text"),
        ("id", ["a", "c\rd", "d", "e"], r"sample 1: the id 'c\rd' is no line of text"),
        ("id", ["a", "", "d", "e"], "sample 1: the id '' is no line of text"),
        ("id", ["a", "b", "x" * 501, "e"], "sample 2: the id 'xxx"),
        ("id", ["a", "b\udc80", "d", "e"], r"sample 1: id 'b\udc80' is no text in UTF-8"),
        ("id", np.array([b"a", b"b\xff", b"c", b"d"]), r"sample 1: id b'b\xff' is no text in UTF-8"),
        ("id", [["a"], [], "d", "e"], "sample 1: id holds 0 values"),
        ("id", [["a", ["b"]], "c", "d", "e"], "sample 0: id is a list, neither text nor number"),
        ("id", deep(40), "another number of id"),
        ("id", [deep(40)] * 4, "sample 0: id is a list"),
        ("id", [holds_itself()] * 4, "sample 0: id is a list"),
        ("id", [["x"] * 99] * 4, "sample 0: id holds 99 values"),
        ("id", [{}] * 4, "sample 0: id is a dict"),
        ("id", {0: "a"}, "id is no list with an entry a sample"),
        ("id", "abcd", "id is no list with an entry a sample"),
        ("raw_text", {0: "a", 5: "b", 1: "c", 2: "d"}, "raw_text is no list with an entry a sample"),
        ("raw_text", ["a", b"\xff", "c", "d"], r"sample 1: raw_text b'\xff' is no text in UTF-8"),
        ("raw_text", ["a", ["b", "c"], "c", "d"], "sample 1: raw_text is 2 texts, not one sentence"),
        ("raw_text", ["a", None, "c", "d"], "sample 1: raw_text is a NoneType"),
        ("vision_lengths", list("abcd"), "vision_lengths are not whole numbers"),
        ("vision_lengths", [1, 2, 3, 1.5], "vision_lengths are not whole numbers"),
        ("vision_lengths", [1, 2, 3, float("nan")], "vision_lengths are not whole numbers"),
        ("vision_lengths", [1, 2, 3, 1 << 100], "vision_lengths are not whole numbers"),
        ("audio_lengths", [[1], [2], [3], [4]], "audio_lengths are not whole numbers"),
        ("audio_lengths", [1, 2, 3], "another number of audio_lengths"),
        ("audio", deep(40), "audio are not numbers of one shape"),
        ("audio", deep(7), "audio has shape [2, 2, 2, 2, 2, 2, 2], not [samples, rows, width]"),
        ("audio", holds_itself(), "audio are not numbers of one shape"),
        ("audio", [[[1.0], [1.0, 2.0]]] * 4, "audio are not numbers of one shape"),
        ("audio", [[[0.0] * 500] * 500] * 500, "over 67108864 numbers"),
        ("audio", [[[1 << 100]]] * 4 + [[["x"]]], "audio are not numbers of one shape"),
        ("audio", np.array(["1"] * 4), "audio are not numbers of one shape"),
        ("audio", np.zeros((4, 0, 0)), "audio has shape [4, 0, 0]"),
        ("text_bert", ["x"] * 4, "text_bert are not numbers"),
        ("text_bert", np.array(3), "text_bert are not numbers"),
        ("text_bert", 3, "text_bert are not numbers"),
        ("audio", np.array(None, object), "audio are not numbers"),
        ("regression_labels", 1.5, "1 labels, but another number of"),
        ("id", np.array("a"), "id is no list with an entry a sample"),
        ("regression_labels", np.zeros((4, 0)), "labels are empty"),
        ("regression_labels", [], "labels are empty"),
        ("regression_labels", None, "no labels, or none of vision, audio, text"),
        ("regression_labels", [1 << 2000] * 4, "a number of"),
        ("regression_labels", ["a"] * 4, "labels are not numbers of one shape"),
    ],
)
def test_columns_of_another_kind(imported, vocabulary, tmp_path, key, value, told):
    contents = mmsa()
    contents["train"][key] = value
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == 2 and told in printed and len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_lists_and_old_texts_are_read_as_arrays_are(imported, vocabulary, tmp_path):
    contents, plain = mmsa(), mmsa()
    for part in plain.values():
        for key in ("text", "audio", "text_bert", "regression_labels"):
            part[key] = part[key].tolist()
        part["vision"] = np.array([None, *part["vision"]], object)[1:]  # an array of arrays
        part["raw_text"] = [text.encode() for text in part["raw_text"]]
        part["id"] = np.array(part["id"], "S")
    found = []
    for number, given in enumerate((contents, plain)):
        assert imported(given, "--vocab", vocabulary, "--out", tmp_path / f"c{number}")[0] == 0
        corpus = Corpus.open(tmp_path / f"c{number}")
        found.append({name: store.read("test$_$1") for name, store in corpus.stores.items()})
    for name, columns in found[0].items():
        for column, values in columns.items():
            np.testing.assert_array_equal(values, found[1][name][column])
    assert found[0]["visual"]["rows"].shape == (3, 2) and found[0]["text"]["value"].tolist() == [1]


def test_what_is_left_out_of_labels_and_lengths_is_told(imported, vocabulary, tmp_path):
    contents = mmsa()
    for part in contents.values():
        part["regression_labels"] = np.stack([part["regression_labels"], -part["regression_labels"]], 1)
    code, told = imported(contents, "--vocab", vocabulary)
    assert code == 0 and "8 samples with labels after the first, which are left out" in told


def in_every(part, key, columns, value):
    """The same value in some columns of all true rows of a part."""
    part[key][..., columns] = np.where(part[key].any(-1, keepdims=True), value, 0)


def aligned(contents):
    """MMSA's aligned layout: all modalities in the steps of text, and no lengths."""
    for part in contents.values():
        part |= {key: np.ones((len(part["id"]), 5, part[key].shape[2])) for key in ("audio", "vision")}
        del part["audio_lengths"], part["vision_lengths"]
    return contents


LAYOUTS = {"unaligned": mmsa, "aligned": lambda: aligned(mmsa()), "multibench": multibench}


@pytest.mark.parametrize(
    ("split", "key", "place", "length", "told"),
    [
        ("train", "vision_lengths", 3, 77, "train: vision_lengths of sample 3 is 77, but vision has 0 to 9 rows"),
        ("valid", "audio_lengths", 0, 9, "valid: audio_lengths of sample 0 is 9, but audio has 0 to 8 rows"),
        ("test", "audio_lengths", 1, -1, "test: audio_lengths of sample 1 is -1, but audio has 0 to 8 rows"),
        ("train", "audio_lengths", slice(1, 3), 50, "of 2 samples (1, 2) are as 50, but audio has 0 to 8 rows"),
    ],
)
def test_lengths_beyond_their_arrays(imported, vocabulary, tmp_path, split, key, place, length, told):
    contents = mmsa()
    lengths = np.array(contents[split][key])
    lengths[place] = length
    contents[split][key] = lengths
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == 2 and told in printed and len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("split", "key", "columns", "value", "told"),
    [
        ("train", "audio", [3], np.nan, "train: audio: column 3 is NaN or infinite in every sample"),
        ("valid", "vision", [0, 1], -np.inf, "valid: vision: columns 0, 1 are NaN or infinite in every sample"),
        ("test", "text", [2], np.inf, "test: text: column 2 is NaN or infinite in every sample"),
    ],
)
def test_columns_without_any_number(imported, vocabulary, tmp_path, layout, split, key, columns, value, told):
    contents = LAYOUTS[layout]()
    in_every(contents[split], key, columns, value)
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == 2 and told in printed and len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "c").exists()
    contents[split][key][0][contents[split][key][0].any(-1).nonzero()[0][-1]] = 0.5  # one number in one row
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == 0 and "are now 0" in printed


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", SPLITS)
def test_classes_in_place_of_values(imported, vocabulary, tmp_path, layout, split):
    contents, classes = LAYOUTS[layout](), {"train": [0, 2, 1, 1], "valid": [2, 0], "test": [1, 2]}[split]
    labels = "labels" if layout == "multibench" else "regression_labels"
    contents[split] |= {labels: np.array(classes, np.float32), "classification_labels": classes}
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == 2 and f"{split}: labels are {', '.join(map(str, sorted(set(classes))))} alone" in printed
    assert len(printed.strip().splitlines()) == 1 and not (tmp_path / "c").exists()
    del contents[split]["classification_labels"]
    code, printed = imported(contents, "--vocab", vocabulary)
    assert code == (2 if split == "train" else 0)  # two whole numbers may be values


def test_values_of_single_modalities(imported, vocabulary, tmp_path):
    contents = mmsa()
    for part in contents.values():
        for number, letter in enumerate("TAV", 1):
            part[f"regression_labels_{letter}"] = np.linspace(-1, 1, len(part["id"])) / number
    contents["valid"]["regression_labels_A"][1] = np.nan
    code, told = imported(contents, "--vocab", vocabulary)
    assert code == 0 and "1 labels that are no number" in told
    corpus = Corpus.open(tmp_path / "c")
    targets = corpus.split("validation").pack(np.arange(2)).targets
    assert targets["value"].tolist() == [-1, 1] == targets["value_text"].tolist()
    assert targets["value_speech"][0] == -0.5 and targets["value_speech"][1].isnan()
    assert targets["value_visual"].tolist() == pytest.approx([-1 / 3, 1 / 3])
    del contents["test"]["regression_labels_V"]
    code, told = imported(contents, "--vocab", vocabulary, "--out", tmp_path / "other")
    assert code == 2 and "train and test differ, one has no regression_labels_V" in told
    contents["test"]["regression_labels_V"] = np.array([2, 1, 0])
    code, told = imported(contents, "--vocab", vocabulary, "--out", tmp_path / "other")
    assert code == 2 and "test: regression_labels_V are 0, 1, 2 alone" in told
    contents["test"]["regression_labels_V"] = np.array([0.5])
    code, told = imported(contents, "--vocab", vocabulary, "--out", tmp_path / "other")
    assert code == 2 and "test: 2 labels, but another number of regression_labels_V" in told
    assert not (tmp_path / "other").exists()


def test_an_id_that_looks_like_a_repeated_one_is_kept(imported, tmp_path):
    contents = multibench()
    contents["train"]["id"] = np.array(["train", "train#2", "train", "train"])
    assert imported(contents)[0] == 0
    assert Corpus.open(tmp_path / "c").split("train").ids == ["train", "train#2", "train#3", "train#4"]


def test_widths_that_differ_between_splits(imported):
    contents = multibench()
    contents["test"]["audio"] = np.zeros((2, 6, 7))
    code, told = imported(contents)
    assert code == 2 and "audio is 5 wide in train and 7 in test" in told


def test_sentences_need_a_vocabulary(imported, tmp_path):
    code, printed = imported(mmsa())
    assert code == 2 and "give --vocab" in printed and not (tmp_path / "c").exists()
