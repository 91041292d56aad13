"""`espnet-smoe transcribe`: inputs, outputs, going on after a kill, faults at the end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_speech2text import FakeSpeech, FakeSpeech2Text, install

from espnet_smoe import transcribe as command
from espnet_smoe.cli import main
from espnet_smoe.datadir import DataError
from espnet_smoe.inputs import Recording, find_recordings
from espnet_smoe.outputs import JOURNAL, Folder, OutputError
from espnet_smoe.transcribe import Progress, outcomes

BOTH = ("--task", "asr", "--task", "st_eng")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeSpeech2Text]:
    """A working directory with a model and recordings, and what stands for the model."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for name in ("config.yaml", "m.pth"):
        Path("model", name).write_text(name, encoding="utf-8")
    for name in ("a.wav", "b.FLAC", "deep/c.opus", "notes.txt", "deep/er/d.mp3"):
        path = Path("calls", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("sound", encoding="utf-8")
    return install(monkeypatch)


def transcribe(*options: str) -> int:
    return main(["transcribe", "--model", "model", *options])


def files(folder: str) -> dict[str, str]:
    """The transcripts in a directory."""
    paths = [p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != JOURNAL]
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in paths}


def test_inputs_are_files_directories_and_tables(fake: object) -> None:
    Path("wav.scp").write_text("u1 calls/a.wav\nu2 sph2pipe x.sph |#channel=2\n", encoding="utf-8")
    assert find_recordings(["calls", "wav.scp", "calls/a.wav", "gone.wav"]) == [
        Recording("calls/a.wav", "a", "calls/a.wav"),
        Recording("calls/b.FLAC", "b", "calls/b.FLAC"),
        Recording("calls/deep/c.opus", "deep/c", "calls/deep/c.opus"),
        Recording("calls/deep/er/d.mp3", "deep/er/d", "calls/deep/er/d.mp3"),
        Recording("u1", "u1", "calls/a.wav"),
        Recording("u2", "u2", "sph2pipe x.sph |#channel=2"),
        Recording("calls/a.wav", "a", "calls/a.wav"),
        Recording("gone.wav", "gone", "gone.wav"),
    ]


def test_inputs_without_audio_are_named(fake: object) -> None:
    Path("empty").mkdir()
    with pytest.raises(DataError, match=r"directory 'empty' holds no audio; accepted are \.wav "):
        find_recordings(["empty"])
    with pytest.raises(DataError, match="none.scp: no such file"):
        find_recordings(["none.scp"])
    with pytest.raises(DataError, match="no recording is named"):
        find_recordings([])


def test_text_goes_to_stdout_and_progress_to_stderr(
    fake: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe("calls/a.wav", "calls/b.FLAC", *BOTH) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t") for line in out.splitlines()] == [
        [name, task, f"{task} {name}"]
        for name in ("calls/a.wav", "calls/b.FLAC")
        for task in ("asr", "st_eng")
    ]
    assert "2/2" in err
    assert "4 s of audio" in err
    assert "x real time" in err


def test_json_is_an_object_a_line_on_stdout(
    fake: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe("calls", "--format", "json", *BOTH) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["name"], r["task"]) for r in rows[:2]] == [
        ("calls/a.wav", "asr"),
        ("calls/a.wav", "st_eng"),
    ]
    assert len(rows) == 8


def test_subtitles_and_trn_on_stdout(fake: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe("calls/a.wav", "--format", "vtt") == 0
    assert capsys.readouterr().out.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nasr calls")
    assert transcribe("calls", "--format", "trn") == 0
    assert capsys.readouterr().out.startswith("asr calls/a.wav (calls/a.wav)\nasr calls/b.FLAC (")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["calls", "--format", "srt"], "format srt on stdout is for one recording; with --out DIR"),
        (["calls/a.wav", "--format", "srt", *BOTH], "format srt on stdout is for one task"),
        (["calls", "--format", "trn", *BOTH], "format trn on stdout is for one task"),
        (["calls", "--format", "doc"], "format 'doc'; accepted: txt, json, srt, vtt, trn"),
        (["calls", "--task", "sing"], "the model knows no task 'sing'; accepted: asr, st_eng"),
        (["calls", "--model", "gone"], "model 'gone' does not exist"),
        (["calls", "--beam_size", "0"], "beam_size is 0; accepted: 1 or more"),
        (["calls", "--out", "calls/a.wav"], "--out 'calls/a.wav' is a file"),
        (["calls", "calls/a.wav", "--out", "o"], "calls/a.wav and calls/a.wav: a"),
        (["../x/..", "--out", "o"], "would not be in 'o'"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    fake: type[FakeSpeech2Text],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    status = transcribe(*options)
    out, err = capsys.readouterr()
    assert (status, out, fake.heard) == (1, "", [])
    assert message in err
    assert "Traceback" not in err
    assert not Path("o").exists()


@pytest.mark.parametrize("kind", ["txt", "json", "srt", "vtt"])
def test_a_file_per_recording_and_task(fake: object, kind: str) -> None:
    assert transcribe("calls", "--out", "one", "--format", kind) == 0
    assert list(files("one")) == [f"{s}.{kind}" for s in ("a", "b", "deep/c", "deep/er/d")]
    assert "asr calls/a.wav" in files("one")[f"a.{kind}"]
    assert transcribe("calls/a.wav", "--out", "two", "--format", kind, *BOTH) == 0
    assert list(files("two")) == [f"a.{task}.{kind}" for task in ("asr", "st_eng")]


def test_trn_is_a_file_per_task(fake: object) -> None:
    Path("wav.scp").write_text("u1 calls/a.wav\nu2 calls/b.FLAC\n", encoding="utf-8")
    assert transcribe("wav.scp", "--out", "o", "--format", "trn", *BOTH) == 0
    assert files("o") == {f"{t}.trn": f"{t} u1 (u1)\n{t} u2 (u2)\n" for t in ("asr", "st_eng")}


def test_two_recordings_of_one_trn_id_are_a_mistake() -> None:
    same = [Recording(n, n, n) for n in ("a (1)", "a_1_")]
    with pytest.raises(OutputError, match=r"1 recording.*\n  a \(1\) and a_1_: a_1_$"):
        Folder("o", "trn", ["asr"], same, {})
    Folder("o", "txt", ["asr"], same, {})


@pytest.mark.parametrize("kind", ["txt", "trn"])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_run_goes_on_where_it_was_interrupted(
    fake: type[FakeSpeech2Text],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    after: int,
) -> None:
    options = ("calls", "--format", kind, *BOTH)
    assert transcribe(*options, "--out", "whole") == 0
    order = list(fake.heard)
    fake.heard.clear()
    monkeypatch.setattr(fake, "stop_after", after)
    assert transcribe(*options, "--out", "killed") == 130
    assert "interrupted" in capsys.readouterr().err
    assert files("killed").items() <= files("whole").items()
    monkeypatch.setattr(fake, "stop_after", 10**9)
    assert transcribe(*options, "--out", "killed") == 0
    assert fake.heard == order  # each once
    assert files("killed") == files("whole")
    assert transcribe(*options, "--out", "killed") == 0
    assert fake.heard == order
    assert "all 4 recordings are done already" in capsys.readouterr().err


def test_what_is_gone_or_has_changed_is_done_again(fake: type[FakeSpeech2Text]) -> None:
    def heard() -> list[str]:
        fake.heard.clear()
        assert transcribe("calls", "--out", "o") == 0
        return list(fake.heard)

    assert len(heard()) == 4
    Path("o/deep/c.txt").unlink()
    assert heard() == ["calls/deep/c.opus"]
    os.utime("calls/a.wav", ns=(0, 0))
    assert heard() == ["calls/a.wav"]
    Path("calls/b.FLAC").write_text("longer sound", encoding="utf-8")
    assert heard() == ["calls/b.FLAC"]
    assert heard() == []
    fake.heard.clear()
    assert transcribe("calls", "--out", "o", "--format", "srt") == 0
    assert len(fake.heard) == 4
    assert transcribe("./calls", "--out", "o", "--format", "srt") == 0  # the same by another name
    assert len(fake.heard) == 4


def test_other_settings_are_named_and_overwritten_on_request(
    fake: type[FakeSpeech2Text], capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe("calls", "--out", "o") == 0
    assert transcribe("calls", "--out", "o", "--device", "cuda") == 0  # the same texts
    assert transcribe("calls", "--out", "o", "--beam_size", "9") == 1
    error = capsys.readouterr().err
    assert "'o': its transcripts were made with other settings: beam_size 5 (there) and 9" in error
    assert "ctc_weight" not in error
    assert len(fake.heard) == 4
    assert transcribe("calls", "--out", "o", "--beam_size", "9", "--overwrite") == 0
    assert len(fake.heard) == 8
    Path("model/m.pth").write_text("trained on", encoding="utf-8")
    assert transcribe("calls", "--out", "o", "--beam_size", "9") == 1
    assert "other settings: model " in capsys.readouterr().err


def test_recordings_that_fail_are_listed_at_the_end_and_the_others_done(
    fake: type[FakeSpeech2Text], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("gone.wav", "calls/a.wav", "lost.wav", "calls/b.FLAC")
    for again in (False, True):
        assert transcribe(*given, "--out", "o", "--format", "trn") == 1
        err = capsys.readouterr().err
        lines = err[err.index("2 of 4") :].splitlines()
        assert lines[0] == "2 of 4 recordings could not be transcribed:"
        assert lines[1:] == [f"  {n} does not exist" for n in ("gone.wav", "lost.wav")]
        assert files("o") == {"asr.trn": "asr calls/a.wav (a)\nasr calls/b.FLAC (b)\n"}
        assert fake.heard.count("calls/a.wav") == 1, again
    Path("gone.wav").write_text("sound", encoding="utf-8")
    assert transcribe(*given, "--out", "o", "--format", "trn") == 1
    assert "gone.wav" in files("o")["asr.trn"]


def test_recordings_are_read_as_they_are_needed(fake: type[FakeSpeech2Text]) -> None:
    """Never more of them are under way than the model takes in at once."""
    taken: list[int] = []

    def work() -> Iterator[tuple[int, FakeSpeech]]:
        for number in range(9):
            taken.append(number)
            yield number, FakeSpeech((0, 1), f"r{number}")

    with Progress(9) as progress:
        for key, found in outcomes(fake(), work(), progress, tasks=["asr"]):
            assert found["asr"].name == f"r{key}"
            assert len(taken) <= key + fake.window


def test_a_file_that_holds_something_else_is_not_overwritten(
    fake: type[FakeSpeech2Text], capsys: pytest.CaptureFixture[str]
) -> None:
    assert transcribe("calls/a.wav", "--out", "o") == 0
    Path("other").mkdir()
    Path("other/a.wav").write_text("sound", encoding="utf-8")
    Path("o/b.txt").write_text("a reference", encoding="utf-8")
    for options, message in (
        (["calls/a.wav", "--task", "st_eng"], "o/a.txt: asr of .*/calls/a.wav"),
        (["other/a.wav"], "o/a.txt: st_eng of .*/calls/a.wav"),
        (["calls/a.wav"], "o/a.txt: asr of .*/other/a.wav"),
        (["calls/b.FLAC"], "o/b.txt: not made by this command"),
    ):
        before = files("o")
        fake.heard.clear()
        assert transcribe(*options, "--out", "o") == 1
        assert re.search(
            rf"1 file\(s\) would be overwritten .* --overwrite:\n  {message}",
            capsys.readouterr().err,
        )
        assert (files("o"), fake.heard) == (before, [])
        assert transcribe(*options, "--out", "o", "--overwrite") == 0
        assert fake.heard == options[:1] and files("o") != before
        assert transcribe(*options, "--out", "o") == 0  # now it is this
        assert fake.heard == options[:1]


def test_a_file_of_an_earlier_recording_is_made_anew(fake: type[FakeSpeech2Text]) -> None:
    assert transcribe("calls/a.wav", "--out", "o") == 0
    Path("calls/a.wav").write_text("recorded again", encoding="utf-8")
    assert transcribe("calls/a.wav", "--out", "o", "--format", "srt") == 0
    fake.heard.clear()
    assert transcribe("calls/a.wav", "--out", "o") == 0
    assert fake.heard == ["calls/a.wav"]


def test_trn_files_are_known_again_and_others_left_alone(
    fake: type[FakeSpeech2Text], capsys: pytest.CaptureFixture[str]
) -> None:
    for given, status in (("calls", 0), ("gone.wav", 1)):
        trn = (given, "--out", f"o {given}", "--format", "trn")
        assert transcribe(given, "--out", f"o {given}") == status
        assert [transcribe(*trn), transcribe(*trn)] == [status] * 2
    assert fake.heard.count("calls/a.wav") == 1  # the text was there
    Path("refs").mkdir()
    Path("refs/asr.trn").write_text("a reference", encoding="utf-8")
    assert transcribe("calls", "--out", "refs", "--format", "trn") == 1
    assert "refs/asr.trn: not made by this command" in capsys.readouterr().err
    assert files("refs") == {"asr.trn": "a reference"}


def test_an_interrupted_overwriting_goes_on_by_itself(
    fake: type[FakeSpeech2Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ("calls", "--out", "o", "--beam_size", "9")
    assert transcribe("calls", "--out", "o") == 0
    fake.heard.clear()
    monkeypatch.setattr(fake, "stop_after", 2)
    assert transcribe(*other, "--overwrite") == 130
    monkeypatch.setattr(fake, "stop_after", 10**9)
    assert transcribe(*other) == 0
    assert len(fake.heard) == len(set(fake.heard)) == 4


def test_an_interrupted_run_leaves_no_file_open(
    fake: type[FakeSpeech2Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Watched(Folder):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(command, "Folder", Watched)
    monkeypatch.setattr(fake, "stop_after", 1)
    assert transcribe("calls", "--out", "o") == 130
    (folder,) = made
    assert len(folder.files) == 1 and folder.journal._file is None


def test_a_name_that_is_no_utf_8_is_written_all_the_same(fake: object) -> None:
    name = os.fsdecode(b"calls/\xff.wav")
    Path(name).write_text("sound", encoding="utf-8")
    for kind in ("txt", "trn"):
        assert transcribe(name, "--out", "o", "--format", kind) == 0
    assert files("o")["asr.trn"] == "asr calls/?.wav (?)\n"
