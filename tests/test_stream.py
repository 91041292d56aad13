"""`Speech2Text.stream` where something is wrong: nothing is lost, swapped, late or kept."""

from __future__ import annotations

import gc
import io
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_model import load_model
from tiny import FS, speech

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.decoding import BatchDecoder
from espnet_smoe.recordings import Piece, pieces
from espnet_smoe.results import Failure, Result

SILENCE = np.zeros(4 * FS, np.float32)  # long, so nothing of it is decoded
PAUSE = np.zeros(FS // 2, np.float32)


def spoken(seed: int, samples: int = 9600) -> np.ndarray:
    return speech(samples, seed=seed).numpy()


def long_recording(broken: bool = False) -> np.ndarray:
    """Several stretches; NaN in the second block of 30 s if `broken`."""
    parts = [part for n in range(4) for part in (spoken(n), PAUSE)]
    if broken:
        parts += [np.zeros(30 * FS, np.float32), np.full(FS, np.nan, np.float32)]
    return np.concatenate(parts)


KINDS: dict[str, Any] = {
    "short": Speech(spoken(7)),
    "tasks": Speech(spoken(8), tasks=["asr", "st_eng"]),
    "long": Speech(long_recording()),
    "silent": Speech(SILENCE),
    "missing": Speech("gone.wav"),
    "late": Speech(long_recording(broken=True)),
    "tiny": Speech(spoken(9)[:160]),
    "task": Speech(spoken(9), tasks="sing"),
}
BAD = ("missing", "late", "tiny", "task")


def named(kinds: list[str]) -> list[Speech]:
    return [
        Speech(KINDS[kind].audio, name=f"{n} {kind}", tasks=KINDS[kind].tasks)
        for n, kind in enumerate(kinds)
    ]


def outcome(found: Any) -> Any:
    if isinstance(found, dict):
        return {task: outcome(part) for task, part in found.items()}
    if isinstance(found, Failure):
        return found.name, str(found.error)
    return found.name, found.text, [(s.start, s.end, s.text) for s in found.segments]


@pytest.fixture(scope="module")
def s2t() -> Speech2Text:
    return load_model(beam_size=1)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=6), st.integers(1, 4))
def test_each_in_its_place_as_if_alone(kinds: list[str], batch_size: int) -> None:
    s2t = shared()
    items = named(kinds)
    options = {"batch_size": batch_size, "on_error": "return"}
    together = list(s2t.stream(iter(items), **options))
    assert [outcome(found) for found in together] == [
        outcome(s2t(item, **options)) for item in items
    ]
    assert [isinstance(found, Failure) for found in together] == [kind in BAD for kind in kinds]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["short", "long", "silent"]), max_size=4),
    st.sampled_from(BAD),
    st.lists(st.sampled_from(["short", "long", "missing"]), max_size=4),
    st.integers(1, 3),
)
def test_an_error_comes_behind_all_results_before_it(
    before: list[str], bad: str, after: list[str], batch_size: int
) -> None:
    s2t = shared()
    names = []
    with pytest.raises(ValueError, match=f"{len(before)} {bad}"):
        for result in s2t.stream(iter(named([*before, bad, *after])), batch_size=batch_size):
            names.append(result.name)
    assert names == [f"{n} {kind}" for n, kind in enumerate(before)]


_models: list[Speech2Text] = []


def shared() -> Speech2Text:
    """Loaded once: hypothesis calls the tests many times."""
    if not _models:
        _models.append(load_model(beam_size=1))
    return _models[0]


@pytest.mark.parametrize("kind", ["missing", "silent", "late"])
def test_what_needs_no_decoding_comes_at_once(s2t: Speech2Text, kind: str) -> None:
    read = []

    def items() -> Iterator[Any]:
        while True:  # an endless stream
            read.append(1)
            yield named([kind])[0]

    found = next(s2t.stream(items(), on_error="return"))
    assert found.name == f"0 {kind}" and len(read) == 1


def test_a_recording_that_fails_is_not_decoded(
    s2t: Speech2Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    whole = BatchDecoder._decode_at_once

    def watched(self: BatchDecoder, jobs: Any) -> None:
        decoded.extend(job.name for job in jobs)
        whole(self, jobs)

    monkeypatch.setattr(BatchDecoder, "_decode_at_once", watched)
    found = list(s2t.stream(named(["short", "late", "short"]), on_error="return"))
    assert [type(f) for f in found] == [Result, Failure, Result]
    assert decoded == ["0 short", "2 short"]


def test_failures_hold_no_samples(s2t: Speech2Text) -> None:
    x = np.full(FS, np.nan, np.float32)
    held = weakref.ref(x)
    (failure,) = s2t.stream(iter([x]), on_error="return")
    del x
    gc.collect()
    assert "NaN" in str(failure.error) and held() is None


@pytest.mark.parametrize("items", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_nothing_gives_nothing(s2t: Speech2Text, items: Any) -> None:
    assert list(s2t(items)) == [] and list(s2t.stream(items)) == []


def test_one_recording_is_a_stream_of_one(s2t: Speech2Text) -> None:
    (failure,) = s2t.stream("gone.wav", on_error="return")  # and not its letters
    assert failure.name == "gone.wav"
    (result,) = s2t.stream(spoken(0))
    assert result.text == s2t(spoken(0)).text


def test_nothing_found_is_an_empty_result(s2t: Speech2Text) -> None:
    for result in (s2t(SILENCE), s2t(spoken(0), minlenratio=-9, maxlenratio=-2)):
        assert (len(result), result.text, result.tokens) == (0, "", [])
        assert np.isnan(result.score)
    both = s2t(SILENCE, tasks=["asr", "st_eng"])
    assert [(task, r.text, r.route) for task, r in both.items()] == [
        ("asr", "", ""),
        ("st_eng", "", ""),
    ]


def test_channels_times_tasks(s2t: Speech2Text) -> None:
    x = long_recording()
    stereo = np.stack([x, np.roll(x, FS // 4)], axis=1)
    both = s2t(stereo, channels="each", tasks=["asr", "st_eng"])
    for task, result in both.items():
        for channel in (1, 2):
            alone = s2t(stereo, channels=channel, tasks=task)
            mine = [s for s in result.segments if s.channel == channel]
            assert [(s.start, s.text) for s in mine] == [(s.start, s.text) for s in alone.segments]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lang_sym": "xyz"}, "knows no language 'xyz'; accepted: spa"),
        ({"lang_sym": ["spa"]}, r"lang_sym is \['spa'\]; accepted: one language"),
        ({"tasks": [["asr"]]}, r"knows no task \['asr'\]; accepted: asr, st_eng"),
        ({"tasks": []}, "tasks is empty"),
        ({"bandwidth": ["nb"]}, r"bandwidth is \['nb'\]; accepted: auto, wb, nb"),
        ({"beam_size": 10**6}, "beam_size is 1000000; accepted: up to the"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; accepted: raise, return"),
        ({"text_prev": "hola"}, "unknown option 'text_prev'"),
    ],
    ids=str,
)
def test_wrong_options_are_named_before_anything_is_read(
    s2t: Speech2Text, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        s2t.stream(iter([]), **keywords)


def test_what_was_said_before_is_for_the_first_stretch(s2t: Speech2Text) -> None:
    with_, without = (
        s2t(Speech(long_recording(), text_prev=t)).segments for t in ("the dog", None)
    )
    assert with_[0].score != without[0].score
    assert [s.score for s in with_[1:]] == pytest.approx([s.score for s in without[1:]], abs=1e-4)


def test_a_stretch_too_short_for_the_encoder_is_empty_beside_others(
    s2t: Speech2Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(audio: Any, **options: Any) -> Iterator[Piece]:
        (whole,) = pieces(audio, **options)
        yield replace(whole, x=whole.x[:320], end=0.02)
        yield replace(whole, start=0.02)

    x = speech(8000)
    expected = s2t(x, tasks=["asr", "st_eng"])
    monkeypatch.setattr("espnet_smoe.items.pieces", two)
    found = s2t(x, tasks=["asr", "st_eng"])
    for task, result in found.items():
        assert [s.text for s in result.segments] == ["", expected[task].text]
        assert result.score == pytest.approx(expected[task].score, abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_error_of_the_caller_comes_behind_all_results(s2t: Speech2Text, count: int) -> None:
    def items() -> Iterator[Any]:
        yield from named(["short"] * count)
        raise KeyError("the caller's")

    names = []
    with pytest.raises(KeyError, match="the caller's"):
        for result in s2t.stream(items(), batch_size=2):
            names.append(result.name)
    assert names == [f"{n} short" for n in range(count)]


@pytest.mark.parametrize(
    "audio", [SILENCE, np.full(FS, np.nan, np.float32)], ids=["silence", "NaN"]
)
def test_what_has_no_stretches_does_not_pile_up(s2t: Speech2Text, audio: np.ndarray) -> None:
    read, held = [], []

    def items() -> Iterator[Any]:
        yield KINDS["short"]
        while True:  # an endless stream
            x = audio.copy()
            read.append(1)
            held.append(weakref.ref(x))
            yield x

    stream = s2t.stream(items(), on_error="return", batch_size=2)
    assert isinstance(next(stream), Result) and len(read) <= 6
    gc.collect()
    assert sum(x() is not None for x in held) <= 1  # the one read last


@pytest.mark.parametrize("given", [{"a.wav": 1}, b"a.wav", io.BytesIO(b"RIFF"), 5], ids=type)
def test_what_is_not_several_recordings_is_named(s2t: Speech2Text, given: Any) -> None:
    for call in (s2t, s2t.stream):
        with pytest.raises(ValueError, match=f"speech is a {type(given).__name__}; accepted: a p"):
            call(given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": 5}, "'bad': tasks is 5; accepted: a task, or several in a list"),
        ({"text_prev": 5}, "'bad': text_prev is a int that cannot be read"),
        ({"text_prev": ["hola"]}, "'bad': text_prev is a list that cannot be read"),
        ({"text_prev": np.ones((1, 2), int)}, "'bad': text_prev is a list that cannot be read"),
        ({"text_prev": [10**6]}, r"'bad': text_prev holds token 1000000; accepted: 0 to \d+"),
        ({"text_prev": [-1]}, "'bad': text_prev holds token -1; accepted: 0 to"),
        ({"text_prev": "hola <sos>"}, r"'bad': text_prev holds token \d+; .* not \d+ \(<sos>\)"),
    ],
    ids=str,
)
def test_wrong_settings_of_a_recording_are_its_own_error(
    s2t: Speech2Text, settings: dict[str, Any], message: str
) -> None:
    items = [KINDS["short"], Speech(spoken(1), name="bad", **settings), KINDS["short"]]
    found = list(s2t.stream(items, on_error="return"))
    assert [type(f) for f in found] == [Result, Failure, Result]
    assert re.search(message, str(found[1].error))


def test_tasks_may_be_an_iterator(s2t: Speech2Text) -> None:
    found = list(s2t.stream(named(["short", "short"]), tasks=iter(["asr", "st_eng"])))
    assert [list(results) for results in found] == [["asr", "st_eng"]] * 2


def test_what_was_said_before_is_for_the_first_stretch_wherever_it_begins(s2t: Speech2Text) -> None:
    x = np.concatenate([SILENCE, long_recording()])
    stereo = np.stack([x, np.concatenate([SILENCE[:FS], x[:-FS]])], axis=1)
    with_, without = (
        s2t(Speech(stereo, text_prev=t), channels="each").segments for t in ("the dog", None)
    )
    differ = [
        a.score != pytest.approx(b.score, abs=1e-4) for a, b in zip(with_, without, strict=True)
    ]
    assert min(s.start for s in with_) > 1.0
    first = [[s.channel for s in with_].index(channel) for channel in (1, 2)]
    assert differ == [place in first for place in range(len(with_))]


def test_channels_that_are_all_too_short_are_a_failure(s2t: Speech2Text) -> None:
    tiny = np.stack([spoken(1, 160), spoken(2, 160)], axis=1)
    (failure,) = s2t.stream([tiny], channels="each", on_error="return")
    assert "is too short for the encoder" in str(failure.error)


def test_decode_long_is_for_one_recording(s2t: Speech2Text) -> None:
    with pytest.raises(ValueError, match="'array 1' is a list; accepted is a path, an array"):
        s2t.decode_long([spoken(0)])
