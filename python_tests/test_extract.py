"""`memofast extract`: every row belongs to its sample, in each of three kinds of file; what cannot be written is
refused."""

import errno
import os
import pickle
import subprocess
import sys
import zipfile

import mood_runs
import numpy as np
import pytest
import torch
from mood_runs import felt_corpus, mood_corpus, mood_model, poison
from runs import environment

from memofast.data import Corpus, runs_by_length
from memofast.data.conditions import keep
from memofast.inference import loop
from memofast.inference.hidden_states import files
from memofast.model import MemoBertModel

program = mood_runs.program
MODALITIES = ("text", "visual", "speech")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Samples of unequal lengths in each modality; some without speech, the last four without a label."""
    folder = tmp_path_factory.mktemp("extract") / "moods"
    return mood_corpus(folder, labels=lambda number: None if number >= 44 else number % 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mood_model(tmp_path_factory.mktemp("extract") / "model")


def alone(model, corpus, split, condition="lva"):
    """By id what the model makes of each sample by itself: rows by modality, pooled vector."""
    encoder, found = MemoBertModel.from_pretrained(model).eval(), {}
    part = Corpus.open(corpus).split(split)
    for number, id in enumerate(part.ids):
        batch = keep(part.pack([number]), condition)
        with torch.no_grad():
            output = encoder(batch)
        text, visual, speech = (int(getattr(batch, f"{name}_offsets")[-1]) for name in MODALITIES)
        hidden = output.hidden.numpy()
        parts = (
            hidden[1 : max(text - 1, 1)],
            hidden[text : text + visual],
            hidden[text + visual : text + visual + speech],
        )
        found[id] = dict(zip(MODALITIES, parts, strict=True)) | {"pooled": output.pooled[0].numpy()}
    return found


@pytest.mark.parametrize("condition", ["lva", "va", "l"])
def test_npz_rows_are_those_of_their_sample(program, model, corpus, tmp_path, condition, monkeypatch):
    monkeypatch.setattr(
        loop, "runs_by_length", lambda lengths, rows: runs_by_length(lengths, 40)
    )  # several samples in each
    said = program(
        "extract", model, "--corpus", corpus, "--split", "test", "--condition", condition, "--out", tmp_path / "x.npz"
    )
    assert "12 samples of moods" in said and f"condition {condition}" in said
    expected = alone(model, corpus, "test", condition)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert list(found["ids"]) == list(expected) and list(found["classes"]) == ["calm", "glad"]
        assert found["labels"].tolist() == [n % 2 if n < 44 else -1 for n in range(36, 48)]
        for number, own in enumerate(expected.values()):
            np.testing.assert_allclose(found["pooled"][number], own["pooled"], atol=1e-5)
            for name in MODALITIES:
                begin, end = found[f"{name}_offsets"][number : number + 2]
                assert end - begin == len(own[name])
                np.testing.assert_allclose(found[f"{name}_rows"][begin:end], own[name], atol=1e-5)
        assert all(found[f"{name}_offsets"][-1] == len(found[f"{name}_rows"]) for name in MODALITIES)
        assert (found["visual_offsets"][-1] > 0) == ("v" in condition)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_slices_at_padded_offsets_would_be_others(model, corpus, program, tmp_path):
    """The original cut packed rows where a padded table would have them; with unequal lengths those are another
    modality's."""
    program("extract", model, "--corpus", corpus, "--split", "test", "--out", tmp_path / "x.npz")
    part = Corpus.open(corpus).split("test")
    batch = part.pack(range(len(part)))
    with torch.no_grad():
        hidden = MemoBertModel.from_pretrained(model).eval()(batch).hidden.numpy()
    longest, number = part.lengths.max(0), 0
    own = part.lengths[number]
    assert own[0] < longest[0]
    with np.load(tmp_path / "x.npz") as found:
        visual = found["visual_rows"][slice(*found["visual_offsets"][number : number + 2])]
    wrong = hidden[longest[0] : longest[0] + own[1]]
    assert np.abs(visual - wrong).max() > 0.1
    np.testing.assert_allclose(visual, hidden[own[0] : own[0] + own[1]], atol=1e-5)


def test_parquet_has_a_line_per_sample(program, model, corpus, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(files, "_PIECE", 4096)
    said = program(
        "extract",
        model,
        "--corpus",
        corpus,
        "--split",
        "validation",
        "--split",
        "test",
        "--out",
        tmp_path / "x.parquet",
    )
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups > 2 and f"{file.num_row_groups} row groups" in said
    lines = file.read().to_pylist()
    expected = alone(model, corpus, "validation") | alone(model, corpus, "test")
    assert [line["id"] for line in lines] == list(expected)
    assert [line["split"] for line in lines] == ["validation"] * 12 + ["test"] * 12
    assert lines[-1]["label"] is None and lines[-1]["class"] is None and lines[1]["class"] == "glad"
    for line, own in zip(lines, expected.values(), strict=True):
        for name in MODALITIES:
            np.testing.assert_allclose(np.reshape(line[name], own[name].shape), own[name], atol=1e-5)
        np.testing.assert_allclose(line["pooled"], own["pooled"], atol=1e-5)


def test_the_pickle_is_as_mmsa_reads_it(program, model, corpus, tmp_path):
    splits = [option for name in ("train", "validation", "test") for option in ("--split", name)]
    said = program("extract", model, "--corpus", corpus, *splits, "--out", tmp_path / "x.pkl")
    assert "parts train, valid, test" in said and "4 samples without a label left out" in said
    found = pickle.loads((tmp_path / "x.pkl").read_bytes())
    assert list(found) == ["train", "valid", "test"] and len(found["test"]["id"]) == 8
    names = {"text": "text", "vision": "visual", "audio": "speech"}
    shapes = {name: {part[name].shape[1:] for part in found.values()} for name in names}
    assert all(len(shape) == 1 for shape in shapes.values())  # every part is padded alike
    expected = alone(model, corpus, "test")
    part = found["test"]
    assert part["classification_labels"].tolist() == [0, 1] * 4 and part["annotations"] == ["calm", "glad"] * 4
    text = Corpus.open(corpus).stores["text"]
    for number, id in enumerate(part["id"]):
        for name, modality in names.items():
            own = expected[id][modality]
            length = len(own) if name == "text" else part[f"{name}_lengths"][number]
            assert length == len(own) and not part[name][number, length:].any()
            np.testing.assert_allclose(part[name][number, :length], own, atol=1e-5)
        tokens = text.read(id)["tokens"]
        ids, mask, segments = part["text_bert"][number]
        assert ids[: len(tokens)].tolist() == tokens.tolist() and mask.sum() == len(tokens) and not segments.any()
    assert all(type(part[name]) is np.ndarray and part[name].dtype == np.float32 for name in names)


def test_the_pickle_names_nothing_but_numpy(program, model, corpus, tmp_path):
    """So that a reader that allows arrays alone can open it."""
    program("extract", model, "--corpus", corpus, "--split", "train", "--out", tmp_path / "x.pkl")

    class Reader(pickle.Unpickler):
        def find_class(self, module, name):
            assert module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"), (module, name)
            return super().find_class(module, name)

    with open(tmp_path / "x.pkl", "rb") as file:
        assert Reader(file).load()["train"]["text"].flags.writeable


def test_the_archive_can_be_mapped_and_holds_no_pickle(program, model, corpus, tmp_path):
    program("extract", model, "--corpus", corpus, "--split", "test", "--out", tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.testzip() is None and all(
            item.compress_type == zipfile.ZIP_STORED for item in archive.infolist()
        )


@pytest.mark.parametrize("kind", ["npz", "parquet", "pkl"])
def test_mistakes_take_one_line_and_leave_nothing(program, model, corpus, tmp_path, kind):
    (tmp_path / "out").mkdir()
    poison(mood_corpus(tmp_path / "nan", "nan"), "visual", "nan40")
    mood_corpus(tmp_path / "mute", "mute", modalities=("visual",))
    mood_corpus(tmp_path / "wide", "wide", width=6)
    test = ("--split", "test")
    for arguments, message in (
        ((tmp_path / "nowhere", "--corpus", corpus, *test), "nowhere"),
        ((model, "--corpus", "nowhere", *test), "no corpus at nowhere"),
        ((model, "--corpus", corpus, "--split", "tset"), "has no split 'tset'"),
        ((model, "--corpus", corpus, *test, *test), "name each once"),
        ((model, "--corpus", corpus, *test, "--condition", "al"), "'al' is no condition"),
        ((model, "--corpus", tmp_path / "mute", *test, "--condition", "va"), "condition va needs speech rows"),
        ((model, "--corpus", tmp_path / "wide", *test), "reads visual rows 4 wide"),
        ((model, "--corpus", tmp_path / "nan", *test), "hidden states for nan40 of corpus"),
    ):
        error = program.fails("extract", *arguments, "--out", tmp_path / "out" / f"x.{kind}")
        assert message in error and not list((tmp_path / "out").iterdir()), error
    assert "choose one of them" in program.fails("extract", model, "--corpus", corpus, *test, "--out", "x.csv")
    missing = tmp_path / "no" / f"x.{kind}"
    assert "cannot be written" in program.fails("extract", model, "--corpus", corpus, *test, "--out", missing)


@pytest.mark.parametrize("kind", ["npz", "parquet", "pkl"])
def test_a_full_disk_or_a_kill_leaves_no_spool(program, model, corpus, tmp_path, kind, monkeypatch):
    out = tmp_path / f"x.{kind}"
    line = ("extract", model, "--corpus", corpus, "--split", "test", "--out", out)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    spool = tmp_path / f".x.{kind}.{process.pid}.partial"
    spool.mkdir()
    (spool / "text.npy").touch()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("posix_fallocate", "fsync"):  # of the rows, of the file
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            assert f"x.{kind} cannot be written (No space left on device)" in program.fails(*line)
        assert list(tmp_path.iterdir()) == []
    spool.mkdir()
    program(*line)
    assert list(tmp_path.iterdir()) == [out]


def test_a_pickle_needs_labels(program, model, tmp_path):
    unlabelled = mood_corpus(tmp_path / "corpus", labels=lambda number: number % 2 if number < 24 else None)
    both = ("--corpus", unlabelled, "--split", "train", "--split", "test", "--out")
    assert "no sample of split test" in program.fails("extract", model, *both, tmp_path / "x.pkl")
    assert not (tmp_path / "x.pkl").exists()
    program("extract", model, *both, tmp_path / "x.npz")


def test_parquet_without_pyarrow_is_named(program, model, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = program.fails("extract", model, "--corpus", corpus, "--split", "test", "--out", tmp_path / "x.parquet")
    assert 'pip install "memofast[parquet]"' in error


def test_as_a_program_of_its_own(model, corpus, tmp_path):
    arguments = ["extract", str(model), "--corpus", str(corpus), "--split", "test", "--out", "x.npz"]
    command = [sys.executable, "-m", f"memofast.{arguments[0]}", *arguments[1:]]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and not ended.stderr and ended.stdout.startswith("wrote x.npz: 12 samples"), (
        ended.stderr
    )


def test_values_and_several_labels_are_written(program, tmp_path):
    """What a sample lacks is NaN or -1; the pickle of MMSA takes the values."""
    corpus = felt_corpus(tmp_path / "felt")
    mood_model(tmp_path / "model", speech_width=0)
    for name in ("felt.npz", "felt.pkl"):
        program("extract", tmp_path / "model", "--corpus", corpus, "--split", "test", "--out", tmp_path / name)
    with np.load(tmp_path / "felt.npz") as found:
        numbers = [int(id[-2:]) for id in found["ids"]]
        assert found["values"].tolist()[:-1] == [2.0 * (number & 1) - 1 for number in numbers[:-1]]
        assert np.isnan(found["values"][numbers.index(59)])
        assert found["labels"][numbers.index(48)] == -1 and found["labels"][numbers.index(49)] == 0
    with open(tmp_path / "felt.pkl", "rb") as file:
        part = pickle.load(file)["test"]
    assert len(part["regression_labels"]) == 11 and set(part["regression_labels"].tolist()) == {-1.0, 1.0}
