"""Options of a preparation as they were asked: what they come to, and what does not go together."""

import inspect
import io
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console

from memofast.errors import MemofastError
from memofast.prepare import request as requests
from memofast.prepare.command import main
from memofast.prepare.corpora.reading import Reading
from memofast.prepare.request import Choices, Request, check, choose, extraction_options, prepare_as_asked, read_clips
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.protocol import Protocol
from memofast.prepare.speech.extractors import SpeechChoice


def asked(**options) -> Request:
    """A request with the defaults of the command."""
    defaults = {name: option.default for name, option in inspect.signature(main).parameters.items()}
    return Request(**defaults | {"sources": ["media"], "out": Path("corpus")} | options)


def test_every_option_of_the_command_is_asked_by_its_name():
    assert [field.name for field in fields(Request)] == list(inspect.signature(main).parameters)


def test_choices_are_what_the_options_name():
    request = asked(
        face="denseface=d.safetensors,layer=trans1", speech="logmel", speech_mean=4, voice="energy", device="cpu",
        text_features="model=encoder", asr="faster-whisper=w,language=en",
    )  # fmt: skip
    found = choose(request)
    assert (found.face.path, found.face.layers) == (Path("d.safetensors"), ("trans1",))
    assert (found.speech.mean, found.text.path, found.recogniser.language) == (4, Path("encoder"), "en")
    assert (found.device, found.voice) == ("cpu", "energy")
    bare = choose(asked(voice="none"))
    assert (bare.face, bare.text, bare.recogniser, bare.device, bare.voice) == (None, None, None, "cpu", "none")


def test_a_device_is_only_looked_for_where_a_model_needs_one():
    assert choose(asked(device="tpu", voice="none")).device == "cpu"
    with pytest.raises(MemofastError, match="--device is auto, cpu or cuda"):
        choose(asked(device="tpu", voice="none", speech="wav2vec2=w"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"face_normalisation": "film"}, "--face-normalisation is model or corpus, not 'film'"),
        ({"face_normalisation": "corpus", "face": "model=m"}, "is for --face denseface=FILE"),
        ({"face_normalisation": "corpus"}, "is for --face denseface=FILE"),
        ({"subtitles": "some"}, "--subtitles is auto, sidecar or none, not 'some'"),
        ({"speaker": "moon"}, "--speaker is active or most-seen"),
        ({"engine": "moon"}, "--engine is local or ray"),
        ({"audio_stream": "0"}, "--audio-stream is a number from 1 or a language"),
        ({"video_stream": "first"}, "--video-stream is a number from 1 or a language"),
        ({"lexicon": Path("nrc.txt")}, "--lexicon needs --vocab"),
        ({"asr": "faster-whisper=w"}, "--asr finds sentences to tokenise"),
        ({"split_by": "moon"}, "--split-by is id, folder, file, group, dialogue, speaker or column:NAME"),
        ({"split_by": "column:"}, "--split-by is id, folder, file, group, dialogue, speaker or column:NAME"),
        ({"split_by": "group"}, "needs to know the group's column"),
        ({"split_by": "dialogue", "column": ["group=d"]}, "needs to know the dialogue's column: -c dialogue=COLUMN"),
        ({"split_by": "speaker"}, "needs to know the speaker's column"),
        ({"media_root": Path("nowhere")}, "no folder nowhere for --media-root"),
        ({"corpus": "meld", "sources": ["a", "b"]}, "--corpus meld reads one folder, not 2: a, b"),
        ({"corpus": "meld", "split_by": "file"}, "--split-by is for folders and tables; --corpus meld knows"),
        ({"corpus": "meld", "column": ["id=x"]}, "--column is for folders and tables"),
    ],
)
def test_what_does_not_go_together_is_refused(options, told):
    request = asked(voice="none", device="cpu", **options)
    with pytest.raises(MemofastError, match=told):
        check(request, choose(request))


@pytest.mark.parametrize(
    "options",
    [{}, {"split_by": "column:part"}, {"split_by": "group", "column": ["group=speaker"]}, {"corpus": "meld"},
     {"face": "denseface=d", "face_normalisation": "corpus"}, {"lexicon": Path("nrc.txt"), "vocab": Path("v")}],
)  # fmt: skip
def test_what_goes_together_is_let_pass(options):
    request = asked(voice="none", device="cpu", **options)
    check(request, choose(request))


def test_clips_of_a_table_with_their_splits(tmp_path):
    (tmp_path / "t.csv").write_text("name,said,part\nb,red,test\na,blue,train\n")
    columns = ["id=name", "text=said"]
    reading = read_clips(asked(sources=[str(tmp_path / "t.csv")], column=columns, split_by="column:part"), Console())
    assert [(clip.id, clip.text, clip.split) for clip in reading.clips] == [
        ("a", "blue", "train"),
        ("b", "red", "test"),
    ]


def test_faces_are_asked_for_only_where_there_are_pictures(monkeypatch):
    monkeypatch.setattr(requests, "downloaded", lambda name: Path(f"{name}.onnx"))
    monkeypatch.setattr(requests, "check_finder", lambda yunet: [f"finder {yunet}"])
    request = asked(face="denseface=d", voice="none", device="cpu", max_seconds=7.0, speaker="most-seen")
    face = choose(request).face
    choices = Choices(face, SpeechChoice("none", None, 1), None, None, "cpu", "none")
    told = io.StringIO()
    film, sound = Clip("a", picture=Path("a.mp4")), Clip("b", sound=Path("b.wav"))
    found = extraction_options(request, choices, [film, sound], Console(file=told))
    assert (found.face, found.yunet, found.max_seconds, found.speaker) == (face, Path("yunet.onnx"), 7.0, "most-seen")
    assert told.getvalue() == "warning: finder yunet.onnx\n"
    assert extraction_options(request, choices, [sound], Console(file=told)).face is None
    assert "note: none of 1 clips has a film, so there are no rows of --face" in told.getvalue()
    told = io.StringIO()
    extraction_options(asked(), replace(choices, face=None), [film, film], Console(file=told))
    assert "no --face, so the faces of 2 clips are left out" in told.getvalue()


@pytest.fixture
def prepared(monkeypatch):
    """Stands for the pipeline; holds what it was given."""
    given = []
    monkeypatch.setattr(requests, "prepare", lambda *arguments: given.append(arguments))
    return given


def test_what_the_pipeline_is_given(prepared, tmp_path):
    (tmp_path / "t.csv").write_text("id,text,group\na,red,x\n")
    request = asked(
        sources=[str(tmp_path / "t.csv")],
        out=tmp_path / "c",
        column=["group=group"],
        split_by="group",
        vocab=tmp_path / "v",
        licence="CC",
        split=["test=0.25"],
        workers=3,
        min_speech=0.125,
        engine="ray",
        profile=True,
        drop_leaks=True,
        voice="none",
        device="cpu",
    )
    prepare_as_asked(request, Console())
    ((clips, out, vocabulary, extraction, options, _),) = prepared
    assert ([clip.id for clip in clips], out, vocabulary.path) == (["a"], tmp_path / "c", tmp_path / "v")
    assert (options.name, options.fractions, options.split_by, options.workers) == ("c", {"test": 0.25}, "group", 3)
    assert (options.licence, options.min_speech, options.engine, options.corpus) == ("CC", 0.125, "ray", "")
    assert options.profile and options.drop_leaks and options.text_features is None
    assert extraction.speech.kind == "logmel" and extraction.max_seconds == 30.0 and not extraction.keep_sound


def test_a_corpus_as_distributed_keeps_its_groups_together(prepared, monkeypatch, tmp_path):
    protocol = Protocol(scripted=True)
    clip = Clip("a", sound=Path("a.wav"), text="the same for everybody")
    monkeypatch.setattr(requests, "read_corpus", lambda given, folder: Reading([clip], protocol))
    request = asked(
        sources=[str(tmp_path)], out=tmp_path / "c", corpus="crema-d,labels=voice", voice="none", device="cpu"
    )
    prepare_as_asked(request, Console())
    ((clips, _, vocabulary, _, options, _),) = prepared
    assert (options.split_by, options.corpus, options.protocol) == ("group", "crema-d,labels=voice", protocol)
    assert clips[0].text is None and vocabulary is None
