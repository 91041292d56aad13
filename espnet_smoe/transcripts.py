"""Transcripts as files: plain text, JSON, subtitles (SRT, WebVTT) and sclite's ``trn``.

A function per format takes a `Result`, for a recording and a task, and gives the content of a file.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from espnet_smoe.bandwidth import BandwidthEstimate
from espnet_smoe.results import Result, Segment

LINE_WIDTH = 42  # characters of a subtitle's line, as broadcasters have it
BREAKS = re.compile(r"[ \t\n\x0b\x0c\r\x1c-\x1e\x85\u2028\u2029]+")  # not the no-break space

# What means something to sclite in a trn file, and cannot be escaped there: `{ a / b }` is a
# choice, `(a)` is optional, `a;b` is a word and its tag, a backslash goes. The full-width forms
# stand for them, which NFKC turns back.
FULL_WIDTH = 0xFEE0  # from an ASCII character to its full-width form
TRN_SYNTAX = str.maketrans({c: chr(ord(c) + FULL_WIDTH) for c in "{}();\\"})
TRN_WORD = re.compile(r"(?:^@$|\*$|^<(?=alt))", re.IGNORECASE)  # @: no word; a*: a; <alt: a choice
TRN_ID = re.compile(r"[\s()]+")


def one_line(text: str) -> str:
    """A text without line breaks, tabs and repeated spaces."""
    return BREAKS.sub(" ", text).strip(" ")


def txt(result: Result) -> str:
    """A line per segment."""
    return "".join(f"{one_line(segment.text)}\n" for segment in result.segments)


def as_dict(result: Result) -> dict[str, Any]:
    """All that a result holds, as JSON has it: numbers that are not finite are null."""
    return {
        "name": result.name,
        "task": result.task,
        "language": result.language,
        "text": result.text,
        "score": _number(result.score),
        "route": result.route,
        "bandwidth": _bandwidth(result.bandwidth),
        "duration": _number(result.duration, 3),
        "tokens": list(result.tokens),
        "nbest": [
            {"text": entry.text_nospecial, "score": _number(float(entry.hyp.score))}
            for entry in result
        ],
        "segments": [
            {
                "start": _number(segment.start, 3),
                "end": _number(segment.end, 3),
                "text": segment.text,
                "score": _number(segment.score),
                "channel": segment.channel,
                "route": segment.route,
                "bandwidth": _bandwidth(segment.bandwidth),
            }
            for segment in result.segments
        ],
        "route_changes": [
            {"time": _number(time, 3), "channel": channel, "route": route}
            for time, channel, route in result.route_changes
        ],
    }


def _number(value: float, digits: int = 4) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None


def _bandwidth(found: BandwidthEstimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "label": found.label,
        "edge_hz": _number(found.edge_hz, 1),
        "confidence": found.confidence,
        "wb_probability": found.wb_probability,
        "reason": found.reason,
    }


def json_file(result: Result) -> str:
    """Indented JSON."""
    return json.dumps(as_dict(result), ensure_ascii=False, indent=1) + "\n"


def json_line(result: Result) -> str:
    """JSON in one line, without its end."""
    return json.dumps(as_dict(result), ensure_ascii=False)


def srt(result: Result) -> str:
    """SubRip subtitles; of several channels, each cue starts with ``[channel 1]``."""
    cues = []
    for number, (start, end, segment, text) in enumerate(_cues(result), 1):
        if _by_channel(result):
            text = f"[channel {segment.channel}] {text}"
        times = f"{_clock(start, ',')} --> {_clock(end, ',')}"
        cues.append(f"{number}\n{times}\n{_wrapped(text)}\n")
    return "\n".join(cues)


def vtt(result: Result) -> str:
    """WebVTT subtitles; of several channels, each is a voice."""
    cues = ["WEBVTT\n"]
    for start, end, segment, text in _cues(result):
        # wrapped before it is escaped: the limit is one of what is seen
        shown = _wrapped(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if _by_channel(result):
            shown = f"<v channel {segment.channel}>{shown}"
        cues.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{shown}\n")
    return "\n".join(cues)


def _by_channel(result: Result) -> bool:
    return len({segment.channel for segment in result.segments}) > 1


def _cues(result: Result) -> Iterator[tuple[int, int, Segment, str]]:
    """Start and end in milliseconds, segment and text, by time; without those that say nothing."""
    for segment in sorted(result.segments, key=lambda s: s.start):
        text = one_line(segment.text)
        if text:
            start = round(1000 * segment.start)
            yield start, max(round(1000 * segment.end), start + 1), segment, text


def _wrapped(text: str) -> str:
    """Lines broken at spaces only: other scripts' lines are left to the player."""
    return "\n".join(
        textwrap.wrap(text, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)
    )


def _clock(ms: int, point: str) -> str:
    """Milliseconds as ``hh:mm:ss,mmm``."""
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{ms:03}"


def trn_id(name: str) -> str:
    """A recording's name as sclite's utterance id: UTF-8 without spaces and parentheses."""
    return TRN_ID.sub("_", name).encode("utf-8", "replace").decode("utf-8")


def trn_text(text: str) -> str:
    """A text whose words sclite takes as they are, in one line."""
    words = one_line(text).translate(TRN_SYNTAX).split(" ")
    return " ".join(TRN_WORD.sub(lambda m: chr(ord(m[0]) + FULL_WIDTH), word) for word in words)


def trn(result: Result) -> str:
    """A line of sclite's ``trn`` format."""
    return trn_line(result.name, result.text)


def trn_line(name: str, text: str) -> str:
    """A line of sclite's ``trn`` format: ``text (utterance)``."""
    return f"{trn_text(text)} ({trn_id(name)})".lstrip(" ") + "\n"


FORMATS: Mapping[str, Callable[[Result], str]] = {
    "txt": txt,
    "json": json_file,
    "srt": srt,
    "vtt": vtt,
    "trn": trn,
}
