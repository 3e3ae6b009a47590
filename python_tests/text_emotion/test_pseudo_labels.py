"""Emotions written into a corpus: what they are, kills and resumes, older readers, bad input."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from rich.console import Console
from text_emotion import GIVEN_AWAY, sentences, write_bert

from memofast import cli
from memofast.data import Capacity, Corpus, epoch, write_corpus
from memofast.errors import MemofastError
from memofast.model import MemoBertForEmotion
from memofast.prepare.text.word_pieces import WordPieces
from memofast.store import FeatureWriter, TextStore, TextWriter, record
from memofast.text_emotion import pseudo_labels
from memofast.text_emotion.pseudo_labels import pseudo_label

CLASSES = tuple(GIVEN_AWAY)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_bert(tmp_path_factory.mktemp("labeller") / "bert")
    torch.manual_seed(1)
    MemoBertForEmotion.start(folder, CLASSES, visual_width=0, speech_width=0).save_pretrained(folder / "model")
    shutil.copyfile(folder / "vocab.txt", folder / "model" / "vocab.txt")
    return folder


@pytest.fixture
def corpus(model, tmp_path):
    """40 sentences with labels, lexicon and faces, one sample without words."""
    pieces, folder = WordPieces(model), tmp_path / "films"
    about = {"extractor": pieces.name, "fingerprint": pieces.fingerprint, "licence": "ours"}
    ids = [f"s{number:02}" for number in range(41)]
    about |= {"cls_id": 2, "sep_id": 3, "classes": ("a", "b"), "lexicon_classes": ("x",), "value": "a number"}
    with TextWriter(folder / "text", **about) as writer:
        for number, (text, _) in enumerate(sentences(40, 3)):
            tokens = pieces(" ".join(text.split()[: 1 + number % 9]))
            lexicon = [number % 2 - 1] * len(tokens.ids)
            labels = {"lexicon": lexicon, "label": number % 2, "value": number / 8 if number % 3 else None}
            writer.put(ids[number], tokens.ids, tokens.words, utf8=text, **labels)
        writer.put(ids[40], [], [])
    with FeatureWriter(folder / "visual", 5) as writer:
        writer.put("s00", np.ones((3, 5)))
    stores = {"text": folder / "text", "visual": folder / "visual"}
    write_corpus(folder, "films", stores, {"train": ids[:30], "test": ids[30:]}, {"rules": [{"rule": "first"}]})
    return folder


def digest(folder):
    return Corpus.open(folder).stores["text"].meta["digest"]


def test_every_sentence_has_the_emotions_that_the_model_gives_it_alone(corpus, model):
    before = {id: TextStore.open(corpus / "text").read(id) for id in TextStore.open(corpus / "text").ids}
    counts = pseudo_label(corpus, model, QUIET)
    assert (counts.labelled, counts.without_words, counts.too_long) == (40, 1, 0)
    opened = Corpus.open(corpus)
    assert opened.classes["emotions"] == list(CLASSES) and "emotions" in opened.targets
    labeller = MemoBertForEmotion.from_pretrained(model / "model").eval()
    for id, record_before in before.items():
        found = opened.stores["text"].read(id)
        emotions = found.pop("emotions")
        assert found.keys() == record_before.keys()
        for name, values in record_before.items():
            np.testing.assert_array_equal(found[name], values)
        if id == "s40":
            assert not emotions.any()
            continue
        split = opened.split("train" if id < "s30" else "test")
        alone = split.pack([split.ids.index(id)])
        alone.visual, alone.offsets = None, alone.text_offsets
        np.testing.assert_allclose(emotions, labeller.probabilities(alone)[0], atol=1e-5)


def test_batches_carry_emotions(corpus, model):
    pseudo_label(corpus, model, QUIET)
    split = Corpus.open(corpus).split("train")
    (batch,) = epoch(split, Capacity(30, 1000, 1000, 1000))
    stored = [split.corpus.stores["text"].read(id)["emotions"] for id in split.ids]
    np.testing.assert_array_equal(batch.targets["emotions"], stored)
    padded = batch.padded_to(Capacity(33, 1000, 1000, 1000))
    assert padded.targets["emotions"].shape == (33, 7) and not padded.targets["emotions"][30:].any()


def test_batches_do_not_change_what_comes_out(corpus, model, tmp_path):
    other = shutil.copytree(corpus, tmp_path / "other")
    pseudo_label(corpus, model, QUIET)
    pseudo_label(other, model, QUIET, rows=1)
    for id in Corpus.open(corpus).stores["text"].ids:
        together, alone = (Corpus.open(f).stores["text"].read(id)["emotions"] for f in (corpus, other))
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_killed_labelling_leaves_the_corpus_as_it_was_and_goes_on(corpus, model, tmp_path, monkeypatch):
    whole = shutil.copytree(corpus, tmp_path / "whole")
    pseudo_label(whole, model, QUIET, rows=30)
    before, calls = digest(corpus), iter(range(5))
    probabilities = MemoBertForEmotion.probabilities

    def killed(self, batch):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return probabilities(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(MemoBertForEmotion, "probabilities", killed)
        with pytest.raises(KeyboardInterrupt):
            pseudo_label(corpus, model, QUIET, rows=30)
    assert digest(corpus) == before and "emotions" not in Corpus.open(corpus).targets
    (half,) = corpus.glob("text-emotions-*")
    done = len(TextStore.open(half))
    assert 0 < done < 41
    pseudo_label(corpus, model, QUIET, rows=30)
    assert digest(corpus) == digest(whole) != before


def test_labelled_again(corpus, model, tmp_path, monkeypatch):
    pseudo_label(corpus, model, QUIET)
    first = Corpus.open(corpus).stores["text"].path
    monkeypatch.setattr(pseudo_labels, "_label", lambda *_: pytest.fail("labelled twice"))
    pseudo_label(corpus, model, QUIET)
    monkeypatch.undo()
    other = shutil.copytree(model, tmp_path / "other")
    torch.manual_seed(9)
    MemoBertForEmotion.start(model, CLASSES, visual_width=0, speech_width=0).save_pretrained(other / "model")
    pseudo_label(corpus, other, QUIET)
    second = Corpus.open(corpus).stores["text"]
    assert second.path != first and not first.exists() and second.meta["labeller"]["name"] == "other"
    assert (corpus / "text").is_dir()


def test_a_text_store_that_changed_is_labelled_anew(corpus, model):
    pseudo_label(corpus, model, QUIET)
    opened = Corpus.open(corpus)
    first, splits = opened.stores["text"].path, {name: opened.split(name).ids for name in opened.splits}
    meta = TextStore.open(corpus / "text").meta
    about = {"extractor": meta["extractor"], "fingerprint": meta["fingerprint"], "licence": "ours"}
    about |= {"cls_id": 2, "sep_id": 3, "classes": ("a", "b"), "lexicon_classes": ("x",), "value": "a number"}
    with TextWriter(corpus / "text", **about) as writer:
        writer.put("new", [7, 8], [0, 1], utf8="of today")
    splits["train"] = [*splits["train"], "new"]
    write_corpus(corpus, "films", {"text": corpus / "text", "visual": corpus / "visual"}, splits)
    assert pseudo_label(corpus, model, QUIET).labelled == 41
    text = Corpus.open(corpus).stores["text"]
    assert text.read("new")["emotions"].any() and text.path != first and not first.exists()


def test_a_reader_that_does_not_know_emotions_reads_the_rest(corpus, model, monkeypatch):
    pseudo_label(corpus, model, QUIET)
    monkeypatch.setattr(record, "_NAME_OF", {n: name for n, name in record._NAME_OF.items() if name != "emotions"})
    found = Corpus.open(corpus).stores["text"].read("s00")
    assert found.keys() == {"tokens", "words", "lexicon", "utf8", "label", "value"}


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["memofast", "pseudo-label", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code or 0, capsys.readouterr().err

    return run


def test_the_command_labels_and_selects(corpus, model, run):
    code, said = run(corpus, "--model", model, "--neutral", 0, "--other", 0, "--most", 2)
    assert code == 0 and "40 sentences labelled, 1 samples without words" in said
    description = json.loads((corpus / "corpus.json").read_text())
    part = description["splits"]["train_confident"]
    assert part["part_of"] == "train" and 0 < part["samples"] <= 14
    first, words, probability, cap = description["rules"]
    assert first == {"rule": "first"} and words["split"] == probability["split"] == "train_confident"
    assert words["dropped"] == 4 and probability["dropped"] == 0
    assert cap["dropped"] == 30 - 4 - part["samples"] and sum(cap["kept"].values()) == part["samples"]
    assert len(Corpus.open(corpus).split("train_confident")) == part["samples"]
    assert run(corpus, "--model", model, "--neutral", 0, "--other", 0, "--most", 0)[0] == 0
    again = json.loads((corpus / "corpus.json").read_text())
    assert again["splits"]["train_confident"]["samples"] == 26 and len(again["rules"]) == 4


def test_bad_input_is_one_line(corpus, model, run, tmp_path):
    def refused(*arguments):
        code, said = run(*arguments)
        (line,) = [line for line in said.splitlines() if line.startswith("memofast pseudo-label: ")]
        assert code == 2 and "Traceback" not in said
        return line

    assert "no such checkpoint folder" in refused(corpus, "--model", tmp_path / "nowhere")
    assert "holds a 'bert' model" in refused(corpus, "--model", write_bert(tmp_path / "bert"))
    assert "no split 'dev'" in refused(corpus, "--model", model, "--select", "dev")
    assert "no corpus" in refused(tmp_path, "--model", model)
    assert "--device" in refused(corpus, "--model", model, "--device", "tpu")
    assert "sure enough" in refused(corpus, "--model", model, "--neutral", 1, "--other", 1)
    wordless = tmp_path / "wordless"
    with TextWriter(wordless / "text") as writer:  # as without --vocab
        writer.put("a", [], [])
    write_corpus(wordless, "wordless", {"text": wordless / "text"}, {"train": ["a"]})
    assert "no text to label" in refused(wordless, "--model", model)
    other = tmp_path / "other"
    with TextWriter(other / "text", fingerprint="another") as writer:
        writer.put("a", [7], [0])
    write_corpus(other, "other", {"text": other / "text"}, {"train": ["a"]})
    assert "another vocabulary" in refused(other, "--model", model)


def test_emotions_that_are_no_probabilities_are_refused(tmp_path):
    with TextWriter(tmp_path / "text", emotions=CLASSES) as writer:
        for wrong in ([0.5] * 7, [1, 0, 0], [2, -1, 0, 0, 0, 0, 0], [float("nan")] * 7):
            with pytest.raises(MemofastError, match="add up to 1"):
                writer.put("a", [7], [0], emotions=wrong)
    with (
        TextWriter(tmp_path / "plain") as writer,
        pytest.raises(MemofastError, match="no emotions"),
    ):
        writer.put("a", [7], [0], emotions=[1.0])


def test_emotions_that_are_not_finite_are_refused_and_the_corpus_stays(corpus, model, monkeypatch):
    """A batch of which one sentence got NaN: nothing of it is written, and the sentence is named."""
    probabilities, before = MemoBertForEmotion.probabilities, digest(corpus)

    def spoilt(self, batch):
        found = probabilities(self, batch)
        found[[id == "s07" for id in batch.ids]] = torch.nan
        return found

    monkeypatch.setattr(MemoBertForEmotion, "probabilities", spoilt)
    with pytest.raises(MemofastError, match=r"emotions for s07 of corpus .* are not finite"):
        pseudo_label(corpus, model, QUIET, rows=30)
    assert digest(corpus) == before and "emotions" not in Corpus.open(corpus).targets
    (half,) = corpus.glob("text-emotions-*")
    assert "s07" not in TextStore.open(half).ids
