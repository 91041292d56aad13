"""Kaldi data directories: segments, channels, commands, archives; and what is left out."""

from __future__ import annotations

from pathlib import Path

import kaldiio
import numpy as np
import pytest
from corpus_layouts import faults_of, kaldi, noise, prepare, text

from espnet_smoe.audio import read_audio
from espnet_smoe.datadir import DataError

import prepare_kaldi as program  # isort: skip

TRAIN = ("--sets", "train")


def folder(root: Path, **tables: list[str]) -> Path:
    """root/train of u1 and u2 with some tables replaced; a.wav has 0.8 s."""
    noise(root / "a.wav")
    default = {
        "wav.scp": [f"u1 {root}/a.wav", f"u2 {root}/a.wav"],
        "text": ["u1 hola", "u2 sola"],
        "utt2lang": ["u1 spa", "u2 es"],
    }
    for name, lines in {**default, **tables}.items():
        text(root / "train" / name.replace("wav_scp", "wav.scp"), *lines)
    return root


def run(root: Path, *extra: str) -> dict[str, dict[str, str]]:
    return prepare(program.main, "kaldi", root, root / "data", *TRAIN, *extra)["train"]


def test_segments_channels_and_commands(tmp_path: Path) -> None:
    sets = prepare(program.main, kaldi(tmp_path), tmp_path, tmp_path / "data")
    wav = tmp_path / "wav" / "train.wav"
    assert sets["train"]["wav.scp"]["call-B-1"] == f"{wav}#t=1,1.9&channel=2"
    assert "segments" not in sets["train"]
    assert set(sets["train"]["utt2lang"].values()) == {"spa"}
    assert sets["train"]["utt2spk"]["call-B-1"] == "call-B"
    plain = tmp_path / "wav" / "plain.wav"
    assert sets["test"]["wav.scp"] == {"u1": str(plain), "u2": f"cat {plain} |"}
    assert sets["test"]["text.st_eng"]["u2"] == "the dog"
    assert not (read_audio(sets["train"]["wav.scp"]["call-A-1"])[0] == 0).all()


def test_recordings_by_their_file(tmp_path: Path) -> None:
    """Only the file is in wav.scp: the recordings are its sides."""
    wav = noise(tmp_path / "call.wav", channels=2)
    folder(
        tmp_path,
        wav_scp=[f"call {wav}"],
        reco2file_and_channel=["r1 call A", "r2 call 2"],
        segments=["u1 r1 0.1 0.5", "u2 r2 0.2 -1"],
    )
    (tmp_path / "train" / "wav.scp").write_text(f"call {wav}\n")
    assert run(tmp_path)["wav.scp"] == {
        "u1": f"{wav}#t=0.1,0.5&channel=1",
        "u2": f"{wav}#t=0.2,0.8&channel=2",  # -1: to the end
    }


def test_a_recording_of_its_own_needs_no_channel(tmp_path: Path) -> None:
    commands = [f"{r} sph2pipe -f wav -p -c {n} x.sph |" for r, n in (("r1", 1), ("r2", 2))]
    folder(
        tmp_path,
        wav_scp=commands,
        reco2file_and_channel=["r1 x A", "r2 x B"],
        segments=["u1 r1 0.1 0.5", "u2 r2 0.2 0.6"],
    )
    assert run(tmp_path)["wav.scp"] == {
        "u1": "sph2pipe -f wav -p -c 1 x.sph |#t=0.1,0.5",
        "u2": "sph2pipe -f wav -p -c 2 x.sph |#t=0.2,0.6",
    }


def test_archives_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    samples = np.arange(8000, dtype=np.int16)
    kaldiio.save_ark(str(tmp_path / "a.ark"), {"u1": (16000, samples)}, scp="a.scp")
    entry = (tmp_path / "a.scp").read_text().split()[1].rpartition("/")[2]
    text(tmp_path / "train" / "wav.scp", f"u1 {entry}", "u2 ../a.wav")
    tables = run(tmp_path)
    assert tables["wav.scp"] == {
        "u1": f"{tmp_path}/{entry}",
        "u2": f"{tmp_path}/train/../a.wav",
    }
    assert len(read_audio(tables["wav.scp"]["u1"])[0]) == 8000


def test_references_and_other_tables(tmp_path: Path, capsys) -> None:
    folder(tmp_path, utt2bw=["u1 nb", "u2 wb"])
    names = ("st_eng", "st_eng.ref2", "st_eng.ref10", "tc.en", "prev")
    for name in names:
        text(tmp_path / "train" / f"text.{name}", f"u1 {name}", f"u2 {name}")
    tables = run(tmp_path)
    assert tables["text.st_eng"] == dict.fromkeys(("u1", "u2"), "st_eng")
    assert tables["text.st_eng.ref2"]["u1"] == "st_eng.ref2"
    assert tables["text.st_eng.ref3"]["u1"] == "st_eng.ref10"
    assert tables["utt2bw"] == {"u1": "nb", "u2": "wb"}
    assert "text.prev" not in tables
    out = capsys.readouterr().out
    assert "text.tc.en: not read" in out and "text.prev: not read" in out


def test_one_language_for_all(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "train" / "utt2lang").unlink()
    with pytest.raises(DataError, match=r"train: no utt2lang; .* --corpus_args '--lang spa'"):
        run(tmp_path)
    assert run(tmp_path, "--lang", "de")["utt2lang"] == {"u1": "deu", "u2": "deu"}


@pytest.mark.parametrize(
    ("table", "lines", "fault"),
    [
        ("text", ["u1 hola"], ("u2", "empty transcript")),
        ("text", ["u1 hola", "u2 sola", "u3 x"], ("u3", "not in wav.scp")),
        ("text.st_eng", ["u2"], ("u2", "empty translation (st_eng); kept for asr only")),
        ("text.st_eng", ["u9 hi"], ("u9", "not in wav.scp")),
        ("utt2lang", ["u1 es"], ("u2", "language '' is unknown; accepted is ISO 639-1 (es)")),
        ("utt2bw", ["u1 nb", "u2 fm"], ("u2", "bandwidth 'fm'; expected wb, nb")),
        ("wav.scp", ["u1 A/a.wav", "u2 A/b.wav"], ("u2", "no such audio file")),
        ("segments", ["u1 u1 0 0.5", "u2 r 0 0.5"], ("u2", "recording 'r' is not in wav.scp")),
        ("segments", ["u1 u1 0 0.5", "u2 u2 0"], ("u2", "'u2 0'; expected '<recording> <start>")),
        ("segments", ["u1 u1 0 0.5", "u2 u2 1 0"], ("u2", "starts at 1 s and ends at 0 s")),
    ],
)
def test_what_cannot_be_used_is_a_fault(
    tmp_path: Path, table: str, lines: list[str], fault: tuple[str, str]
) -> None:
    folder(tmp_path)
    text(tmp_path / "train" / table, *[line.replace(" A/", f" {tmp_path}/") for line in lines])
    run(tmp_path)
    ((utt, reason),) = faults_of(tmp_path / "data" / "train")
    assert utt == fault[0] and reason.startswith(fault[1])


@pytest.mark.parametrize(
    ("table", "lines", "message"),
    [
        ("wav.scp", ["u2 a", "u1 b"], "wav.scp:2: utterance 'u1' is not sorted"),
        ("reco2file_and_channel", ["r call C"], "recording 'r': 'call C'; expected '<file> A|B"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, table: str, lines: list[str], message) -> None:
    folder(tmp_path)
    text(tmp_path / "train" / table, *lines)
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        run(tmp_path)


def test_the_data_directory_is_not_written_over(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(DataError, match="is --corpus_dir itself; choose another --datadir"):
        prepare(program.main, "kaldi", tmp_path, tmp_path, *TRAIN)
