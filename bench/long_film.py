"""A film of many clips through `memofast prepare`, its rate and its memory over time: `python bench/long_film.py CLIPS
--hours 2 OPTIONS`.

The clips (all of one codec and size, with GRID's `.align` beside them) are joined without encoding them again, their
words become subtitles. OPTIONS go to `memofast prepare`. Resident memory is that of all its processes together, shared
pages counted in each.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av

from memofast.prepare.subtitles.timings import read_cues

EVERY = 1.0  # seconds between looks at the memory
PARTS = 10  # of the run, for which the highest memory is told


def join(clips: list[Path], seconds: float, film: Path) -> None:
    """Write `film` of the clips one after the other, again and again, and its `.srt` beside it."""
    cues = []
    with av.open(str(film), "w") as out, av.open(str(clips[0])) as first:
        streams = {s.type: out.add_stream_from_template(s) for s in (first.streams.video[0], first.streams.audio[0])}
        begin, number = 0.0, 0
        while begin < seconds:
            clip = clips[number % len(clips)]
            length = _append(clip, streams, out, begin)
            words = " ".join(cue.text for cue in read_cues(clip.with_suffix(".align"))).capitalize()
            cues.append(f"{number + 1}\n{_clock(begin + 0.4)} --> {_clock(begin + length - 0.3)}\n{words}.\n")
            begin, number = begin + length, number + 1
    film.with_suffix(".srt").write_text("\n".join(cues))


def _append(clip: Path, streams: dict, out: av.container.OutputContainer, begin: float) -> float:
    """Copy the packets of a clip to `begin` seconds. Returns: its length in seconds."""
    first = {}
    with av.open(str(clip)) as source:
        length = float(source.streams.video[0].duration * source.streams.video[0].time_base)
        for packet in source.demux(source.streams.video[0], source.streams.audio[0]):
            if packet.dts is None:
                continue
            kind = packet.stream.type
            shift = round(begin / packet.time_base) - first.setdefault(kind, packet.dts)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[kind]
            out.mux(packet)
    return length


def _clock(seconds: float) -> str:
    whole, part = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{part:03}"


def resident(process: int) -> float:
    """Memory of a process and those below it, GiB."""
    total = 0
    waiting = [process]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
    return total / 2**20


def watch(command: list[str]) -> tuple[float, list[float]]:
    """Run a command. Returns: seconds it took, and its memory once a second in GiB."""
    memory: list[float] = []
    begin = time.monotonic()
    process = subprocess.Popen(command)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(EVERY):
            memory.append(resident(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    code = process.wait()
    ended.set()
    looking.join()
    if code:
        sys.exit(code)
    return time.monotonic() - begin, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--films", type=int, default=1, help="of this length each")
    arguments, options = parser.parse_known_args()  # what is not known here is for memofast prepare
    clips = sorted(clip for clip in arguments.clips.glob("*.mpg") if clip.with_suffix(".align").is_file())
    seconds = arguments.hours * 3600
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder, "films")
        films.mkdir()
        for number in range(arguments.films):
            join(clips, seconds, films / f"film{number}.mkv")
        command = [sys.executable, "-m", "memofast.prepare", str(films), "--out", str(Path(folder, "corpus"))]
        took, memory = watch([*command, "--profile", *options])
    parts = [memory[len(memory) * n // PARTS : len(memory) * (n + 1) // PARTS] for n in range(PARTS)]
    highest = ", ".join(f"{max(part):.2f}" for part in parts if part)
    rate = arguments.films * seconds / took
    print(f"{arguments.films} x {seconds:.0f} s of film in {took:.0f} s, start included: {rate:.1f} times real time")
    print(f"resident memory, GiB, highest in each tenth of the run: {highest}")


if __name__ == "__main__":
    main()
