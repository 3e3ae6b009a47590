"""Hard negatives by what a model made of samples: whose pooled vectors are compared, and files that do not fit."""

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import small_corpus

from memofast import objectives
from memofast.data import Corpus, Facts
from memofast.data.demo import SPEECH_WIDTH, VISUAL_WIDTH, vocabulary
from memofast.errors import MemofastError
from memofast.inference.hidden_states.extraction import extract_into
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.objectives.pooled_rows import pooled_rows
from memofast.ops.philox import Purpose
from memofast.train.folder import resolved
from memofast.train.plan import make_plan
from memofast.train.recipe import read


class Samples:
    """Of all modalities, without rows that anybody could compare."""

    name, corpus = "train", SimpleNamespace(path="corpora/c")

    def __init__(self, count):
        self.ids = [f"clip {number}" for number in range(count)]
        self.keys = np.random.default_rng(7).integers(-(2**62), 2**62, count)
        self.facts = Facts(np.full((count, 3), 4, np.int32), frozenset(), lambda: None)


def written(path, ids, pooled, **further):
    np.savez(path, ids=np.array(ids), pooled=np.asarray(pooled, np.float32), **further)
    return str(path)


def test_the_most_alike_by_pooled_vectors_are_shown(tmp_path):
    split, everyone = Samples(40), np.arange(40)
    angles = np.linspace(0, np.pi, 40)
    order = np.random.default_rng(3).permutation(40)  # of the file, in which there are others too
    rows = np.stack((np.cos(angles), np.sin(angles)), 1)[order]
    path = written(
        tmp_path / "a.npz", ["other", *(split.ids[n] for n in order)], [[9, 9], *rows], text_rows=np.zeros((3, 2))
    )
    objective = objectives.build({"matching": {"candidates": 30, "pooled": path, "negatives": "9/10"}})["matching"]
    shown = objective.places(split, everyone, everyone, 1, 0, Purpose.PARTNER)
    np.testing.assert_array_equal(shown["visual"], shown["speech"])
    replaced = shown["visual"] != everyone
    assert 30 < replaced.sum() < 40 and np.abs(shown["visual"] - everyone)[replaced].mean() < 2
    (tmp_path / "a.npz").unlink()  # it was read once
    some = np.array([7, 3])
    np.testing.assert_array_equal(
        objective.places(split, everyone, some, 1, 0, Purpose.PARTNER)["visual"], shown["visual"][some]
    )


def test_files_of_extract_are_read(tmp_path, monkeypatch):
    """By a model that is shown faces and speech alone."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    widths = {"visual_width": VISUAL_WIDTH, "speech_width": SPEECH_WIDTH}
    torch.manual_seed(0)
    MemoBertForPreTraining(
        MemoBertConfig(vocab_size=len(vocabulary()), mask_token_id=4, **sizes, **widths)
    ).save_pretrained(tmp_path / "model")
    corpus = Corpus.open(small_corpus(tmp_path))
    extract_into(tmp_path / "va.npz", tmp_path / "model", corpus.path, ["validation", "train"], "va")
    split = corpus.split("train")
    rows = pooled_rows(str(tmp_path / "va.npz"), split, "objective m")
    with np.load(tmp_path / "va.npz") as told:
        assert rows.shape == (48, 32) and rows[5].tolist() == told["pooled"][16:][5].tolist()
    monkeypatch.chdir(tmp_path)
    asked = ["objectives={matching: {candidates: 8, pooled: va.npz}}", "train.samples=8"]
    plan = make_plan(read("demo", [f"corpora.0.path={corpus.path}", *asked]))
    assert resolved(plan).objectives["matching"]["pooled"] == str(tmp_path / "va.npz")
    shown = plan.objectives["matching"].places(split, np.arange(48), np.arange(48), 1, 0, Purpose.PARTNER)
    assert 8 < (shown["visual"] != np.arange(48)).sum() < 40


def refused(path, count=3):
    with pytest.raises(MemofastError) as error:
        pooled_rows(str(path), Samples(count), "objective m")
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert str(error.value).startswith("objective m: ") and "write it with memofast extract MODEL" in str(error.value)
    return str(error.value)


def test_files_that_do_not_fit_are_one_line(tmp_path):
    ids, rows = Samples(3).ids, np.ones((3, 2))
    assert "No such file" in refused(tmp_path / "none.npz")
    lacking = refused(written(tmp_path / "a.npz", ids[:1], rows[:1]))
    assert "lacks 'clip 1', 2 of 3 samples of split train of corpus corpora/c" in lacking
    assert "names a sample twice" in refused(written(tmp_path / "b.npz", [*ids, ids[0]], np.ones((4, 2))))
    assert "not finite" in refused(written(tmp_path / "c.npz", ids, rows * np.nan))
    assert "ids [3] <U6 with pooled [2, 2] float32" in refused(written(tmp_path / "d.npz", ids, rows[:2]))
    np.savez(tmp_path / "e.npz", ids=np.array(ids), pooled=rows)
    assert "pooled [3, 2] float64" in refused(tmp_path / "e.npz")
    np.savez(tmp_path / "f.npz", ids=np.array(ids))
    assert "it has no pooled" in refused(tmp_path / "f.npz")
    np.savez(tmp_path / "g.npz", ids=np.array(ids, object), pooled=rows.astype(np.float32))
    assert "values of the kind '|O'" in refused(tmp_path / "g.npz")
    (tmp_path / "h.npz").write_bytes(b"no archive")
    refused(tmp_path / "h.npz")
    names, header = io.BytesIO(), io.BytesIO()
    np.save(names, np.array(ids))
    declared = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 768)}  # which would take 3 PB
    np.lib.format.write_array_header_1_0(header, declared)
    with zipfile.ZipFile(tmp_path / "i.npz", "w") as archive:
        archive.writestr("ids.npy", names.getvalue())
        archive.writestr("pooled.npy", header.getvalue())
    assert "shape [1099511627776, 768] takes over" in refused(tmp_path / "i.npz")


def test_a_file_needs_candidates(tmp_path):
    with pytest.raises(MemofastError, match="pooled has no effect with one candidate; raise candidates"):
        objectives.build({"matching": {"pooled": "a.npz"}})
    objective = objectives.build({"matching": {"pooled": str(tmp_path / "a.npz"), "candidates": 2}})["matching"]
    with pytest.raises(MemofastError, match=r"objective matching: .*No such file"):  # when the run is planned
        objective.places(Samples(3), np.arange(3), np.arange(0), 1, 0, Purpose.PARTNER)
