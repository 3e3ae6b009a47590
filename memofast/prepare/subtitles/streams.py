"""Subtitles inside a film's own file, read by PyAV without decoding picture or sound."""

from pathlib import Path

import av

from memofast.prepare.subtitles.timings import Cue, clean_lines

CARRIERS = {".mkv", ".webm", ".mp4", ".m4v", ".mov", ".ts", ".avi"}  # kinds of files that can hold subtitles


def stream_cues(path: Path, language: str | None = None) -> list[Cue]:
    """Cues of one subtitle stream in time order, [] where the file holds no text or does not open.

    Args: language: three letters as the file names it (`eng`); of the streams in it, or of all if there is none, the
    one with the most seconds of text is read. Subtitles that are pictures are none.
    """
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            streams = list(container.streams.subtitles)
            origin = (container.start_time or 0) / av.time_base
            found = _cues_by_stream(container, streams, origin) if streams else {}
            languages = {stream.index: stream.language for stream in streams}
    except (av.error.FFmpegError, OSError, ValueError):
        return []  # decoding says what is wrong with the file
    chosen = {index: cues for index, cues in found.items() if languages[index] == language} or found
    cues = max(chosen.values(), key=_seconds, default=[])
    return sorted(cues, key=lambda cue: (cue.start, cue.end))


def _seconds(cues: list[Cue]) -> float:
    return sum(cue.end - cue.start for cue in cues)


def _cues_by_stream(container, streams: list, origin: float) -> dict[int, list[Cue]]:
    found: dict[int, list[Cue]] = {stream.index: [] for stream in streams}
    for packet in container.demux(streams):
        if packet.pts is None or not packet.duration:
            continue
        start = float(packet.pts * packet.time_base) - origin
        end = start + float(packet.duration * packet.time_base)
        lines = "\n".join(filter(None, map(_lines, packet.decode())))
        if lines:
            found[packet.stream.index].append(Cue(start, end, lines))
    return found


def _lines(part) -> str:
    """Text of a decoded subtitle, which libav hands over as the fields of an ASS event without its times."""
    if not isinstance(part, av.subtitles.subtitle.AssSubtitle):
        return ""
    return clean_lines(part.ass.decode("utf-8", errors="replace").split(",", 8)[-1])
