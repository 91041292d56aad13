"""Transcripts: what is written is read back, by parsers as strict as the formats' definitions."""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata

import pytest
from fake_speech2text import NARROW, WIDE, result, segment
from hypothesis import given
from hypothesis import strategies as st

from espnet_smoe.results import Result
from espnet_smoe.transcripts import (
    FORMATS,
    LINE_WIDTH,
    as_dict,
    json_file,
    json_line,
    one_line,
    srt,
    trn,
    txt,
    vtt,
)

WORDS = ["hola", "a<b>", "&amp;", "-->", "3", "{\\an8}", "WEBVTT", "\n\n", "\t", "\u2028", "ñandú"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=12), max_size=12).map(" ".join)
SEGMENTS = st.lists(
    st.tuples(TEXTS, st.floats(0, 400_000), st.floats(0, 30), st.sampled_from([1, 2])), max_size=5
)
CLOCK = r"(\d\d+):([0-5]\d):([0-5]\d)[{}](\d\d\d)"
Cue = tuple[float, float, str]


def build(rows: list[tuple[str, float, float, int]], *, channels: bool) -> Result:
    rows = sorted(rows, key=lambda row: row[1])
    return result(*(segment(t, a, a + d, channel=c if channels else None) for t, a, d, c in rows))


def seconds(parts: tuple[str, ...]) -> float:
    hours, minutes, secs, ms = map(int, parts)
    return 3600 * hours + 60 * minutes + secs + ms / 1000


def parse_blocks(text: str, point: str) -> list[Cue]:
    """Cues of blocks ``times`` and lines, with an empty line between them."""
    cues = []
    for block in text.split("\n\n") if text else []:
        times, *lines = block.rstrip("\n").split("\n")
        found = re.fullmatch("{0} --> {0}".format(CLOCK.format(point)), times)
        assert found, times
        assert lines
        assert all(lines)
        cues.append((seconds(found.groups()[:4]), seconds(found.groups()[4:]), " ".join(lines)))
    return cues


def parse_srt(text: str) -> list[Cue]:
    numbered = [block.split("\n", 1) for block in text.split("\n\n")] if text else []
    assert [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1))
    return parse_blocks("\n\n".join(rest for _, rest in numbered), ",")


def parse_vtt(text: str) -> list[Cue]:
    head, _, rest = text.partition("\n\n")
    assert head.rstrip("\n") == "WEBVTT"
    cues = parse_blocks(rest, ".")
    assert not any(re.search(r"-->|&(?!amp;|lt;|gt;)", cue[2]) for cue in cues)
    assert [cue[0] for cue in cues] == sorted(cue[0] for cue in cues)
    return [(start, end, html.unescape(cue)) for start, end, cue in cues]


@pytest.mark.parametrize(("write", "parse"), [(srt, parse_srt), (vtt, parse_vtt)])
@given(rows=SEGMENTS)
def test_subtitles_come_back_with_their_times(
    write: object, parse: object, rows: list[tuple[str, float, float, int]]
) -> None:
    made = build(rows, channels=False)
    spoken = [s for s in made.segments if one_line(s.text)]
    cues = parse(write(made))
    assert [cue[2] for cue in cues] == [one_line(s.text) for s in spoken]
    for (start, end, _), s in zip(cues, spoken, strict=True):
        assert start == pytest.approx(s.start, abs=6e-4)
        assert start < end
        assert end == pytest.approx(s.end, abs=2e-3)


@given(st.lists(st.text("ab-<&", min_size=1, max_size=9), min_size=1, max_size=60).map(" ".join))
def test_lines_of_subtitles_are_short_where_there_are_spaces(text: str) -> None:
    lines = srt(result(segment(text))).split("\n")[2:]
    assert all(len(line) <= LINE_WIDTH for line in lines)
    unescaped = [html.unescape(line) for line in vtt(result(segment(text))).split("\n")[3:]]
    assert [line for line in unescaped if line] == [line for line in lines if line]


def test_subtitles_of_two_channels_say_which() -> None:
    made = build([("hola", 0.0, 1.0, 2), ("qué tal", 0.5, 2.0, 1)], channels=True)
    assert [cue[2] for cue in parse_srt(srt(made))] == ["[channel 2] hola", "[channel 1] qué tal"]
    assert "00:00:00.500 --> 00:00:02.500\n<v channel 1>qué tal\n" in vtt(made)


def test_a_recording_without_speech_has_no_cues() -> None:
    assert (srt(result()), vtt(result()), txt(result())) == ("", "WEBVTT\n", "")


def test_hours_beyond_two_digits() -> None:
    assert "100:00:00,000 --> 100:00:01,500" in srt(result(segment("a", 360_000, 360_001.5)))


def parse_trn(line: str) -> tuple[list[str], str]:
    """What sclite takes for words and for the id (SCTK, `remove_id`, `new_WORD_parseText`)."""
    found = re.fullmatch(r"(?:(.*) )?\(([^()\s]+)\)\n", line, re.DOTALL)
    assert found, line
    words = (found[1] or "").split(" ") if found[1] else []
    assert not any(re.search(r"[{}();\\\n\r]", word) for word in words)
    assert not any(w == "@" or w.endswith("*") or w.lower().startswith("<alt") for w in words)
    return words, found[2]


@given(TEXTS | st.text("{}();\\@* <altALT>/a", max_size=30), st.text("a ()/.-ñ", min_size=1))
def test_trn_keeps_every_word_and_nothing_of_it_is_syntax(text: str, name: str) -> None:
    words, _ = parse_trn(trn(result(segment(text), name=name)))
    given = one_line(text).split(" ") if one_line(text) else []
    folded = [unicodedata.normalize("NFKC", word) for word in words]
    assert folded == [unicodedata.normalize("NFKC", word) for word in given]


@given(st.lists(st.text("abñ'é-/<>&@", min_size=2), max_size=8))
def test_trn_leaves_ordinary_words_as_they_are(words: list[str]) -> None:
    given = [w for w in words if not w.lower().startswith("<alt")]
    line = trn(result(segment(" ".join(given)), name="call-01"))
    assert parse_trn(line) == (given, "call-01")


@given(SEGMENTS)
def test_txt_has_a_line_per_segment(rows: list[tuple[str, float, float, int]]) -> None:
    made = build(rows, channels=True)
    assert txt(made).split("\n")[:-1] == [one_line(s.text) for s in made.segments]


@given(SEGMENTS)
def test_json_holds_everything(rows: list[tuple[str, float, float, int]]) -> None:
    made = build(rows, channels=True)
    read = json.loads(json_file(made))
    assert read == json.loads(json_line(made)) == as_dict(made)
    assert "\n" not in json_line(made)
    assert (read["text"], read["tokens"]) == (made.text, made.tokens)
    assert [s["text"] for s in read["segments"]] == [s.text for s in made.segments]
    assert [s["channel"] for s in read["segments"]] == [s.channel for s in made.segments]
    assert [s["start"] for s in read["segments"]] == pytest.approx(
        [s.start for s in made.segments], abs=6e-4
    )


def test_json_names_routes_bandwidths_and_the_n_best() -> None:
    made = result(segment("uno", 0, 3), segment("dos", 3, 5, nb=True), name="a.wav", task="st_eng")
    read = as_dict(made)
    assert {k: read[k] for k in ("name", "task", "language", "score", "route", "duration")} == {
        **{"name": "a.wav", "task": "st_eng", "language": "spa"},
        **{"score": -1.5, "route": "wb/asr", "duration": 5.0},
    }
    assert read["bandwidth"] == read["segments"][0]["bandwidth"] == vars(WIDE)
    assert read["segments"][1]["bandwidth"] == vars(NARROW)
    assert read["route_changes"] == [{"time": 3.0, "channel": None, "route": "nb/asr"}]
    assert read["nbest"] == [{"text": "uno dos", "score": -1.5}]


def test_json_has_no_figures_that_json_does_not_know() -> None:
    made = Result("a", "asr", "spa", "", math.nan, (), 1.0, ())
    assert json.loads(json_line(made), parse_constant=pytest.fail)["score"] is None


def test_every_format_is_known_by_its_name() -> None:
    assert list(FORMATS) == ["txt", "json", "srt", "vtt", "trn"]
