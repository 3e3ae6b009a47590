"""Corpora read in their dialogues: the order of positions, one sample as in a batch, nothing of other dialogues or of
what comes later."""

import numpy as np
import pytest
import torch
from talks import PIECES, two_talks, write_talks, write_vocabulary

from memofast.data import Corpus, write_corpus
from memofast.data.conversations import context_of, in_dialogues
from memofast.data.dialogue import Context
from memofast.data.folds import read_groups, write_groups
from memofast.errors import MemofastError
from memofast.store import TextWriter

VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}


def opened(folder, **options) -> Corpus:
    return in_dialogues(Corpus.open(folder), Context(**options), VOCABULARY)


def texts(corpus, split="train") -> dict[str, str]:
    """By id, each packed by itself."""
    split = corpus.split(split)
    return {id: " ".join(PIECES[piece] for piece in split.pack([n]).token_ids) for n, id in enumerate(split.ids)}


def test_earlier_utterances_of_the_dialogue_in_the_order_of_positions(tmp_path):
    corpus = opened(write_talks(tmp_path / "talks", two_talks()))
    assert texts(corpus) == {
        "d1-9": "[CLS] speaker 1 : good so [SEP] speaker 1 feels [MASK] [SEP]",
        "d1-8": "[CLS]",
        "d1-7": "[CLS] speaker 1 : good so [SEP] speaker 1 : well [SEP] speaker 1 feels [MASK] [SEP]",
        "d1-6": "[CLS] speaker 1 : good so speaker 1 : well [SEP] speaker 3 : so ##ft bad so [SEP] "
        "speaker 3 feels [MASK] [SEP]",
        "d10-9": "[CLS] speaker 1 : bad [SEP] speaker 1 feels [MASK] [SEP]",
        "d10-8": "[CLS] speaker 1 : bad [SEP] speaker 2 : good well [SEP] speaker 2 feels [MASK] [SEP]",
    }
    assert context_of(corpus) == Context() and context_of(Corpus.open(corpus.path)) is None
    record = corpus.stores["text"].read("d1-6")
    assert bytes(record["utf8"]) == b"soft bad so" and len(record["tokens"]) == 6
    assert in_dialogues(corpus, Context(), VOCABULARY) is corpus
    with pytest.raises(MemofastError, match="another context"):
        in_dialogues(corpus, Context(utterances=1), VOCABULARY)


def test_options(tmp_path):
    folder = write_talks(tmp_path / "talks", two_talks())
    last = "[CLS] speaker 1 : well [SEP] speaker 3 : so ##ft bad so [SEP]"
    assert texts(opened(folder, utterances=1, query=None))["d1-6"] == last
    assert texts(opened(folder, utterances=0, query=None))["d1-6"] == "[CLS] speaker 3 : so ##ft bad so [SEP]"
    unnumbered = texts(opened(folder, utterances=1, speakers=False, query="before"))["d1-6"]
    assert unnumbered == "[CLS] speaker feels [MASK] [SEP] speaker : well [SEP] speaker : so ##ft bad so [SEP]"
    later = texts(opened(folder, later=3, query=None))["d1-9"]
    assert later == "[CLS] speaker 1 : good so [SEP] speaker 1 : well speaker 3 : so ##ft bad so [SEP]"


def test_others_words_are_cut_on_their_left_and_counted(tmp_path):
    folder = write_talks(tmp_path / "talks", two_talks())
    corpus = opened(folder, tokens=18, query=None)
    assert texts(corpus)["d1-6"].startswith("[CLS] 1 : good so speaker 1 : well [SEP] speaker 3")
    assert corpus.stores["text"].cut == 1
    corpus = opened(folder, tokens=12, query="after")
    assert texts(corpus)["d1-6"] == "[CLS] speaker 3 : so ##ft bad so [SEP] speaker 3 feels [MASK] [SEP]"
    assert corpus.stores["text"].cut == 3


def test_a_batch_is_its_samples_and_its_lengths_are_known(tmp_path):
    corpus = opened(write_talks(tmp_path / "talks", two_talks()), later=1)
    split = corpus.split("train")
    order = [5, 1, 3, 0, 2, 4, 3]
    batch = split.pack(order)
    assert batch.text_offsets.diff().tolist() == split.lengths[order, 0].tolist()
    for place, index in enumerate(order):
        alone = split.pack([index])
        rows = slice(*batch.text_offsets[place : place + 2].tolist())
        assert torch.equal(batch.token_ids[rows], alone.token_ids)
        assert torch.equal(batch.word_ids[rows], alone.word_ids)
        assert torch.equal(batch.targets["lexicon"][rows], alone.targets["lexicon"])
        assert torch.equal(batch.targets["label"][place : place + 1], alone.targets["label"])
        assert torch.equal(batch.visual[slice(*batch.visual_offsets[place : place + 2])], alone.visual)
    assert batch.targets["label"].tolist() == [-1, 1, 1, 0, 0, 1, 1]
    alone = split.pack([3])
    said = [PIECES.index(piece) for piece in ("so", "##ft", "bad", "so")]
    own = alone.word_ids >= 0
    assert alone.token_ids[own].tolist() == said and alone.word_ids[own].tolist() == [0, 0, 1, 2]
    assert torch.equal(alone.targets["lexicon"], torch.where(own, 0, -1).to(torch.int32))


def test_what_comes_later_and_other_dialogues_change_nothing(tmp_path):
    """Of every utterance: whatever is said after it, in its dialogue or another one, and by whom."""
    talks = two_talks()
    found = texts(opened(write_talks(tmp_path / "talks", talks)))
    for name, said in talks.items():
        for place in range(len(said)):
            other = dict(talks)
            other[name] = [*said[: place + 1], ("Dan", "bad bad so", 0)]
            other |= {own: [("Ann", "so", 0)] for own in talks if own != name}
            changed = texts(opened(write_talks(tmp_path / f"{name}-{place}", other)))
            assert changed[f"{name}-{9 - place}"] == found[f"{name}-{9 - place}"]


def test_a_sample_without_a_dialogue_is_by_itself(tmp_path):
    folder = write_talks(tmp_path / "talks", two_talks())
    corpus = Corpus.open(folder)
    kept = {id: name for id, name in read_groups(corpus, "dialogue").items() if id != "d1-7"}
    write_groups(folder, "dialogue", kept)
    found = texts(opened(folder))
    assert found["d1-7"] == "[CLS] speaker 1 : well [SEP] speaker 1 feels [MASK] [SEP]"
    assert "well" not in found["d1-6"]


def test_corpora_without_dialogues_or_order_are_refused(tmp_path):
    folder = write_talks(tmp_path / "talks", two_talks(), groups=False)
    with pytest.raises(
        MemofastError, match=r"no groups 'dialogue'.*-c dialogue=COLUMN, or a corpus of dialogues with --corpus NAME"
    ):
        opened(folder)
    write_groups(folder, "dialogue", {"d1-9": "d1", "d1-8": "d1"})
    with pytest.raises(MemofastError, match="no groups 'position'"):
        opened(folder)
    write_groups(folder, "position", {"d1-9": "0", "d1-8": "0"})
    with pytest.raises(MemofastError, match=r"no groups 'speaker'.*context.speakers=false"):
        opened(folder)
    with pytest.raises(MemofastError, match=r"'d1-[89]' of dialogue 'd1' has position '0', which another one has"):
        opened(folder, speakers=False)
    write_groups(folder, "position", {"d1-9": "0", "d1-8": "second"})
    with pytest.raises(MemofastError, match=r"'d1-8' of dialogue 'd1' has no position \('second'\)"):
        opened(folder, speakers=False)
    write_groups(folder, "position", {"d1-9": "0", "d1-8": "2"})
    assert len(texts(opened(folder, speakers=False))) == 6


def test_a_corpus_without_words(tmp_path):
    folder = write_vocabulary(tmp_path / "silent")
    with TextWriter(folder / "text", cls_id=2, sep_id=3, classes=("a", "b")) as text:
        for id in ("one", "two"):
            text.put(id, [], [], label=0)
    write_corpus(folder, "silent", {"text": folder / "text"}, {"train": ["one", "two"]})
    for name in ("dialogue", "position", "speaker"):
        write_groups(folder, name, {"one": "1", "two": "2"})
    corpus = opened(folder)
    assert corpus.split("train").pack(np.arange(2)).token_ids.tolist() == [2, 2]
