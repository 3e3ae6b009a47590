import json

import numpy as np
import pytest
from runs import here

from memofast.data import Corpus
from memofast.prepare.sources.npz import FER_PLUS

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "wor", "##ld", "there", "!", "#", "a"]


@pytest.fixture
def original(tmp_path):
    """A small export of the original: captions, faces and speech, some of them broken; returns the arrays by file
    name."""
    random = np.random.default_rng(0)
    faces, speech = tmp_path / "faces", tmp_path / "speech"
    faces.mkdir()
    speech.mkdir()
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    captions = {f"film_{i}": [f"Hello world {'!' * (i % 2)}"] for i in range(8)} | {"film_mute": ["   "]}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    arrays = {}
    for i in range(8):
        n = 5 + 10 * i
        arrays[i] = {
            "features": random.standard_normal((n, 342)).astype(np.float16),
            "confidence": (np.arange(n) % 4 / 4).astype(np.float16),
            "soft_labels": random.dirichlet(np.ones(8), n).astype(np.float16),
            "frame_idxs": np.arange(n).astype(np.float16),
        }
        np.savez(faces / f"film_{i}.npz", **arrays[i])
        np.savez(
            speech / f"film_{i}.npz",
            features=random.standard_normal((n, 24)).astype(np.float16),
            frame_idxs=np.arange(n),
        )
    whole = (faces / "film_2.npz").read_bytes()
    (faces / "film_2.npz").write_bytes(whole[: len(whole) // 2])
    (faces / "film_3.npz").unlink()
    np.savez(faces / "film_4.npz", **(arrays[4] | {"features": np.zeros((45, 341), np.float16)}))
    np.savez(faces / "film_5.npz", **(arrays[5] | {"confidence": np.full(55, 0.5, np.float16)}))
    return arrays


def run(tmp_path, *options):
    paths = {"captions": "captions.json", "out": "out", "vocab": "vocab.txt"}
    paths |= {"visual": "faces", "speech": "speech"}
    paths |= dict(zip(options[::2], options[1::2], strict=True))
    given: list[object] = ["--name", "film"]
    for option, value in paths.items():
        given += [f"--{option}", value if option == "validation" else str(tmp_path / value)]
    return here(tmp_path, "import-npz", *given)


def test_import_writes_a_corpus_and_counts_what_it_leaves_out(tmp_path, original):
    for _ in range(2):  # again: nothing changes
        result = run(tmp_path, "validation", "2")
        assert result.returncode == 0, result.stderr
        assert "text: 8 taken, 1 without words" in result.stdout
        assert "visual: 5 taken, 1 unreadable (BadZipFile), 1 missing, 1 of another width" in result.stdout
        assert "speech: 8 taken" in result.stdout
    corpus = Corpus.open(tmp_path / "out")
    assert (len(corpus.split("train")), len(corpus.split("validation"))) == (6, 2)
    report = json.loads((tmp_path / "out/import.json").read_text())
    assert report["visual"]["refused"]["unreadable (BadZipFile)"] == [str(tmp_path / "faces/film_2.npz")]
    visual = corpus.stores["visual"]
    assert visual.rows_of == {"film_0": 1, "film_1": 3, "film_5": 0, "film_6": 16, "film_7": 18}
    found, kept = visual.read("film_7"), np.arange(3, 75, 4)
    np.testing.assert_array_equal(found["rows"], original[7]["features"][kept])
    np.testing.assert_array_equal(found["soft_labels"], original[7]["soft_labels"][kept])
    np.testing.assert_allclose(found["times"], kept / 10)
    assert corpus.classes["soft_labels"] == list(FER_PLUS)
    assert corpus.stores["speech"].lengths.max() == 64
    text = corpus.stores["text"].read("film_1")
    assert text["tokens"].tolist() == [2, 5, 6, 7, 9, 3]
    assert text["words"].tolist() == [-1, 0, 1, 1, 2, -1]


def test_mistakes_are_one_line_and_code_2(tmp_path, original):
    for options, says in (
        (("vocab", "none.txt"), "no vocabulary at"),
        (("captions", "none.json"), "none.json cannot be read"),
        (("captions", "vocab.txt"), "vocab.txt are not"),
        (("visual", "none"), "no folder"),
    ):
        result = run(tmp_path, *options)
        assert result.returncode == 2
        assert says in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    (tmp_path / "captions.json").write_text('{"a": [""]}')
    assert "give no sample" in run(tmp_path, "out", "none").stderr
