"""What the commands of README read, small and made on the spot: corpora as they are distributed, films, faces,
models."""

import json
import pickle
import re
import shutil
from pathlib import Path

import distributed
import numpy as np
import torch
import yaml
from distributed import touch, write
from films import Picture, Tone, write_film
from legacy_databases import legacy_set
from media import write_clip
from test_import_features import mmsa
from text_emotion import FILLERS, GIVEN_AWAY, sentences
from tiny_models import save_roberta, save_speech_model, save_video_model
from transformers import BertConfig, BertModel

from memofast.data.demo import demo_corpus
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.model.memobert.conversion import to_original

_WORDS = [*GIVEN_AWAY.values(), *FILLERS, "i", "did", "not", "expect", "that", "!", ".", "##s"]
FEELINGS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")  # of MELD
MEANT = dict(zip(("neutral", "surprise", "fear", "sad", "happy", "disgust", "anger"), FEELINGS, strict=True))
SUBTITLES = "".join(
    f"{number + 1}\n00:00:0{number * 2},000 --> 00:00:0{number * 2 + 1},800\n{text}.\n\n"
    for number, (text, _) in enumerate(sentences(2, 9))
)


def make_sources(folder: Path) -> None:
    """Everything by the name that README gives it."""
    _bert(folder / "MINILM")
    (folder / "BERT").symlink_to(folder / "MINILM")
    demo_corpus(folder / "raw", {"train": 16, "validation": 4, "test": 3}, raw=True)
    legacy_set(folder / "LEGACY", folder / "MINILM/vocab.txt")
    _checkpoint(folder / "MEMOBERT/ckpt/model_step_40000.pt", 104 + len(_WORDS))
    save_speech_model(folder / "WAV2VEC2", "wav2vec2")
    save_speech_model(folder / "DATA2VEC", "data2vec")
    save_video_model(folder / "VIDEOMAE", "videomae")
    save_roberta(folder / "ROBERTA", [*_WORDS, "speaker 1 2 3 : feels"], max_position_embeddings=258)
    _faces(folder / "fer2013.npz")
    film = write_film(folder / "film.mkv", Picture(4.0, rate=5), Tone(seconds=4.0))
    film.with_suffix(".srt").write_text(SUBTITLES)
    for suffix in (".mkv", ".srt"):
        touch(folder / "FILMS" / f"film{suffix}", lambda path: shutil.copy(film.with_suffix(path.suffix), path))
    clip = write_clip(folder / "clip.mp4", 0.5, rate=6, size=(64, 48))
    sound = write_clip(folder / "sound.mkv", 0.3, picture=False, codec="pcm_s16le")
    _grid(folder / "GRID", clip)
    for actor in ("01", "02", "03"):
        for emotion in range(1, 9):
            _copy(sound, folder / "RAVDESS" / f"Actor_{actor}" / f"03-01-0{emotion}-01-02-01-{actor}.wav")
    meld(folder / "MELD", 42)
    meld_with_films(folder / "MELD.Raw", clip)
    distributed.iemocap(folder / "IEMOCAP_full_release", sessions=2)
    distributed.crema_d_with_films(folder / "CREMA-D")
    (folder / "MOSI").mkdir()
    (folder / "MOSI" / "unaligned_50.pkl").write_bytes(pickle.dumps(mmsa()))
    (folder / "MOSI" / "aligned_50.pkl").write_bytes(pickle.dumps(_aligned()))
    _emorynlp(folder / "emorynlp_train_final.csv")
    _goemotions(folder / "ekman")
    for name, seed in (("a.csv", 5), ("b.csv", 6)):
        rows = "".join(f"{text},{felt}\n" for text, felt in sentences(7, seed))
        write(folder / name, f"said,felt\n{rows}")
    same = {feeling: feeling for feeling in FEELINGS}
    to_iemocap = dict.fromkeys(FEELINGS) | {"neutral": "neutral", "joy": "happy", "sadness": "sad", "anger": "anger"}
    back = {"frustrated": None, "excited": "joy"} | {iemocap: meld for meld, iemocap in to_iemocap.items() if iemocap}
    maps = {"meld": {"iemocap": to_iemocap, "meld": same}, "iemocap": {"meld": back}}
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    (folder / "grid.yaml").write_text(re.search(r"\*\*A sweep\*\* reads a file such as `([^`]+)`", readme)[1])
    (folder / "maps.yaml").write_text(yaml.safe_dump(maps))


def _aligned() -> dict:
    """As MMSA has features in common steps."""
    random, found = np.random.default_rng(4), {}
    for part, count in {"train": 24, "valid": 8, "test": 8}.items():
        labels, lengths = random.uniform(-3, 3, count).astype(np.float32), random.integers(2, 7, count)
        inside = (np.arange(6) < lengths[:, None])[..., None]
        widths = {"text": 12, "audio": 5, "vision": 7}
        rows = {
            name: (random.normal(size=(count, 6, width)) + labels[:, None, None]) * inside
            for name, width in widths.items()
        }
        spoken = [text for text, _ in sentences(count, 40)]
        found[part] = {
            **rows,
            "raw_text": spoken,
            "regression_labels": labels,
            "id": [f"{part}{n // 3}$_${n}" for n in range(count)],
        }
    return found


def _bert(folder: Path) -> None:
    """Whose special pieces have the numbers of the published ones."""
    pieces = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(pieces), **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


def _checkpoint(path: Path, pieces: int) -> None:
    """A state dict of the original for rows as wide as those of its databases here."""
    torch.manual_seed(2)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = MemoBertForPreTraining(MemoBertConfig(vocab_size=pieces, visual_width=12, speech_width=8, **sizes))
    path.parent.mkdir(parents=True)
    torch.save(to_original(model), path)
    write(path.parents[1] / "log" / "model.json", json.dumps({"num_attention_heads": 2}))


def _copy(source: Path, target: Path) -> None:
    touch(target, lambda path: shutil.copy(source, path))


def _faces(path: Path) -> None:
    """Three classes of striped pictures."""
    random, labels = np.random.default_rng(0), np.arange(24) % 3
    images = random.integers(0, 60, (24, 48, 48)) + 60 * labels[:, None, None]
    np.savez(path, images=images.astype(np.uint8), labels=labels, classes=np.array(["calm", "glad", "sad"]))


def _grid(folder: Path, clip: Path) -> None:
    for number, (text, _) in enumerate(sentences(10, 3)):
        _copy(clip, folder / f"c{number}.mpg")
        words = text.split()[:5]
        edges = [round(15_000 * place / len(words)) for place in range(len(words) + 1)]
        lines = [f"{edges[place]} {edges[place + 1]} {word}" for place, word in enumerate(words)]
        write(folder / f"c{number}.align", "\n".join(lines) + "\n")


def meld(folder: Path, train: int) -> None:
    """The three tables, every emotion in each; dialogues of three sentences."""
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    for seed, (part, count) in enumerate({"train": train, "dev": 7, "test": 7}.items()):
        rows = ""
        for number, (text, felt) in enumerate(sentences(count, 20 + seed)):
            place = f"{number // 3},{number % 3}"
            rows += f"{number},{text},Joey,{MEANT[felt]},neutral,{place},1,2,00:00:01,00:00:02\n"
        write(folder / f"{part}_sent_emo.csv", header + rows)


def meld_with_films(folder: Path, clip: Path) -> None:
    meld(folder, 14)
    homes = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    for part, home in homes.items():
        for number in range(14 if part == "train" else 7):
            _copy(clip, folder / home / f"dia{number // 3}_utt{number % 3}.mp4")


def _emorynlp(path: Path) -> None:
    names = {"neutral": "Neutral", "happy": "Joyful", "sad": "Sad", "anger": "Mad", "fear": "Scared"}
    rows = "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode\n"
    for number, (text, felt) in enumerate(sentences(14, 30)):
        rows += f"{text},['R'],{names.get(felt, 'Neutral')},{number // 3},{number},1,15\n"
    write(path, rows)


def _goemotions(folder: Path) -> None:
    labels = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
    write(folder / "labels.txt", "\n".join(labels) + "\n")
    number_of = {felt: labels.index(MEANT[felt]) for felt in GIVEN_AWAY}
    rows = (f"{text}\t{number_of[felt]}\tid{place}\n" for place, (text, felt) in enumerate(sentences(28, 31)))
    write(folder / "train.tsv", "".join(rows))
