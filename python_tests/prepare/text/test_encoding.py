# ruff: noqa: RUF001 - letters of many scripts are what is tested
import pytest

from memofast.prepare.text.encoding import decode, read_text
from memofast.prepare.text.languages import language_of
from memofast.prepare.text.text_log import TextLog

SAID = {
    "gb18030": "我不知道你在说什么。\n你为什么这么生气？",
    "big5": "我不知道你在說什麼。\n你為什麼這麼生氣？",
    "cp932": "何を言っているのか分かりません。\nどうしてそんなに怒っているの？",
    "euc_jp": "何を言っているのか分かりません。\nどうしてそんなに怒っているの？",
    "cp949": "무슨 말을 하는지 모르겠어요.\n왜 그렇게 화가 났어요?",
    "cp1251": "Я не знаю, о чём ты говоришь.\nПочему ты такой злой?",
    "koi8_r": "Я не знаю, о чём ты говоришь.\nПочему ты такой злой?",
    "cp866": "Я не знаю, о чём ты говоришь.\nПочему ты такой злой?",
    "cp1253": "Δεν ξέρω για τι πράγμα μιλάς.\nΓιατί είσαι τόσο θυμωμένος;",
    "cp1255": "אני לא יודע על מה אתה מדבר.\nלמה אתה כל כך כועס?",
    "cp1256": "لا أعرف عما تتحدث.\nلماذا أنت غاضب جدا؟",
    "cp874": "ฉันไม่รู้ว่าคุณกำลังพูดถึงอะไร\nทำไมคุณถึงโกรธขนาดนี้",
    "cp1254": "Neden bahsettiğini bilmiyorum.\nNiçin bu kadar kızgınsın? Şimdi gidiyoruz.",
    "cp1250": "Nie wiem, o czym mówisz.\nDlaczego jesteś taki zły? Źle się czuję.",
    "cp1257": "Nežinau, apie ką tu kalbi.\nKodėl tu toks piktas? Ačiū.",
    "cp1252": "Je ne sais pas, ça va être là.\nPourquoi es-tu fâché ? C’est très gênant.",
    "iso2022_jp": "何を言っているのか分かりません。",
}


def cues(text: str) -> str:
    return "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{line}\n\n" for n, line in enumerate(text.split("\n"), 1))


@pytest.mark.parametrize("encoding", SAID)
def test_older_encodings_are_found(encoding):
    text = cues(SAID[encoding])
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("said", ["Hello there.", SAID["gb18030"], SAID["cp1251"]])
def test_wide_encodings_need_no_mark(encoding, said):
    found = decode(cues(said).encode(encoding))
    assert (found.text, found.encoding, found.doubtful) == (cues(said), encoding, False)


def test_a_stray_zero_is_no_utf_16():
    raw = b"one\0two" + b" and more words, as in any file" * 9
    assert decode(raw).text == raw.decode()


def test_a_broken_byte_does_not_change_the_encoding():
    raw = cues(SAID["gb18030"] * 20).encode("gb18030")
    cut = raw.replace("说".encode("gb18030"), b"\xcb", 1)
    found = decode(cut)
    assert found.encoding == "gb18030" and found.text.count("不知道") == 20
    assert found.doubtful and "damaged" in found.detail


def test_utf_8_with_strays_is_kept_and_told():
    found = decode("Привет, друг\n".encode() + b"caf\xe9\n" + "naïve".encode() + b" don\x92t\n" + "Прив".encode()[:-1])
    assert found.text == "Привет, друг\ncafé\nnaïve don\u2019t\nПри\ufffd"
    assert found.doubtful and found.detail.startswith("3 lines are not UTF-8")


@pytest.mark.parametrize(
    ("name", "encoding", "doubtful"),
    [("film.srt", "cp1251", True), ("film.bg.srt", "cp1251", False), ("film.el.srt", "cp1253", False)],
)
def test_doubt_is_told_and_the_name_of_a_file_counts(tmp_path, name, encoding, doubtful):
    path = tmp_path / name
    path.write_bytes("Почему ты такой злой?".encode("cp1251"))
    with TextLog() as log:
        assert read_text(path) == path.read_bytes().decode(encoding)
    found = log.encodings[str(path)]
    assert (found["encoding"], found["doubtful"], log.doubtful) == (encoding, doubtful, [str(path)] * doubtful)
    assert ("would do as well" in found["detail"]) is doubtful


def test_a_name_that_says_otherwise_is_told(tmp_path):
    path = tmp_path / "film.ja.srt"
    path.write_bytes(cues(SAID["cp1251"]).encode("cp1251"))
    with TextLog() as log:
        assert read_text(path) == cues(SAID["cp1251"])
    assert log.encodings[str(path)]["detail"] == "its name says ja"


def test_bytes_that_are_no_text_are_doubtful():
    assert decode(bytes(range(128, 256)) * 3).doubtful


def test_without_a_log_doubt_is_warned_of(tmp_path):
    (tmp_path / "a.txt").write_bytes("Почему ты такой злой?".encode("cp1251"))
    with pytest.warns(UserWarning, match=r"a\.txt is read as cp1251, which is a guess"):
        read_text(tmp_path / "a.txt")


def test_utf_8_is_not_worth_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("Привет")
    with TextLog() as log:
        assert read_text(tmp_path / "a.txt") == "Привет"
    assert log.encodings == {} and log.file.endswith("a.txt")


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("film.ru.srt", "ru"),
        ("film.zh-CN.vtt", "zh"),
        ("film_rus.srt", "ru"),
        ("Film [id].ja.vtt", "ja"),
        ("film.chs.srt", "zh"),
        ("film.pl.forced.srt", "pl"),
        ("Russian/2_film.srt", "ru"),
        ("film.srt", None),
        ("1999.srt", None),
    ],
)
def test_languages_in_names(tmp_path, name, language):
    assert language_of(tmp_path / name) == language
