import pytest

from memofast.errors import MemofastError
from memofast.prepare.text.word_pieces import LONGEST, NRC_CLASSES, WordPieces, read_lexicon

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "happy", "un", "##happy", ",", "!", "sad"]


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


def test_pieces_know_their_word(vocabulary):
    pieces = WordPieces(vocabulary)
    tokens = pieces("I  am unhappy, \u200b happy!")
    assert [VOCABULARY[id] for id in tokens.ids] == ["i", "am", "un", "##happy", ",", "happy", "!"]
    assert tokens.words == [0, 1, 2, 2, 2, 3, 3] and tokens.lexicon is None  # a word without pieces has no index
    assert (pieces.cls_id, pieces.sep_id) == (2, 3)


def test_long_sentences_are_cut_by_words(vocabulary):
    assert len(WordPieces(vocabulary)("unhappy " * 150).ids) == 2 * LONGEST


def test_tokenizer_folder_equals_its_vocabulary(vocabulary, tmp_path):
    from transformers import BertTokenizer

    BertTokenizer(vocab=str(vocabulary)).save_pretrained(tmp_path / "tokenizer")
    sentence = "I am unhappy, sad!"
    assert WordPieces(tmp_path / "tokenizer")(sentence) == WordPieces(vocabulary)(sentence)


def test_lexicon_classes_per_piece(vocabulary, tmp_path):
    path = tmp_path / "lexicon.tsv"
    path.write_text("happy\tjoy\nunhappy\tsadness\n")
    lexicon = read_lexicon(path)
    assert lexicon.classes == ("joy", "sadness")
    assert WordPieces(vocabulary, lexicon)("Unhappy! am happy,").lexicon == [1, 1, 1, -1, 0, 0]


def test_nrc_keeps_six_classes_and_the_last_of_a_word(tmp_path):
    path = tmp_path / "nrc.txt"
    words = [
        (word, name, int(word == "a" and name in {"anger", "trust", "fear"}))
        for word in "ab"
        for name in (*NRC_CLASSES, "trust")
    ]
    path.write_text("Word\tEmotion\tScore\n" + "".join(f"{w}\t{n}\t{s}\n" for w, n, s in words))
    lexicon = read_lexicon(path)
    assert lexicon.classes == NRC_CLASSES
    assert lexicon.words == {"a": NRC_CLASSES.index("fear")}


def test_files_that_are_neither(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("one two three\n")
    with pytest.raises(MemofastError, match="not a lexicon"):
        read_lexicon(path)
    with pytest.raises(MemofastError, match=r"\[UNK\] is missing"):
        WordPieces(path)
    with pytest.raises(MemofastError, match="no vocabulary"):
        WordPieces(tmp_path / "none.txt")
