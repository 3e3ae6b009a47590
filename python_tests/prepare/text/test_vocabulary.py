"""Where the vocabulary of corpora lies: with them, else with the model that a training starts from."""

import pytest

from memofast.data import Corpus, write_corpus
from memofast.errors import MemofastError
from memofast.prepare.text.vocabulary import vocabulary_of
from memofast.prepare.text.word_pieces import WordPieces, copy_vocabulary
from memofast.store import TextWriter

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red"]


@pytest.fixture
def vocab(tmp_path):
    """Writes a vocabulary with one more piece."""

    def write(piece):
        path = tmp_path / f"{piece}.txt"
        path.write_text("\n".join([*PIECES, piece]))
        return path

    return write


@pytest.fixture
def corpus(tmp_path):
    """A corpus of one sentence by a vocabulary, which it carries or not; None: by an unknown one."""

    def make(name, vocabulary, carried=True, known=True) -> Corpus:
        fingerprint = WordPieces(vocabulary).fingerprint if known else ""
        with TextWriter(tmp_path / name / "text", fingerprint=fingerprint) as writer:
            writer.put("a", [5], [0])
        if carried:
            copy_vocabulary(vocabulary, tmp_path / name)
        return write_corpus(tmp_path / name, name, {"text": tmp_path / name / "text"}, {"train": ["a"]})

    return make


def model(folder, vocabulary):
    folder.mkdir()
    copy_vocabulary(vocabulary, folder)
    return folder


def test_a_corpus_holds_its_own_or_the_start_does(corpus, vocab, tmp_path):
    blue, green = vocab("blue"), vocab("green")
    own, bare = corpus("own", blue), corpus("bare", blue, carried=False)
    start, other = model(tmp_path / "start", blue), model(tmp_path / "other", green)
    assert vocabulary_of([own]) == own.path == vocabulary_of([bare, own]) == vocabulary_of([own], other)
    assert vocabulary_of([bare]) is None and vocabulary_of([bare], other) is None
    assert vocabulary_of([bare], start) == start and vocabulary_of([bare], "no/such/folder") is None
    copy_vocabulary(green, own.path)  # by hand
    assert vocabulary_of([own]) is None and vocabulary_of([own], start) == start
    (start / "tokenizer.json").write_text("{}")  # of another kind
    assert vocabulary_of([own], start) is None


def test_of_a_corpus_of_unknown_words_only_what_lies_there_counts(corpus, vocab, tmp_path):
    unknown, start = corpus("unknown", vocab("blue"), known=False), model(tmp_path / "start", vocab("green"))
    assert vocabulary_of([unknown], start) == unknown.path
    assert vocabulary_of([corpus("bare", vocab("blue"), carried=False, known=False)], start) is None


def test_corpora_of_different_vocabularies_are_refused(corpus, vocab):
    one, other = corpus("one", vocab("blue")), corpus("other", vocab("green"), carried=False)
    with pytest.raises(MemofastError, match=r"one and .*other were prepared with different vocabularies; prepare"):
        vocabulary_of([one, other])
