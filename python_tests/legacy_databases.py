"""Databases as the original's builders leave them: LMDB of msgpack, lz4 frames and msgpack-numpy's dicts, with their
JSON files."""

import io
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import lz4.frame
import msgpack
import numpy as np

from memofast.prepare.text.word_pieces import WordPieces

VOCABULARY = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "am", "so", "happy", "sad", "un", "##happy", "storm", ",", ".",
    "she", "laughed", "no", "anger", "neutral",
)  # fmt: skip
ID = {piece: number for number, piece in enumerate(VOCABULARY)}
META = {"tokenizer": "bert-base-uncased", "UNK": 1, "CLS": 2, "SEP": 3, "MASK": 4, "v_range": [5, len(VOCABULARY)]}


def packed(values: Any) -> Any:
    """An array, or a number of NumPy, as msgpack-numpy writes it."""
    if isinstance(values, np.ndarray):
        kind = {b"nd": True, b"type": values.dtype.str, b"kind": b"", b"shape": values.shape}
        return {**kind, b"data": values.tobytes()}
    return {b"nd": False, b"type": values.dtype.str, b"data": values.tobytes()}


def framed(record: Any) -> bytes:
    return lz4.frame.compress(msgpack.packb(record, use_bin_type=True))


def pieces(*words: str) -> list[list[int]]:
    """Nested ids of words, each the names of its pieces with a blank between them."""
    return [[ID[piece] for piece in word.split()] for word in words]


def text(file: str, *words: str, **fields: Any) -> dict[str, Any]:
    """A whole-word record."""
    said = [["@@" + one if not one.isalpha() else one for one in word.split()] for word in words]
    return {"dataset": "films", "file_path": file, "img_fname": file, "toked_caption": said,
            "input_ids": pieces(*words)} | fields  # fmt: skip


def _count(record: Any) -> int:
    ids = record["input_ids"] if isinstance(record, dict) else []
    return sum(len(one) if isinstance(one, list) else 1 for one in ids)


def write_lmdb(folder: Path, values: Mapping[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    (folder / "lock.mdb").unlink()
    return folder


def text_database(folder: Path, records: list[dict[str, Any] | tuple[str, bytes]], **sides: Any) -> Path:
    """records: fields, or a file's name with the bytes that stand for a damaged one. sides: name of a JSON file without
    its suffix -> its contents in place of the right ones; None: no such file."""
    files = [one["img_fname"] if isinstance(one, dict) else one[0] for one in records]
    values = {
        str(n): framed({"id": str(n), **one}) if isinstance(one, dict) else one[1] for n, one in enumerate(records)
    }
    write_lmdb(folder, values)
    backwards: dict[str, list[str]] = {}
    for number, file in enumerate(files):
        backwards.setdefault(file, []).append(str(number))
    right = {
        "meta": META, "id2len": {str(n): _count(one) for n, one in enumerate(records)},
        "txt2img": {str(n): file for n, file in enumerate(files)}, "img2txts": backwards,
    }  # fmt: skip
    for name, contents in (right | sides).items():
        if contents is not None:
            (folder / f"{name}.json").write_text(json.dumps(contents))
    return folder


def features(
    rows: int, width: int = 6, faces: bool = True, seed: int = 0, **others: np.ndarray
) -> dict[str, np.ndarray]:
    """Arrays of one clip, numbers of its own."""
    random = np.random.default_rng([seed, rows, width])
    found = {"features": random.standard_normal((rows, width)).astype(np.float16)}
    if faces:
        found["confidence"] = random.uniform(0.5, 1, rows).astype(np.float16)
        found["soft_labels"] = random.dirichlet(np.ones(8), rows).astype(np.float16)
    found["frame_idxs"] = (2 * np.arange(rows) + 1).astype(np.float16)
    return found | others


def feature_database(
    folder: Path, clips: Mapping[str, dict[str, np.ndarray] | bytes], nbb: Any = ..., keys: Any = ...
) -> Path:
    """A folder `feat_*`; compressed where its name ends so. nbb, keys: in place of the right ones; None: none."""
    compressed, values, rows = folder.name.endswith("_compressed"), {}, {}
    for name, arrays in clips.items():
        if isinstance(arrays, bytes):
            values[name], rows[name] = arrays, 2
            continue
        rows[name] = len(arrays["features"])
        if compressed:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays, allow_pickle=np.array(True))
            values[name] = buffer.getvalue()
        else:
            values[name] = msgpack.packb({one: packed(array) for one, array in arrays.items()}, use_bin_type=True)
    if keys is not None:
        values["__keys__"] = json.dumps(list(clips) if keys is ... else keys).encode()
    write_lmdb(folder, values)
    if nbb is not None:
        side = folder.name.replace("feat", "nbb").removesuffix("_compressed")
        folder.with_name(f"{side}.json").write_text(json.dumps(rows if nbb is ... else nbb))
    return folder


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n")
    return path


FACES = {"a.npz": features(3), "b.npz": features(0), "c#1.npz": features(5), "d.npz": features(2, seed=4)}
SPEECH = {name: features(n, 4, faces=False) for n, name in enumerate(FACES, 2)}
RECORDS = [
    text("c#1.npz", "so", "un ##happy", target=1, emo_input_ids=pieces("un ##happy"), emo_labels=[2]),
    text("a.npz", "storm ,", "i", "storm ,", target=0, emo_input_ids=pieces("storm ,", "storm ,"), emo_labels=[4, 4]),
    text("b.npz", "no .", target=3, emo_input_ids=[], emo_labels=[]),
    text("a.npz", "she", "laughed", target=2, emo_input_ids=[], emo_labels=[]),
]


def sound(told: subprocess.CompletedProcess) -> str:
    """What a command said that went well."""
    assert told.returncode == 0, told.stderr
    return told.stdout


def refused(told: subprocess.CompletedProcess) -> str:
    """The one line of a command that ended with code 2."""
    (line,) = told.stderr.strip().splitlines()
    assert told.returncode == 2, told
    return line


def legacy_set(folder: Path, vocabulary: Path) -> Path:
    """Databases of films and of a corpus with four labels and lists of three folds, over words of a vocabulary, as the
    original lays them out."""
    pieces = WordPieces(vocabulary)
    known = pieces.vocabulary
    meta = {name: known[f"[{name}]"] for name in ("UNK", "CLS", "SEP", "MASK")} | {"v_range": [5, pieces.size]}
    words = sorted(word for word in known if word.isalpha())[:40]
    random = np.random.default_rng(11)

    def record(file: str, target: int | None = None) -> dict[str, Any]:
        said = [words[place] for place in random.integers(0, len(words), random.integers(3, 9))]
        ids = [pieces(word).ids for word in said]
        found = {"dataset": "films", "img_fname": file, "input_ids": ids, "emo_input_ids": ids[:1], "emo_labels": [3]}
        return found | ({} if target is None else {"target": target})

    films = [f"No0001.The.Film_{number}.npz" for number in range(20)]
    talks = [f"Ses0{1 + number % 3}F_impro01_F{number:03}.npz" for number in range(24)]
    base = "movies_v1_th0.5_wwm_nrcemolex_all"
    text_database(folder / f"txt_db/{base}_trn.db", [record(file) for file in films[:14]], meta=meta)
    text_database(folder / f"txt_db/{base}_val3k.db", [record(file) for file in films[14:]], meta=meta)
    text_database(folder / "iemocap/all_wwm.db", [record(file, n % 4) for n, file in enumerate(talks)], meta=meta)
    everything = {file: int(random.integers(1, 9)) for file in films + talks}
    feature_database(folder / "fc_db/feat_th0.5_max36_min10", {file: features(n, 12) for file, n in everything.items()})
    feature_database(
        folder / "wav2vec_db_3mean/feat_th1.0_max64_min10",
        {file: features(n + 2, 8, faces=False) for file, n in everything.items()},
    )
    for fold in range(3):
        (folder / f"iemocap/target/{fold + 1}").mkdir(parents=True)
        for part, remainder in (("trn", 0), ("val", 1), ("tst", 2)):
            names = [
                [file.removesuffix(".npz").encode()] for n, file in enumerate(talks) if (n + fold) % 3 == remainder
            ]
            np.save(folder / f"iemocap/target/{fold + 1}/{part}_int2name.npy", np.array(names))
    return folder
