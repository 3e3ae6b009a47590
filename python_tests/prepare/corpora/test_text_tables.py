"""Text corpora as they are distributed: small copies of each format, the real ones, and what is none of them."""

import json

import pytest

from memofast.data.emotion_labels import LabelMap, mapped_corpora
from memofast.errors import MemofastError, MemofastWarning
from memofast.prepare.corpora.text_tables import _READERS, read_text_corpus


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_meld_with_windows_bytes(tmp_path):
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    path = write(tmp_path / "m.csv", header + '1,"Oh, you\u2019re late!",A,anger,negative,3,4\n', "cp1252")
    (said,) = read_text_corpus("meld", path)
    assert (said.id, said.text, said.votes, said.group) == ("dia3_utt4", "Oh, you\u2019re late!", {"anger": 1}, "dia3")


def test_emorynlp(tmp_path):
    header = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode\n"
    path = write(tmp_path / "e.csv", header + "Coffee.,['R'],Peaceful,2,1,1,15\n")
    (said,) = read_text_corpus("emorynlp", path)
    assert (said.id, said.votes, said.group) == ("s1_e15_scene2_utt1", {"Peaceful": 1}, "s1_e15_scene2")


def test_emotionlines_votes(tmp_path):
    said = {"speaker": "P", "utterance": "He\x92s lost it.", "emotion": "non-neutral", "annotation": "0002120"}
    (found,) = read_text_corpus("emotionlines", write(tmp_path / "f.json", json.dumps([[said]])))
    assert found.text == "He\u2019s lost it."
    assert found.votes == {"fear": 0.4, "anger": 0.2, "surprise": 0.4}


def test_goemotions_shares_a_sentence_among_its_labels(tmp_path):
    write(tmp_path / "labels.txt", "anger\ndisgust\nfear\njoy\nneutral\nsadness\nsurprise\n")
    path = write(tmp_path / "dev.tsv", "Never sad\t5\tab\nBoth\t3,6\tac\n")
    first, second = read_text_corpus("goemotions", path)
    assert first.votes == {"sadness": 1} and second.votes == {"joy": 0.5, "surprise": 0.5}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_isear(tmp_path, encoding):
    rows = "ID|Field1|MYKEY|SIT|\n7|shame|1|When á I lied.|\n7|joy|2|[ No response.]|\n8|fear|3|The dark.|\n"
    lied, none, dark = read_text_corpus("isear", write(tmp_path / "i.csv", rows, encoding))
    assert lied.text == "When I lied." and lied.group == "7" and not none.votes and dark.votes == {"fear": 1}


def test_dailydialog_joins_punctuation(tmp_path):
    turn = {"turn": 1, "speaker": "A", "utterance": "Hey , it ' s you . Really ?", "emotion": "happy"}
    (said,) = read_text_corpus("dailydialog", write(tmp_path / "d.json", json.dumps({"tr_1": [[turn]]})))
    assert said.text.startswith("Hey, it'") and said.text.endswith("you. Really?") and said.group == "tr_1"


def test_a_table(tmp_path):
    path = write(tmp_path / "t.csv", "text,label,group\nfine,happy,g\n,sad,g\n")
    said, nothing = read_text_corpus("table", path)
    assert (said.text, said.votes, said.group) == ("fine", {"happy": 1}, "g") and nothing.text == ""


def test_what_is_odd_of_a_table_is_told(tmp_path):
    path = write(tmp_path / "t.csv", "text,label,mood\nfine,happy,1\nbad,sad\n")
    with pytest.warns(MemofastWarning) as told:
        read_text_corpus("table", path)
    short, unread = (str(one.message) for one in told)
    assert "1 rows have fewer cells than the header (first: line 3)" in short
    assert unread == f"{path}: columns not read: mood; read: text, label"


@pytest.mark.parametrize("kind", sorted(_READERS))
def test_another_file_is_named(tmp_path, kind):
    with pytest.raises(MemofastError, match=r"(x\.csv|labels\.txt)"):
        read_text_corpus(kind, write(tmp_path / "x.csv", "a,b\n1,2\n"))
    with pytest.raises(MemofastError, match=f"{kind}=PATH"):
        read_text_corpus(kind, tmp_path / "none.csv")


def test_an_unknown_kind_lists_those_there_are():
    with pytest.raises(MemofastError, match="emorynlp"):
        read_text_corpus("nope", None)


@pytest.mark.real
@pytest.mark.parametrize(
    ("kind", "file", "read", "mapped"),
    [
        ("meld", "meld/train_sent_emo.csv", 9989, 9989),
        ("emorynlp", "emorynlp/emorynlp_train_final.csv", 7551, 6362),
        ("emotionlines", "emotionlines/friends_train.json", 10561, 10561),
        ("goemotions", "goemotions/ekman/dev.tsv", 5426, 5426),
        ("isear", "isear/isear.csv", 7666, 5355),
        ("dailydialog", "reccon_dailydialog/dailydialog_train.json", 8206, 8206),
    ],
)
def test_real_corpora(real_data, kind, file, read, mapped):
    sentences = read_text_corpus(kind, real_data / "text" / file)
    assert len(sentences) == read == len({sentence.id for sentence in sentences})
    labels = LabelMap.of(kind, "ekman")
    assert sum(labels.distribution(sentence.votes) is not None for sentence in sentences) == mapped
    assert not any(0x80 <= ord(letter) < 0xA0 for sentence in sentences for letter in sentence.text)


def test_every_reader_has_a_label_map():
    assert set(_READERS) <= set(mapped_corpora())
