"""Mutations of feature pickles, read a hundred to a process: `python python_tests/pickle_mutations.py [COUNT [SEED]]`.

Each must be read or refused in one line of text: no other exception, no signal, no event of code that is run, at most 2
GiB of memory and 20 s. Prints what came of them, and keeps those at fault in the folder `faults`.
"""

import os
import pickle
import pickletools
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memofast.errors import MemofastError
from memofast.prepare.sources.feature_pickles import read_feature_pickle

PER_PROCESS, SECONDS, MEMORY = 100, 20, 2 << 30
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


@dataclass
class Outcome:
    """counts: by `read`, `refused` and `damaged`. faults: what went wrong. memory: bytes of the largest process."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    memory: int = 0
    processes: int = 0


def campaign(count: int, seed: int, folder: Path) -> Outcome:
    """Read `count` mutations in forked processes; those at fault stay in `folder`."""
    known = [Original.of(data) for data in originals()]
    for place, original in enumerate(known):  # all of them are read, and all modules loaded
        (folder / "whole.pkl").write_bytes(original.data)
        assert _read(folder / "whole.pkl") == "read", place
    outcome = Outcome()
    for first in range(0, count, PER_PROCESS):
        report = folder / "report"
        report.write_bytes(b"")
        child = os.fork()
        if not child:
            _hundred(known, range(first, min(first + PER_PROCESS, count)), seed, folder, report)
        _, status, usage = os.wait4(child, 0)
        lines = report.read_text().splitlines()
        outcome.counts.update(line for line in lines if line in ("read", "refused", "damaged"))
        outcome.faults += [line for line in lines if line not in ("read", "refused", "damaged")]
        outcome.memory = max(outcome.memory, usage.ru_maxrss << 10)
        outcome.processes += 1
        if status or usage.ru_maxrss << 10 > MEMORY:
            outcome.faults.append(f"seed {seed}, mutation {first + len(lines)}: ended with status {status}")
    return outcome


def _hundred(known: list[Original], numbers: range, seed: int, folder: Path, report: Path) -> None:
    """Never returns: the end of a forked process."""
    code = 1
    try:
        watching = [False]
        sys.addaudithook(lambda event, _: watching[0] and _watched(event))
        signal.signal(signal.SIGALRM, _too_long)
        with report.open("a") as told:
            for number in numbers:
                data = mutated(known, random.Random(f"{seed}/{number}"))
                path = folder / "mutated.pkl"
                path.write_bytes(data)
                signal.alarm(SECONDS)
                watching[0] = True
                try:
                    line = _read(path)
                except BaseException as error:
                    line = f"seed {seed}, mutation {number}: {type(error).__name__}: {str(error)!a}"
                watching[0] = False
                signal.alarm(0)
                if line not in ("read", "refused", "damaged"):
                    (folder / f"fault-{seed}-{number}.pkl").write_bytes(data)
                told.write(line + "\n")
                told.flush()
        code = 0
    finally:
        os._exit(code)


def _read(path: Path) -> str:
    try:
        samples, _ = read_feature_pickle(path)
        for sample in samples:
            for rows in sample.rows.values():
                assert np.isfinite(rows.read()).all() and len(sample.id) < 600
            sample.id.encode(), (sample.text or "").encode()
        return "read"
    except MemofastError as error:
        str(error).encode()
        assert len(str(error).splitlines()) == 1, "more than a line"
        assert len(str(error)) < 1000, "a long line"
        return "damaged" if "is damaged" in str(error) else "refused"


def _watched(event: str) -> None:
    if event.startswith(_RUN) and event not in _LET:
        raise SystemError(f"runs code: {event}")


def _too_long(_number: int, _frame: object) -> None:
    raise TimeoutError(f"over {SECONDS} s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kept = Path("faults")
    with tempfile.TemporaryDirectory() as folder:
        outcome = campaign(count, seed, Path(folder))
        for path in Path(folder).glob("fault-*.pkl"):
            kept.mkdir(exist_ok=True)
            (kept / path.name).write_bytes(path.read_bytes())
    print(f"{count} mutations, seed {seed}: {dict(outcome.counts)}, {len(outcome.faults)} faults; "
          f"{outcome.processes} processes of at most {outcome.memory >> 20} MiB")  # fmt: skip
    print("\n".join(outcome.faults[:50]))
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
