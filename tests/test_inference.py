"""`Speech2Text` against ESPnet's own, and many recordings at once against one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import espnet2.bin.s2t_inference as stock
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saved_model import MAXLEN, STOCK, load_model, model_directory, same_entries, save_model
from tiny import FS, speech

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.decoding import BatchDecoder, OutOfMemory
from espnet_smoe.results import Failure, Result

LOUDNESS = [1.0, 0.01, 3.0, 0.1, 0.001, 0.3]
SPEECHES = [
    speech(6000 + 1700 * n, wide=n % 2 == 0, seed=n) * loudness
    for n, loudness in enumerate(LOUDNESS)
]
TASKS = ["asr", "st_eng", "st_deu"]


@pytest.fixture(scope="module")
def s2t() -> Speech2Text:
    return load_model()


@pytest.mark.parametrize(
    "keywords", [{}, {"beam_size": 1}, {"ctc_weight": 0.3, "nbest": 3}], ids=str
)
@pytest.mark.parametrize("task", ["<asr>", "<st_eng>"])
def test_equals_espnets_class(task: str, keywords: dict[str, Any]) -> None:
    directory = model_directory()
    keywords = {"maxlenratio": MAXLEN, "lang_sym": "<spa>", **keywords}
    if task != "<asr>":
        keywords.pop("ctc_weight", None)
    files = directory / "config.yaml", directory / "valid.acc.ave.pth"
    mine, theirs = Speech2Text(*files, **keywords), stock.Speech2Text(*files, **keywords)
    for x in SPEECHES[:3]:
        same_entries(mine(x, task_sym=task), theirs(x, task_sym=task))
        same_entries(mine(x.numpy(), None, "<spa>", task), theirs(x.numpy(), None, "<spa>", task))
    before = "hola casa"
    same_entries(
        mine(SPEECHES[0], text_prev=before, task_sym=task),
        theirs(SPEECHES[0], text_prev=before, task_sym=task),
    )


@pytest.mark.parametrize("kind", ["conformer", "transformer", "e_branchformer"])
def test_espnets_own_models_stay_padded(kind: str, tmp_path: Path) -> None:
    directory = save_model(tmp_path, kind, encoder=kind, **STOCK)
    files = directory / "config.yaml", directory / "valid.acc.ave.pth"
    keywords = {"maxlenratio": MAXLEN, "lang_sym": "<spa>"}
    mine, theirs = Speech2Text(*files, **keywords), stock.Speech2Text(*files, **keywords)
    assert mine.trained_padded
    for x in SPEECHES[:2]:
        same_entries(mine(x), theirs(x))
    assert mine(SPEECHES[0]).route == ""
    assert [r[0][4].score for r in mine(SPEECHES[:4], pad=False)] != [
        r[0][4].score for r in mine(SPEECHES[:4])
    ]


def test_timestamps(s2t: Speech2Text) -> None:
    files = model_directory() / "config.yaml", model_directory() / "valid.acc.ave.pth"
    theirs = stock.Speech2Text(*files, maxlenratio=MAXLEN, lang_sym="<spa>", predict_time=True)
    mine = s2t(SPEECHES[0], predict_time=True)
    same_entries(mine, theirs(SPEECHES[0]))
    first = mine.segments[0]
    assert first.start == min(float(mine.tokens[2].strip("<>")), mine.duration)
    assert all(0 <= s.start <= s.end <= mine.duration for s in mine.segments)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, len(SPEECHES) - 1),
        st.one_of(
            st.sampled_from(TASKS),
            st.lists(st.sampled_from(TASKS), min_size=1, max_size=3, unique=True),
        ),
        st.sampled_from(["auto", "wb", "nb"]),
    ),
    min_size=1,
    max_size=7,
)


def summary(result: Any) -> Any:
    """What must not depend on what else is in the batch."""
    if isinstance(result, dict):
        return {task: summary(part) for task, part in result.items()}
    return (
        result.task,
        result.text,
        result.tokens,
        result.route,
        pytest.approx(result.score, abs=1e-4),
    )


@settings(max_examples=25, deadline=None)
@given(REQUESTS, st.integers(1, 9), st.sampled_from([0.0, 0.3]))
def test_a_mixed_batch_equals_one_at_a_time(
    requests: list[Any], batch_size: int, ctc_weight: float
) -> None:
    s2t = mixed_model()
    items = [Speech(SPEECHES[i], tasks=tasks, bandwidth=bw) for i, tasks, bw in requests]
    options = {"batch_size": batch_size, "ctc_weight": ctc_weight}
    together = s2t(items, **options)
    assert [summary(r) for r in together] == [summary(s2t(item, **options)) for item in items]


_models: list[Speech2Text] = []


def mixed_model() -> Speech2Text:
    """Loaded once: hypothesis calls the test many times."""
    if not _models:
        _models.append(load_model(beam_size=2))
    return _models[0]


def test_routes_and_bandwidth(s2t: Speech2Text) -> None:
    wide, narrow = s2t([speech(16000, wide=True), speech(16000, wide=False)])
    assert (wide.route, narrow.route) == ("wb/asr", "nb/asr")
    assert wide.bandwidth.label == "wb" and narrow.bandwidth.label == "nb"
    forced = s2t([SPEECHES[0]] * 2, bandwidth=["nb", "wb"], tasks=[["asr"], ["st_eng", "asr"]])
    assert forced[0]["asr"].route == "nb/asr"
    assert (forced[1]["st_eng"].route, list(forced[1])) == ("wb/st", ["st_eng", "asr"])
    assert forced[1]["asr"].language == "spa"


@pytest.mark.parametrize(
    ("rule", "route"), [("measured", "likelier"), ("wb", "wb"), ("blend", "blend")]
)
def test_ambiguous_audio(s2t: Speech2Text, rule: str, route: str) -> None:
    hum = torch.zeros(8000)  # no speech to go by
    result, sure = s2t([hum, speech(16000, wide=True)], ambiguous=rule)
    assert result.bandwidth.label == "ambiguous"
    expected = result.bandwidth.likelier if route == "likelier" else route
    assert result.route == f"{expected}/asr"
    assert sure.route == "wb/asr"


def test_blending_gives_scores_between_hard_routes(s2t: Speech2Text) -> None:
    hum = torch.zeros(8000)
    scores = [s2t(hum, ambiguous="blend").score]
    scores += [s2t(hum, bandwidth=bw).score for bw in ("wb", "nb")]
    assert len(set(scores)) == 3


def test_streams_lazily_and_in_order(s2t: Speech2Text) -> None:
    read = []

    def items() -> Iterator[Any]:
        for n in range(20):
            read.append(n)
            yield Speech(SPEECHES[n % 6], name=f"utt{n}")

    results = s2t(items(), batch_size=2)
    assert not isinstance(results, list) and read == []
    assert next(results).name == "utt0"
    assert len(read) <= 6  # twice batch_size, and one more
    assert [r.name for r in results] == [f"utt{n}" for n in range(1, 20)]


def test_failures_stand_in_their_place(s2t: Speech2Text, tmp_path: Path) -> None:
    good = tmp_path / "good.wav"
    soundfile.write(good, SPEECHES[0].numpy(), FS)
    items = [good, tmp_path / "none.wav", Speech(good, tasks="nonsense"), SPEECHES[1]]
    results = list(s2t.stream(items, on_error="return"))
    assert [type(r) for r in results] == [Result, Failure, Failure, Result]
    assert "none.wav" in str(results[1].error)
    assert "'nonsense'; accepted: asr, st_eng, st_deu" in str(results[2].error)
    stream = s2t.stream(iter(items))
    assert next(stream).name == str(good)
    with pytest.raises(ValueError, match=r"none\.wav.*does not exist"):
        next(stream)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["torch", "cuBLAS"],
)
def test_a_batch_without_room_is_halved(
    s2t: Speech2Text, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = [summary(r) for r in s2t(SPEECHES, tasks=["asr", "st_eng"])]
    whole, sizes = BatchDecoder._decode_at_once, []

    def small(self: BatchDecoder, jobs: Any) -> None:
        rows = sum(len(job.prompts) for job in jobs)
        sizes.append(rows)
        if rows > 1:
            raise error
        whole(self, jobs)

    monkeypatch.setattr(BatchDecoder, "_decode_at_once", small)
    assert [summary(r) for r in s2t(SPEECHES, tasks=["asr", "st_eng"])] == expected
    assert sizes[0] == 12 and sizes.count(1) == 12


def test_one_that_never_fits_is_named(s2t: Speech2Text, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: BatchDecoder, jobs: Any) -> None:
        if any(len(job.piece.x) == len(SPEECHES[3]) for job in jobs):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        whole(self, jobs)

    whole = BatchDecoder._decode_at_once
    monkeypatch.setattr(BatchDecoder, "_decode_at_once", never)
    results = list(s2t.stream(SPEECHES, on_error="return"))
    assert [type(r) for r in results] == [Result] * 3 + [Failure] + [Result] * 2
    with pytest.raises(OutOfMemory, match=r"array 4' .*accepted is a smaller beam_size or max_len"):
        s2t(SPEECHES)


def test_other_errors_are_not_taken_for_lack_of_memory(
    s2t: Speech2Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: BatchDecoder, jobs: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(BatchDecoder, "_decode_at_once", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        s2t(SPEECHES[0])


def test_any_rate_and_form(s2t: Speech2Text, tmp_path: Path) -> None:
    x = SPEECHES[0].numpy()
    path = tmp_path / "a.flac"
    soundfile.write(path, x, FS)
    quiet = s2t(path)
    assert quiet.name == str(path) and quiet.duration == pytest.approx(len(x) / FS)
    forms = [str(path), SPEECHES[0], x, (x, FS), Speech(x), np.round(x * 32768).astype(np.int16)]
    assert {r.text for r in s2t(forms)} == {quiet.text}
    up = s2t((np.repeat(x, 3), 3 * FS))
    assert up.duration == pytest.approx(len(x) / FS)


def test_long_recordings_are_stitched(s2t: Speech2Text) -> None:
    pause = torch.zeros(8000)
    long = torch.cat([p for n in range(6) for p in (speech(9600, seed=n, wide=n < 3), pause)])
    result = s2t(long)
    assert result.duration > 1.0 and len(result.segments) > 2  # speech_length is 1 s
    assert result.text == " ".join(s.text for s in result.segments if s.text)
    starts = [s.start for s in result.segments]
    assert starts == sorted(starts) and all(s.end - s.start <= 1.0 for s in result.segments)
    assert s2t.decode_long(long) == [
        (round(s.start, 2), round(s.end, 2), s.text) for s in result.segments
    ]


def test_ctc_is_for_transcribing_only(caplog: pytest.LogCaptureFixture) -> None:
    s2t = load_model(ctc_weight=0.4)
    both = s2t(SPEECHES[0], tasks=["asr", "st_eng"])
    assert not caplog.records
    assert "ctc" in both["asr"][0].hyp.scores and "ctc" not in both["st_eng"][0].hyp.scores
    assert s2t(SPEECHES[0], tasks="st_eng").score == pytest.approx(both["st_eng"].score, abs=1e-4)
    s2t(SPEECHES[0], tasks="st_eng")
    (record,) = caplog.records
    assert "ctc_weight 0.4 has no effect on st_eng" in record.getMessage()


@pytest.mark.parametrize("samples", [1, 160, 400, 700, 900, 1200])
def test_a_short_one_in_an_encoder_batch_gives_what_it_gives_alone(
    s2t: Speech2Text, samples: int
) -> None:
    short = SPEECHES[0][:samples]
    (alone,) = s2t.stream([short], on_error="return")
    found, *others = s2t.stream([short, *SPEECHES[:2]], on_error="return", encoder_batch=3)
    assert [type(r) for r in others] == [Result, Result]
    assert type(found) is type(alone)
    if isinstance(alone, Result):
        assert summary(found) == summary(alone)


def test_timestamps_of_the_users_choice_go_before_the_configs() -> None:
    assert load_model(first_time_symbol="<0.10>").options.first_time_symbol == "<0.10>"
    assert load_model().options.first_time_symbol == "<0.00>"


@pytest.mark.parametrize("name", ["lang_sym", "bandwidth"])
def test_as_many_values_as_recordings_are_needed(s2t: Speech2Text, name: str) -> None:
    with pytest.raises(ValueError, match="1 values for 2 recordings; accepted is one for all, or"):
        s2t(SPEECHES[:2], **{name: ["spa" if name == "lang_sym" else "nb"]})
