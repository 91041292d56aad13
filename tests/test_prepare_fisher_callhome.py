"""Fisher and CallHome Spanish: turns of calls, four references, and compressed SPHERE."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile
from corpus_layouts import faults_of, fisher_callhome, prepare, sentence, text

from espnet_smoe.audio import read_audio, read_header
from espnet_smoe.datadir import DataError

import prepare_fisher_callhome as program  # isort: skip

CALL = "20050909_182943_23_fsp"  # fisher_test's
TRAIN = "20050908_182940_20_fsp"


@pytest.fixture(autouse=True)
def forget_programs():
    program.audio_of.cache_clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fisher_callhome(tmp_path / "ldc")
    return tmp_path / "ldc"


def test_a_turn_is_a_part_of_one_channel(root: Path, tmp_path: Path, capsys) -> None:
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data", "--text_case", "raw")
    test = sets["fisher_test"]
    assert sorted(test) == [
        *("text", "text.st_eng", *(f"text.st_eng.ref{n}" for n in (2, 3, 4))),
        *("utt2bw", "utt2lang", "utt2spk", "wav.scp"),
    ]
    sph = root / "LDC2010S01" / "data" / "speech" / f"{CALL}.sph"
    utt = f"{CALL}-B-0000900-0001600"
    assert {table: rows[utt] for table, rows in test.items()} == {
        "wav.scp": f"{sph}#t=0.9,1.6&channel=2",
        "text": f"Ajá. tal vez {sentence(13)}",
        "text.st_eng": f"Hello en.0 {sentence(13)} ?",  # a carriage return is a space
        **{f"text.st_eng.ref{n + 1}": f"Hello en.{n} {sentence(13)} ?" for n in (1, 2, 3)},
        "utt2lang": "spa",
        "utt2spk": f"{CALL}-B",
        "utt2bw": "nb",
    }
    assert read_header(sph).channels == 2
    whole, _ = soundfile.read(sph, dtype="float32")
    part, rate = read_audio(test["wav.scp"][utt])
    assert rate == 8000 and (part == whole[7200:12800, 1]).all()
    assert "fisher_test: 1 of 5 utterances are noises only: left out" in capsys.readouterr().out


def test_lines_that_the_mapping_joins_are_one_utterance(root: Path, tmp_path: Path) -> None:
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    utt = f"{TRAIN}-A-0001700-0003100"
    assert sets["train"]["text"][utt] == f"no {sentence(20)} porque {sentence(30)}"
    assert sets["train"]["text.st_eng"][utt] == f"hello en {sentence(20)}"
    assert "text.st_eng.ref2" not in sets["train"]
    first = f"{TRAIN}-A-0000000-0000800"
    assert sets["train"]["text"][first] == f"hello {sentence(0)} sí"


def test_sets_and_callhome(root: Path, tmp_path: Path) -> None:
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    assert set(sets) == {"train", "valid", *program.TESTS}
    assert sets["valid"] == sets["fisher_dev"]
    test = sets["callhome_evltest"]
    assert list(test["text"]) == [
        "sp_0087-A-0000100-0000900",
        "sp_0087-A-0001800-0002600",
        "sp_0087-B-0001000-0001700",
    ]
    assert test["text"]["sp_0087-A-0000100-0000900"] == f"ah bueno {sentence(52)}"
    assert test["text"]["sp_0087-A-0001800-0002600"] == f"mañana {sentence(72)}"  # Latin-1
    assert test["wav.scp"]["sp_0087-B-0001000-0001700"].endswith(
        "/SPEECH/EVLTEST/SP_0087.SPH#t=1,1.7&channel=2"
    )
    more = prepare(
        program.main, "fisher_callhome", root, tmp_path / "both", "--callhome_train", "true"
    )
    assert len(more["train"]["text"]) == len(sets["train"]["text"]) + 3


def compress(path: Path) -> None:
    """Make the header say that the samples are compressed with shorten."""
    data = path.read_bytes()
    old, new = b"sample_coding -s4 ulaw", b"sample_coding -s26 ulaw,embedded-shorten-v2.00"
    spare = b"\x00" * (len(new) - len(old))
    assert old in data
    path.write_bytes(data[:1024].replace(old, new).replace(spare, b"", 1)[:1024] + data[1024:])


def test_compressed_sphere_goes_through_sph2pipe(root: Path, tmp_path: Path, monkeypatch) -> None:
    sph = root / "LDC2010S01" / "data" / "speech" / f"{CALL}.sph"
    compress(sph)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=f"{CALL}.sph is compressed with shorten.* sph2pipe"):
        prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    program.audio_of.cache_clear()
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    utt = f"{CALL}-B-0000900-0001600"
    locator = f"sph2pipe -f wav -p {sph} |#t=0.9,1.6&channel=2"
    assert sets["fisher_test"]["wav.scp"][utt] == locator
    assert "sph2pipe" not in sets["train"]["wav.scp"][f"{TRAIN}-A-0000000-0000800"]


def test_a_converted_recording_is_preferred(root: Path, tmp_path: Path) -> None:
    sph = root / "LDC2010S01" / "data" / "speech" / f"{CALL}.sph"
    compress(sph)
    sph.with_suffix(".flac").write_bytes(b"fLaC")
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    assert all(".flac#t=" in locator for locator in sets["fisher_test"]["wav.scp"].values())


def test_what_cannot_be_used_is_a_fault(root: Path, tmp_path: Path) -> None:
    public = root / "fisher-callhome-corpus"
    transcript = next(root.rglob(f"{TRAIN}.tdf"))
    lines = transcript.read_text().split("\n")
    lines[3] = lines[3].replace("\t0.8\t", "\t0.0\t")
    lines[4] = lines[4].replace("\t1\t0.9", "\t2\t0.9")  # a third channel
    transcript.write_text("\n".join(lines))
    mapping = [f"{TRAIN} {n}" for n in ("1", "2", "3_6", "99", "6")] + ["other_call 1"]
    text(public / "mapping" / "fisher_train", *mapping)
    text(public / "corpus" / "ldc" / "fisher_train.en", *["hello"] * 5, "")
    sets = prepare(program.main, "fisher_callhome", root, tmp_path / "data")
    assert list(sets["train"]["text"]) == [f"{TRAIN}-B-0003200-0003900"]
    reasons = [reason for _, reason in faults_of(tmp_path / "data" / "train")]
    assert reasons == [
        "starts at 0 s and ends at 0 s; expected 0 <= start < end",
        f"'{TRAIN} 2': a line of the transcript is no turn with times and channel",
        f"'{TRAIN} 3_6': its lines lie on both channels",
        f"'{TRAIN} 99': the transcript has 6 lines",
        f"no transcript of call other_call below {root}/LDC2010T04",
    ]


def test_a_lost_recording_is_a_fault(root: Path, tmp_path: Path) -> None:
    (root / "LDC2010S01" / "data" / "speech" / f"{CALL}.sph").unlink()
    with pytest.raises(DataError, match="fisher_test: no utterance is left"):
        prepare(program.main, "fisher_callhome", root, tmp_path / "data")


def test_a_wrong_layout_is_named(root: Path, tmp_path: Path) -> None:
    (root / "LDC96S35").rename(tmp_path / "a")
    (root / "fisher-callhome-corpus").rename(tmp_path / "b")
    with pytest.raises(
        DataError, match="no LDC96S35, fisher-callhome-corpus; expected folders or links named LDC"
    ):
        prepare(program.main, "fisher_callhome", root, tmp_path / "data")
