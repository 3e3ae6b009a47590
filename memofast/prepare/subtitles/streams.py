"""Subtitles inside a film's own file, read by PyAV without decoding picture or sound."""

from pathlib import Path

import av

from memofast.prepare.subtitles.cue import Cue
from memofast.prepare.subtitles.repeats import without_repeats
from memofast.prepare.subtitles.substation import Event, spoken_events
from memofast.prepare.text.markup import plain_lines
from memofast.prepare.text.text_log import tell_file

CARRIERS = {".mkv", ".webm", ".mp4", ".m4v", ".mov", ".ts", ".avi"}  # kinds of files that can hold subtitles


def stream_cues(path: Path, language: str | None = None) -> list[Cue]:
    """Cues of one subtitle stream in time order, [] where the file holds no text or does not open.

    Args: language: three letters as the file names it (`eng`); of the streams in it, or of all if there is none, the
    one with the most seconds of text is read. Subtitles that are pictures are none.
    """
    tell_file(path)
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            streams = list(container.streams.subtitles)
            origin = (container.start_time or 0) / av.time_base
            found = _events_by_stream(container, streams, origin) if streams else {}
            languages = {stream.index: stream.language for stream in streams}
            codecs = {stream.index: stream.codec_context.name for stream in streams}
    except (av.error.FFmpegError, OSError, ValueError):
        return []  # decoding says what is wrong with the file
    chosen = {index: events for index, events in found.items() if events and languages[index] == language} or found
    index = max(chosen, key=lambda index: _seconds(chosen[index]), default=None)
    return [] if index is None else without_repeats(_cues(chosen[index], codecs[index]))


def _seconds(events: list[Event]) -> float:
    return sum(event.end - event.start for event in events)


def _events_by_stream(container, streams: list, origin: float) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {stream.index: [] for stream in streams}
    for packet in container.demux(streams):
        if packet.pts is None or not packet.duration:
            continue
        start = float(packet.pts * packet.time_base) - origin
        end = start + float(packet.duration * packet.time_base)
        for part in packet.decode():
            if isinstance(part, av.subtitles.subtitle.AssSubtitle):
                event = _event(start, end, part.ass.decode("utf-8", errors="replace"))
                if event.text.strip():
                    found[packet.stream.index].append(event)
    return found


def _event(start: float, end: float, line: str) -> Event:
    """A decoded subtitle, which libav hands over as the fields of an ASS event without its times."""
    fields = [""] * 9 + line.split(",", 8)
    *_, style, name, _, _, _, _, text = fields
    return Event(start, end, style, name, text)


def _cues(events: list[Event], codec: str) -> list[Cue]:
    if codec in ("ass", "ssa"):
        return spoken_events(events)
    cues = []
    for event in events:
        if words := plain_lines(event.text.replace("\\{", "{").replace("\\}", "}")):
            cues.append(Cue(event.start, event.end, words))
    return cues
