"""Feature pickles with bytes changed, cut, exchanged and spliced: read or refused, and never an event of code that is
run."""

import pickle
import pickletools
import random
import sys
from dataclasses import dataclass

import hundreds
import numpy as np
from kills import Site

WEIGHT = 15
_RUN = ("exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.", "import", "marshal.")
_LET = ("os.listdir", "os.scandir")
_PIECES = [  # what changes the meaning of what follows
    b"\x8a\x06\x00\x00\x00\x00\x00\x01", b"J\xff\xff\xff\x7f", b"K\x00", b"cos\nsystem\n", b"c_codecs\nencode\n",
    b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"\x8c\x02O8", b"\x8c\x07M8[Y/0]", b"R", b"b", b"2", b"0", b"(", b"t",
    b"\x85", b"\x86", b"\x87", b"N", b"}", b"]", b")", b"s", b"u", b"a", b"e", b"\x94", b"\x81", b"\x93", b"h\x00",
    b"\x8e\x00\x00\x00\x00\x01\x00\x00\x00", b"r\xff\xff\xff\xff", b"C\x04\xff\xff\xff\xff", b"\x8c\x01\xff",
]  # fmt: skip


def originals() -> list[bytes]:
    """Small pickles in every protocol, as numpy 1 and 2 write them, in the layouts of MMSA and MultiBench."""
    layouts = [_layout(np.float32, "array"), _layout(np.float64, "objects"), _layout(np.float16, "lists")]
    written = [pickle.dumps(layout, protocol) for layout in layouts for protocol in range(6)]
    written.append(pickle.dumps(_layout(np.float64, "array", width=5000), 4))  # its arrays stay in the file
    old = [
        data.replace(b"\x16numpy._core", b"\x15numpy.core").replace(b"\x13numpy._core", b"\x12numpy.core")
        for data in written
    ]
    return written + [data.replace(b"numpy._core", b"numpy.core") for data in old]


def _layout(kind: type, form: str, width: int = 3) -> dict:
    contents = {}
    for place, split in enumerate(("train", "valid", "test")):
        count = 3
        rows = np.arange(count * 4 * width, dtype=kind).reshape(count, 4, width) + 1
        ids = [f"{split}$_${i}" for i in range(count)]
        part = {"text": rows[:, :, :2], "vision": np.asfortranarray(rows), "audio": rows.astype(">f4")}
        part["regression_labels"] = np.linspace(-1, place, count)
        part["vision_lengths"], part["audio_lengths"] = [4, 3, 2], np.array([1, 4, 4])
        part["id"] = {"array": np.array(ids), "objects": np.array(ids, object), "lists": ids}[form]
        part["raw_text"] = np.array(["red blue", "é", "\U0001f600"], object if form == "objects" else None)
        part["text_bert"] = np.ones((count, 3, 4), np.int64)
        part["annotations"], part["kept"] = ["Positive", b"\xff", None], {"a", np.float64(0.5).item()}
        if form == "lists":
            part["text"], part["scalar"] = part["text"].tolist(), np.float32(0.5)
            part["bytes"], part["true"] = bytearray(b"abc"), np.array([True, False])
        contents[split] = part
    return contents


@dataclass(frozen=True)
class Original:
    data: bytes
    places: tuple[int, ...]  # where operations begin

    @classmethod
    def of(cls, data: bytes) -> "Original":
        return cls(data, tuple(place for _, _, place in pickletools.genops(data) if place is not None))


def mutated(originals: list[Original], draw: random.Random) -> bytes:
    """One of the originals with one to four changes."""
    chosen = draw.choice(originals)
    data = bytearray(chosen.data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        _change(data, chosen, originals, draw)
    return bytes(data)


def _change(data: bytearray, chosen: Original, originals: list[Original], draw: random.Random) -> None:
    place = draw.randrange(len(data)) if len(data) else 0
    operation = min(draw.choice(chosen.places), max(len(data) - 1, 0))
    match draw.randrange(9):
        case _ if not data:
            data += b"."
        case 0:
            data[place] ^= 1 << draw.randrange(8)
        case 1:
            data[place] = draw.randrange(256)
        case 2:
            del data[place:]
        case 3:  # another operation
            data[operation] = ord(draw.choice(pickletools.opcodes).code)
        case 4:  # two operations change places
            other = min(draw.choice(chosen.places), len(data) - 1)
            data[operation], data[other] = data[other], data[operation]
        case 5:  # operations of another pickle, between those of this one
            source = draw.choice(originals)
            first = draw.randrange(len(source.places) - 1)
            last = min(first + draw.randrange(1, 30), len(source.places) - 1)
            data[operation:operation] = source.data[source.places[first] : source.places[last]]
        case 6:  # a run of operations goes
            at = draw.randrange(len(chosen.places) - 1)
            last = min(at + draw.randrange(1, 8), len(chosen.places) - 1)
            del data[chosen.places[at] : chosen.places[last]]
        case 7:
            data[operation:operation] = draw.choice(_PIECES)
        case 8:  # a number of bytes or an item of a shape
            data[operation + 1 : operation + 1 + draw.choice((1, 4))] = draw.randbytes(draw.choice((1, 4)))


def campaign(numbers: range, site: Site) -> hundreds.Outcome:
    """Read mutations of these numbers; each process begins with some originals, and then watches for code."""
    from memofast.prepare.sources.feature_pickles import read_feature_pickle

    known, watching, path = [Original.of(data) for data in originals()], [], site.folder / "mutated.pkl"

    def watched(event: str, _: tuple) -> None:
        if watching == [True] and event.startswith(_RUN) and event not in _LET:
            raise SystemError(f"runs code: {event}")

    def read(data: bytes) -> str:
        path.write_bytes(data)
        return hundreds.outcome_of(lambda: _use(read_feature_pickle(path)[0]))

    def one(number: int) -> str:
        if not watching:
            assert {read(original.data) for original in known[::7]} == {"read"}  # and all modules are loaded
            sys.addaudithook(watched)
        data = mutated(known, site.draw(number))
        watching[:] = [True]
        try:
            return read(data)
        finally:
            watching[:] = [False]

    return hundreds.each_in_turn(numbers, one, site.folder)


def _use(samples: list) -> None:
    for sample in samples:
        for rows in sample.rows.values():
            assert np.isfinite(rows.read()).all() and len(sample.id) < 600
        sample.id.encode(), (sample.text or "").encode()
