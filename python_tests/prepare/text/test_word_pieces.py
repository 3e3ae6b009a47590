import json

import pytest

from memofast.errors import MemofastError
from memofast.prepare.text.word_pieces import (
    LONGEST,
    NRC_CLASSES,
    WordPieces,
    copy_vocabulary,
    has_vocabulary,
    read_lexicon,
)

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
    tokens = WordPieces(vocabulary)("unhappy " * 150)
    assert len(tokens.ids) == 2 * LONGEST and tokens.words[-1] == LONGEST - 1 and tokens.cut == 50


def test_tokenizer_folder_equals_its_vocabulary(vocabulary, tmp_path):
    from transformers import BertTokenizer

    BertTokenizer(vocab=str(vocabulary)).save_pretrained(tmp_path / "tokenizer")
    sentence = "I am unhappy, sad!"
    assert WordPieces(tmp_path / "tokenizer")(sentence) == WordPieces(vocabulary)(sentence)


CASED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", "é", "e", "我", "们", "##们", "new", "york"]
SENTENCE = "Paris paris é e 我们 [NAME] new york <emo>"
SETTINGS = {
    "plain": {},
    "cased": {"tokenizer_config.json": {"do_lower_case": False}},
    "accents": {"tokenizer_config.json": {"strip_accents": False}},
    "whole": {"tokenizer_config.json": {"tokenize_chinese_chars": False}},
    "special": {"special_tokens_map.json": {"additional_special_tokens": ["[NAME]"]}},
    "known": {"special_tokens_map.json": {"additional_special_tokens": ["york"]}},
    "added": {"added_tokens.json": {"new york": len(CASED)}},
    "listed": {"tokenizer_config.json": {"added_tokens_decoder": {str(len(CASED)): {"content": "<emo>"}}}},
}


def tokenizer_folder(folder, files, vocabulary=CASED):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("saved", [False, True], ids=["vocab.txt", "tokenizer.json"])
def test_a_folder_is_used_as_it_is_configured(tmp_path, kind, saved):
    from transformers import BertTokenizer

    folder = tokenizer_folder(tmp_path / "given", SETTINGS[kind])
    theirs = BertTokenizer.from_pretrained(str(folder))
    ours = WordPieces(folder)
    if saved:
        theirs.save_pretrained(tmp_path / "saved")
        assert WordPieces(tmp_path / "saved").fingerprint == ours.fingerprint
        ours = WordPieces(tmp_path / "saved")
    assert ours(SENTENCE).ids == theirs(SENTENCE, add_special_tokens=False)["input_ids"]
    assert ours.size == len(theirs)


def test_fingerprints_tell_settings_apart(tmp_path, vocabulary):
    found = {kind: WordPieces(tokenizer_folder(tmp_path / kind, files)) for kind, files in SETTINGS.items()}
    assert len({pieces.fingerprint for pieces in found.values()}) == len(SETTINGS)
    same = tokenizer_folder(
        tmp_path / "same", {"tokenizer_config.json": {"do_lower_case": True, "strip_accents": None}}
    )
    assert WordPieces(same).fingerprint == found["plain"].fingerprint == WordPieces(same / "vocab.txt").fingerprint
    longer = tokenizer_folder(tmp_path / "longer", {}, [*CASED, "more"])
    assert WordPieces(longer).fingerprint != found["plain"].fingerprint
    assert WordPieces(vocabulary).fingerprint == "b74b8c2474304c710b6a2ae9168a9a37-True"


def test_what_a_config_says_counts_beside_a_tokenizer_json(tmp_path):
    from transformers import BertTokenizer

    BertTokenizer.from_pretrained(str(tokenizer_folder(tmp_path / "a", {}))).save_pretrained(tmp_path / "b")
    lower = WordPieces(tmp_path / "b")
    path = tmp_path / "b" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": False}))
    cased = WordPieces(tmp_path / "b")
    theirs = BertTokenizer.from_pretrained(str(tmp_path / "b"))(SENTENCE, add_special_tokens=False)["input_ids"]
    assert cased(SENTENCE).ids == theirs != lower(SENTENCE).ids
    assert cased.fingerprint != lower.fingerprint


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
def test_damaged_tokenizer_folders(tmp_path, name):
    folder = tokenizer_folder(tmp_path / "a", {})
    (folder / name).write_text('{"do_lower')
    with pytest.raises(MemofastError, match="restore it"):
        WordPieces(folder)


def test_chinese_characters_are_words_of_their_own(tmp_path):
    pieces = WordPieces(tokenizer_folder(tmp_path / "a", {}))
    tokens = pieces("我们 paris我!")
    assert [CASED[id] for id in tokens.ids] == ["我", "们", "paris", "我", "[UNK]"]
    assert tokens.words == [0, 1, 2, 3, 4] and tokens.cut == 0
    many = pieces("我" * 600)
    assert many.words == list(range(LONGEST)) and many.ids == [CASED.index("我")] * LONGEST
    assert many.cut == 600 - LONGEST
    whole = WordPieces(tokenizer_folder(tmp_path / "b", SETTINGS["whole"]))("我们们 e")
    assert [CASED[id] for id in whole.ids] == ["我", "##们", "##们", "e"] and whole.words == [0, 1, 2, 3]


def test_copies_keep_settings(tmp_path):
    folder = tokenizer_folder(tmp_path / "a", SETTINGS["added"] | SETTINGS["cased"])
    (tmp_path / "b").mkdir()
    copy_vocabulary(folder, tmp_path / "b")
    assert WordPieces(tmp_path / "b").fingerprint == WordPieces(folder).fingerprint


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


def test_a_byte_level_tokenizer_of_robertas_kind(tmp_path):
    """Ids are transformers' own, words are found by the spaces, and what context writes follows a space."""
    from tiny_models import save_roberta
    from transformers import PreTrainedTokenizerFast

    said = "It's so good , isn't it ? Très bien"
    folder = save_roberta(tmp_path / "roberta", [said, "speaker 1 : feels"])
    pieces = WordPieces(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    found = pieces(said)
    assert found.ids == theirs.encode(said, add_special_tokens=False)
    words = ["".join(theirs.decode([id for id, of in zip(found.ids, found.words, strict=True) if of == word]).split())
             for word in sorted({*found.words})]  # fmt: skip
    assert words == said.split() and found.words == sorted(found.words)
    assert [theirs.convert_ids_to_tokens(id) for id in (pieces.cls_id, pieces.sep_id)] == ["<s>", "</s>"]
    wording = pieces.wording
    assert theirs.decode(wording.mark(1)) == " speaker 1 :" and theirs.decode(wording.mark(None)) == " speaker :"
    assert theirs.decode(wording.query(1)) == " speaker 1 feels<mask>"
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["added_tokens"] = [token for token in tokens["added_tokens"] if token["content"] != "<mask>"]
    tokens["model"]["vocab"].pop("<mask>")
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(MemofastError, match=r"no word piece for '\[MASK\]'"):
        WordPieces(folder).wording.query(1)
    tokens["added_tokens"] = [token for token in tokens["added_tokens"] if token["content"] != "<s>"]
    tokens["model"]["vocab"].pop("<s>")
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(MemofastError, match=r"has no \[CLS\]"):
        WordPieces(folder)


def as_pairs(source, folder):
    """A tokenizer.json of byte-level BPE as RoBERTa was first published: `vocab.json` and `merges.txt`."""
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


def test_robertas_older_layout(tmp_path):
    from tiny_models import save_roberta
    from transformers import RobertaTokenizer

    said = "It's so good , isn't it ? Très bien"
    newer = WordPieces(save_roberta(tmp_path / "newer", [said, "speaker 1 : feels"]))
    folder = as_pairs(tmp_path / "newer", tmp_path / "older")
    older = WordPieces(folder)
    assert older(said) == newer(said) and older.vocabulary == newer.vocabulary and has_vocabulary(folder)
    assert older.wording.query(1) == newer.wording.query(1) and older.cls_id == newer.cls_id
    copy_vocabulary(folder, (tmp_path / "copy").mkdir() or tmp_path / "copy")
    RobertaTokenizer.from_pretrained(str(folder)).save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    assert {WordPieces(tmp_path / name).fingerprint for name in ("copy", "saved")} == {older.fingerprint}
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": True}))
    assert WordPieces(folder).fingerprint != older.fingerprint


def test_parts_of_robertas_older_layout(tmp_path):
    from tiny_models import save_roberta

    save_roberta(tmp_path / "newer", ["so good"])
    folder = as_pairs(tmp_path / "newer", tmp_path / "older")
    known = json.loads((folder / "vocab.json").read_text())
    for damaged, told in (
        (json.dumps({piece: number for piece, number in known.items() if piece != "<mask>"}), "has no <mask>"),
        ("[1]", "no mapping of word pieces"),
        ('{"a', "not valid JSON"),
        (json.dumps(known | {"a": "x"}), "no mapping of word pieces"),
    ):
        (folder / "vocab.json").write_text(damaged)
        with pytest.raises(MemofastError, match=told) as caught:
            WordPieces(folder)
        assert "\n" not in str(caught.value)
    (folder / "vocab.json").write_text(json.dumps(known))
    (folder / "merges.txt").write_text("#version: 0.2\nq\n")
    with pytest.raises(MemofastError, match="holds no RoBERTa tokenizer that opens"):
        WordPieces(folder)
    (folder / "merges.txt").unlink()
    assert not has_vocabulary(folder)
    with pytest.raises(MemofastError, match=r"has vocab\.json alone; give the folder with both"):
        WordPieces(folder)
