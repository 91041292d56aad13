"""Stage 3: format the audio, leave out what cannot be read, copies at other speeds."""

from __future__ import annotations

import sys
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

LOCAL = Path(__file__).parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
sys.path.insert(0, str(LOCAL))

import format_audio  # noqa: E402

from espnet_smoe import audio_formats  # noqa: E402
from espnet_smoe.audio import (  # noqa: E402
    AudioError,
    read_audio,
    read_header,
    samples_at,
)
from espnet_smoe.audio_reader import AudioReader  # noqa: E402
from espnet_smoe.datadir import read_table, write_table  # noqa: E402
from espnet_smoe.faults import Fault, read_faults, write_faults  # noqa: E402

UTTS = [f"u{number}" for number in range(8)]
NARROW = ("u1", "u5")  # 8 kHz files
TAGGED = Path("dump/tagged/train")
RAW = Path("dump/raw/train")
CARRIED = ("text", "text.st_eng", "utt2fs", "utt2bw", "utt2edge")


def make_set(name: str, utts: list[str]) -> None:
    """A set as stage 2 leaves it."""
    rng = np.random.default_rng(0)
    folder, audio = Path("dump/tagged") / name, Path("wav") / name
    audio.mkdir(parents=True)
    bands = {utt: "nb" if utt in NARROW else "wb" for utt in utts}
    rates = {utt: 8000 if band == "nb" else 16000 for utt, band in bands.items()}
    for number, (utt, rate) in enumerate(rates.items()):
        samples = 0.1 * rng.standard_normal(rate + 7 * number)
        soundfile.write(audio / f"{utt}.wav", samples, rate)
    write_table(folder / "wav.scp", {utt: audio / f"{utt}.wav" for utt in utts})
    write_table(folder / "text", {utt: f"hola {utt}" for utt in utts})
    write_table(folder / "text.st_eng", {utt: f"hello {utt}" for utt in utts})
    write_table(folder / "utt2spk", dict.fromkeys(utts, "s1"))
    write_table(folder / "utt2bw", bands)
    write_table(folder / "utt2fs", rates)
    write_table(folder / "utt2edge", {utt: f"{rate // 2} 0.90" for utt, rate in rates.items()})


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with dump/tagged/{train,valid,test}."""
    monkeypatch.chdir(tmp_path)
    make_set("train", UTTS)
    make_set("valid", UTTS[:4])
    make_set("test", UTTS[:3])
    return tmp_path


def form(*options: str) -> int:
    return format_audio.main(["--nj", "1", *options])


@pytest.mark.parametrize("audio_format", ["flac", "flac.ark", "wav.ark"])
def test_formatting_keeps_16_bit_audio_exactly(audio_format: str) -> None:
    assert form("--sets", "train", "--audio_format", audio_format) == 0
    wavs, tagged = read_table(RAW / "wav.scp"), read_table(TAGGED / "wav.scp")
    samples = read_table(RAW / "utt2num_samples")
    for utt in UTTS:
        x, rate = read_audio(wavs[utt])
        assert rate == 16000
        assert len(x) == int(samples[utt])
        if utt not in NARROW:
            np.testing.assert_array_equal(x, read_audio(tagged[utt])[0])
    if audio_format == "flac":
        assert wavs["u0"] == "dump/raw/train/audio/u0.flac"
        assert read_header(wavs["u0"]).subtype == "PCM_16"
    for table in (*CARRIED, "utt2spk"):
        assert (RAW / table).read_bytes() == (TAGGED / table).read_bytes()


@pytest.mark.parametrize("audio_format", ["flac.ark", "wav.ark"])
def test_kaldiio_reads_the_archive(audio_format: str) -> None:
    """As ESPnet does for the data type ``kaldi_ark``."""
    assert form("--sets", "test", "--audio_format", audio_format, "--nj", "2") == 0
    rate, x = kaldiio.load_scp("dump/raw/test/wav.scp")["u2"]
    assert rate == 16000
    np.testing.assert_array_equal(x, read_audio(read_table("dump/tagged/test/wav.scp")["u2"])[0])


def test_loud_audio_is_clipped_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    path = read_table("dump/tagged/test/wav.scp")["u1"]
    soundfile.write(path, 2 * np.sin(np.arange(8000)), 16000, subtype="FLOAT")
    assert form("--sets", "test") == 0
    assert "warning: 1 of 3 utterances exceed full scale" in capsys.readouterr().err
    x, _ = read_audio(read_table("dump/raw/test/wav.scp")["u1"])
    assert np.abs(x).max() <= 1
    assert x.min() == -1


@pytest.mark.parametrize("audio_format", format_audio.FORMATS)
def test_an_utterance_that_cannot_be_read_is_left_out_and_noted(
    capsys: pytest.CaptureFixture[str], audio_format: str
) -> None:
    bad, gone = (read_table(TAGGED / "wav.scp")[utt] for utt in ("u2", "u5"))
    Path(bad).write_bytes(b"nonsense")
    Path(gone).unlink()
    table = TAGGED / "wav.scp"
    table.write_text(table.read_text().replace(f"u3 {read_table(table)['u3']}", "u3"))
    earlier = Fault("u9", "data/train/wav.scp", "was bad already")
    write_faults(TAGGED, [earlier])
    write_table(TAGGED / "text.st_eng", {"u1": "one", "u2": "two"})
    (TAGGED / "spk2utt").write_text(f"s1 {' '.join(UTTS)}\ns2 u2\n")
    assert form("--sets", "train", "--audio_format", audio_format, "--nj", "2") == 0
    left = [utt for utt in UTTS if utt not in ("u2", "u3", "u5")]
    for name in ("wav.scp", "text", "utt2spk", "utt2bw", "utt2edge", "utt2num_samples"):
        assert list(read_table(RAW / name)) == left
    assert read_table(RAW / "text.st_eng") == {"u1": "one"}
    assert (RAW / "spk2utt").read_text() == f"s1 {' '.join(left)}\n"
    faults = read_faults(RAW)
    assert faults[0] == earlier
    assert [(fault.utt, fault.file) for fault in faults[1:]] == [
        ("u2", bad),
        ("u3", str(table)),
        ("u5", gone),
    ]
    assert faults[1].reason.startswith("cannot be read (")
    assert faults[2].reason == "line 4 has an empty value"
    assert faults[3].reason == "does not exist"
    message = capsys.readouterr().err
    assert "dump/raw/train: 3 of 8 utterances left out:" in message
    assert f"  utterance u5: {gone}: does not exist" in message
    assert (RAW / "audio").exists() == (audio_format != "none")


def test_a_set_without_a_readable_utterance_stops_the_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in read_table("dump/tagged/test/wav.scp").values():
        Path(path).write_bytes(b"")
    assert form("--sets", "test") == 1
    assert "dump/tagged/test/wav.scp: no utterance is left" in capsys.readouterr().err
    assert not Path("dump/raw/test").exists()
    assert form("--sets", "nowhere") == 1
    assert "no such file" in capsys.readouterr().err
    Path("dump/tagged/test/wav.scp").write_text("")
    assert form("--sets", "test") == 1
    assert "is empty" in capsys.readouterr().err


def test_a_full_disk_is_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise AudioError("cannot write: no space left on device")

    monkeypatch.setattr(audio_formats, "write_audio", full)
    assert form("--sets", "test") == 1
    assert "no space left on device" in capsys.readouterr().err
    assert not Path("dump/raw/test").exists()


def test_without_copies_the_tables_name_the_originals() -> None:
    wavs = read_table(TAGGED / "wav.scp")
    x, _ = read_audio(wavs["u4"])
    soundfile.write("both.wav", np.stack([x, 0 * x], axis=1), 16000)
    wavs |= {
        "u2": f"cat {wavs['u2']} |",
        "u3": f"{wavs['u3']}#t=0.1,0.5",
        "u4": "both.wav#channel=1",
    }
    write_table(TAGGED / "wav.scp", wavs)
    assert form("--sets", "train", "--audio_format", "none") == 0
    assert (RAW / "wav.scp").read_bytes() == (TAGGED / "wav.scp").read_bytes()
    reader = AudioReader(RAW / "wav.scp")
    assert list(reader) == UTTS
    rates = set()
    for utt, samples in read_table(RAW / "utt2num_samples").items():
        where = wavs[utt]
        rates.add(read_header(where).rate)
        assert len(reader[utt]) == int(samples) == samples_at(read_header(where), 16000)
    assert rates == {8000, 16000}
    heard = {utt: reader[utt] for utt in UTTS}
    assert form("--sets", "train") == 0
    for utt, path in read_table(RAW / "wav.scp").items():
        np.testing.assert_array_equal(heard[utt], read_audio(path)[0])


def test_copies_at_other_speeds_come_beside_the_training_set() -> None:
    (TAGGED / "spk2utt").write_text(f"s1 {' '.join(UTTS)}\n")
    options = ("--sets", "train valid", "--speed_perturb_factors", "0.9 1.0 1.1")
    assert form(*options, "--nj", "2") == 0
    names = sorted(prefix + utt for prefix in ("", "sp0.9-", "sp1.1-") for utt in UTTS)
    originals = [utt for utt in names if "-" not in utt]
    wavs, samples = read_table(RAW / "wav.scp"), read_table(RAW / "utt2num_samples")
    for name in ("wav.scp", "utt2spk", *CARRIED):
        rows, before = read_table(RAW / name), read_table(TAGGED / name)
        assert list(rows) == names
        if name not in ("wav.scp", "utt2spk"):
            assert all(rows[utt] == before[utt.rpartition("-")[2]] for utt in names)
    assert read_table(RAW / "utt2spk")["sp0.9-u1"] == "sp0.9-s1"
    assert (RAW / "spk2utt").read_text().splitlines() == [
        f"{prefix}s1 {' '.join(prefix + utt for utt in originals)}"
        for prefix in ("", "sp0.9-", "sp1.1-")
    ]
    for utt in names:
        x, rate = read_audio(wavs[utt])
        assert (len(x), rate) == (int(samples[utt]), 16000)
        factor = float(utt[2:5]) if "-" in utt else 1.0
        original = int(samples[utt.rpartition("-")[2]])
        assert abs(len(x) - original / factor) <= 1
    assert list(read_table("dump/raw/valid/wav.scp")) == UTTS[:4]


def test_a_faster_copy_is_higher_by_its_factor() -> None:
    path = read_table(TAGGED / "wav.scp")["u0"]
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000), 16000)
    assert form("--sets", "train", "--speed_perturb_factors", "1.1") == 0
    wavs = read_table(RAW / "wav.scp")
    assert list(wavs) == [f"sp1.1-{utt}" for utt in UTTS]  # 1.0 is not among the factors
    x, rate = read_audio(wavs["sp1.1-u0"])
    peak = np.abs(np.fft.rfft(x * np.hanning(len(x)))).argmax() * rate / len(x)
    assert peak == pytest.approx(1100, abs=2)


def test_a_bad_file_is_one_fault_at_any_number_of_speeds() -> None:
    Path(read_table(TAGGED / "wav.scp")["u2"]).unlink()
    assert form("--sets", "train", "--speed_perturb_factors", "0.9 1.0 1.1") == 0
    assert [fault.utt for fault in read_faults(RAW)] == ["u2"]
    assert len(read_table(RAW / "text")) == 3 * 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--speed_perturb_factors", "0.9 fast"], "'fast': accepted are numbers from 0.5 to 2.0"),
        (["--speed_perturb_factors", "3"], "'3': accepted are numbers"),
        (["--speed_perturb_factors", "1 1.0"], "1 occurs twice"),
        (["--speed_perturb_factors", "0.9", "--audio_format", "none"], "have to be written"),
        (["--fs", "8000", "--audio_format", "none"], "always brought to 16000 Hz"),
        (["--audio_format", "mp3"], "invalid choice: 'mp3'"),
    ],
)
def test_impossible_formats_stop_at_once(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        form("--sets", "train", *options)
    assert message in capsys.readouterr().err
