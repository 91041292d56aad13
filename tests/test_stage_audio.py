"""Stage 2: tag the bandwidth, simulate telephone speech."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

LOCAL = Path(__file__).parents[1] / "egs2" / "smoe_asr_st" / "s2t1" / "local"
sys.path.insert(0, str(LOCAL))

import tag_bandwidth  # noqa: E402

from espnet_smoe.audio import read_audio, read_header, resample  # noqa: E402
from espnet_smoe.datadir import read_table, write_table  # noqa: E402
from espnet_smoe.faults import Fault, read_faults, write_faults  # noqa: E402
from espnet_smoe.telephone import telephone  # noqa: E402

UTTS = [f"u{number}" for number in range(8)]


def wide(seed: int, seconds: float = 0.8) -> np.ndarray:
    """Buzz and hiss in turn at 16 kHz: wideband to the meter."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16000)
    time = np.arange(n) / 16000
    hiss = np.sin(2 * np.pi * 4 * time + seed) > 0.4
    buzz = 0.05 * sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 22))
    return np.where(hiss, 0.02 * rng.standard_normal(n), buzz).astype(np.float32)


def make_set(folder: Path, utts: list[str]) -> None:
    wavs = {}
    for number, utt in enumerate(utts):
        path = folder.parent / "wav" / folder.name / f"{utt}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wide(number), 16000)
        wavs[utt] = str(path)
    write_table(folder / "wav.scp", wavs)
    write_table(folder / "text", {utt: f"hola {utt}" for utt in utts})
    write_table(folder / "text.st_eng", {utt: f"hello {utt}" for utt in utts})
    write_table(folder / "utt2spk", dict.fromkeys(utts, "s1"))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with data/{train,valid,test}."""
    monkeypatch.chdir(tmp_path)
    make_set(Path("data/train"), UTTS)
    make_set(Path("data/valid"), UTTS[:4])
    make_set(Path("data/test"), UTTS[:3])
    return tmp_path


def tag(*options: str) -> int:
    return tag_bandwidth.main(["--nj", "1", *options])


def test_half_of_training_is_narrowed_and_tests_come_in_both(recipe: Path) -> None:
    assert tag("--telephone_share", "0.5") == 0
    for name, size in (("train", 8), ("valid", 4)):
        folder = Path("dump/tagged") / name
        labels = read_table(folder / "utt2bw")
        assert list(labels.values()).count("nb") == size // 2
        wavs, originals = read_table(folder / "wav.scp"), read_table(f"data/{name}/wav.scp")
        for utt, label in labels.items():
            header = read_header(wavs[utt])
            if label == "wb":
                assert wavs[utt] == originals[utt]
            else:
                assert wavs[utt] == f"dump/telephone/{name}/{utt}.flac"
                assert (header.rate, header.subtype) == (8000, "PCM_16")
                x, rate = read_audio(originals[utt])
                np.testing.assert_array_equal(read_audio(wavs[utt])[0], telephone(x, rate))
        assert set(read_table(folder / "utt2fs").values()) == {"16000"}
        for table in ("text", "text.st_eng", "utt2spk"):
            assert (folder / table).read_bytes() == Path("data", name, table).read_bytes()
        assert "simulated telephone copies" in (folder / "bandwidth_report.md").read_text()
    wb, nb = (read_table(f"dump/tagged/test_{label}/utt2bw") for label in ("wb", "nb"))
    assert wb == dict.fromkeys(UTTS[:3], "wb")
    assert nb == dict.fromkeys(UTTS[:3], "nb")
    assert not Path("dump/tagged/test").exists()


def test_without_simulation_sets_keep_their_names_and_files(recipe: Path) -> None:
    assert tag() == 0
    for name in ("train", "valid", "test"):
        folder = Path("dump/tagged") / name
        assert set(read_table(folder / "utt2bw").values()) == {"wb"}
        assert read_table(folder / "wav.scp") == read_table(f"data/{name}/wav.scp")
    edge, confidence = read_table("dump/tagged/train/utt2edge")["u0"].split()
    assert float(edge) > 6000
    assert 0.5 < float(confidence) <= 1
    assert not Path("dump/telephone").exists()


def test_the_share_is_exact_seeded_and_order_independent() -> None:
    utts = [f"u{number}" for number in range(101)]
    for share, size in ((0.0, 0), (0.25, 25), (0.5, 50), (1.0, 101)):
        assert len(tag_bandwidth.choose(utts, share, 1)) == size
    chosen = tag_bandwidth.choose(utts, 0.5, 1)
    assert tag_bandwidth.choose(utts[::-1], 0.5, 1) == chosen
    assert tag_bandwidth.choose(utts, 0.5, 2) != chosen
    assert tag_bandwidth.choose(utts, 0.25, 1) < chosen


def test_a_rerun_and_more_processes_give_the_same(recipe: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(Path("dump").rglob("*")) if p.is_file()}

    assert tag("--telephone_share", "0.5") == 0
    first = contents()
    Path("dump/tagged/train.partial").mkdir()
    Path("dump/tagged/train.partial/junk").write_text("left by a killed run")
    assert tag_bandwidth.main(["--nj", "2", "--telephone_share", "0.5"]) == 0
    assert contents() == first


def hide_narrowband(utt: str, rate: int) -> None:
    """Replace a training file by its telephone copy, stored at the given rate."""
    path = read_table("data/train/wav.scp")[utt]
    x = telephone(read_audio(path)[0], 16000)
    soundfile.write(path, resample(x, 8000, rate), rate)


def test_narrowband_originals_are_found_listed_and_never_narrowed(recipe: Path) -> None:
    hide_narrowband("u1", 8000)
    hide_narrowband("u2", 16000)
    assert tag("--telephone_share", "1") == 0
    folder = Path("dump/tagged/train")
    originals, wavs = read_table("data/train/wav.scp"), read_table(folder / "wav.scp")
    assert [utt for utt in UTTS if wavs[utt] == originals[utt]] == ["u1", "u2"]
    assert read_table(folder / "utt2fs")["u1"] == "8000"
    assert set(read_table(folder / "utt2bw").values()) == {"nb"}
    text = (folder / "bandwidth_report.md").read_text()
    assert "| 8000 | 1 | 0 |" in text
    assert "| 16000 | 1 | 6 |" in text
    assert f"| u2 | {originals['u2']} | 16000 |" in text
    assert "header 16000 Hz, spectrum narrowband" in text
    assert "| u1 |" not in text  # header and spectrum agree
    assert "2 utterances are narrowband already and not narrowed: kept as they are" in text


def test_the_users_own_tags_are_kept_and_differences_listed(recipe: Path) -> None:
    own = dict.fromkeys(UTTS, "wb") | {"u3": "nb"}
    write_table("data/train/utt2bw", own)
    assert tag() == 0
    assert read_table("dump/tagged/train/utt2bw") == own
    text = Path("dump/tagged/train/bandwidth_report.md").read_text()
    assert "utt2bw says nb, measured wb" in text
    assert "| u3 |" in text


def test_tags_of_some_utterances_leave_the_others_to_the_measurement(recipe: Path) -> None:
    write_table("data/valid/utt2bw", {"u1": "nb"})
    assert tag() == 0
    assert read_table("dump/tagged/valid/utt2bw") == dict.fromkeys(UTTS[:4], "wb") | {"u1": "nb"}
    text = Path("dump/tagged/valid/bandwidth_report.md").read_text()
    assert "own `utt2bw` for 1 utterances, for the others the measurement" in text


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"u2": "narrow"}, "utterance 'u2' has bandwidth 'narrow'; accepted: wb, nb"),
        ({"x9": "nb"}, "utterance 'x9' is not in data/valid/wav.scp"),
    ],
)
def test_unknown_tags_stop_the_stage(
    recipe: Path, capsys: pytest.CaptureFixture[str], own: dict[str, str], message: str
) -> None:
    write_table("data/valid/utt2bw", own)
    assert tag() == 1
    assert message in capsys.readouterr().err
    assert not Path("dump/tagged/valid").exists()


def test_unusable_files_are_left_out_and_noted(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wavs = read_table("data/train/wav.scp")
    Path(wavs["u4"]).write_bytes(b"nonsense")
    Path(wavs["u6"]).unlink()
    write_faults("data/train", [Fault("u99", "list.tsv", "from stage 1")])
    assert tag() == 0
    message = capsys.readouterr().err
    assert "2 of 8 audio files cannot be used" in message
    folder = Path("dump/tagged/train")
    first, second, third = read_faults(folder)
    assert first == Fault("u99", "list.tsv", "from stage 1")
    assert (second.utt, second.file, third.utt) == ("u4", wavs["u4"], "u6")
    assert "cannot be read" in second.reason
    assert "does not exist" in third.reason
    for table in ("wav.scp", "text", "utt2bw", "utt2fs", "utt2edge"):
        assert set(read_table(folder / table)) == set(UTTS) - {"u4", "u6"}
    for utt in UTTS[:4]:
        Path(read_table("data/valid/wav.scp")[utt]).unlink()
    assert tag() == 1
    assert "data/valid: none of its 4 audio files can be used" in capsys.readouterr().err


def test_broken_lines_of_wav_scp_are_noted(recipe: Path) -> None:
    path = Path("data/train/wav.scp")
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\nu9\n")
    assert tag() == 0
    utts = {fault.utt: fault.reason for fault in read_faults("dump/tagged/train")}
    assert "occurs twice" in utts["u0"]
    assert "empty value" in utts["u9"]
    assert set(read_table("dump/tagged/train/text")) == set(UTTS) - {"u0"}


@pytest.mark.parametrize(
    ("policy", "label"), [("measured", "nb"), ("header", "wb"), ("error", None)]
)
def test_the_policy_decides_when_header_and_spectrum_disagree(
    recipe: Path, capsys: pytest.CaptureFixture[str], policy: str, label: str | None
) -> None:
    hide_narrowband("u2", 16000)
    hide_narrowband("u5", 8000)  # no conflict
    done = tag("--on_conflict", policy)
    original = read_table("data/train/wav.scp")["u2"]
    if label is None:
        assert done == 1
        message = capsys.readouterr().err
        assert "spectrum of 1 files disagree (--on_conflict error)" in message
        assert f"u2, {original}, 16000, " in message
        assert not Path("dump/tagged/train").exists()
        return
    folder = Path("dump/tagged/train")
    labels = dict.fromkeys(UTTS, "wb") | {"u2": label, "u5": "nb"}
    assert (done, read_table(folder / "utt2bw")) == (0, labels)
    text = (folder / "bandwidth_report.md").read_text()
    assert f"| u2 | {original} | 16000 |" in text
    assert f"disagree (--on_conflict {policy})" in text
    with (folder / "bandwidth_cases.tsv").open() as file:
        (case,) = csv.DictReader(file, delimiter="\t")
    assert (case["utterance"], case["header_hz"], case["decision"]) == ("u2", "16000", label)
    picture = (folder / "bandwidth.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_several_codecs_are_drawn_the_same_at_every_run(recipe: Path) -> None:
    options = ("--telephone_codec", "ulaw gsm", "--telephone_level", "true")
    options += ("--telephone_noise", "0.5", "--telephone_share", "1")
    args = tag_bandwidth.parse(list(options))
    lines = {utt: tag_bandwidth.line_of(utt, args) for utt in UTTS}
    assert {line.codec for line in lines.values()} == {"ulaw", "gsm"}
    assert tag(*options) == 0
    for utt, wav in read_table("dump/tagged/train/wav.scp").items():
        x, rate = read_audio(read_table("data/train/wav.scp")[utt])
        np.testing.assert_array_equal(read_audio(wav)[0], telephone(x, rate, line=lines[utt]))


def test_test_twins_hold_the_same_utterances(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table("data/test/utt2bw", {"u0": "wb", "u1": "nb", "u2": "wb"})
    Path("data/test/spk2utt").write_text("s1 u0 u1 u2\n")
    assert tag("--telephone_share", "0.5") == 0
    for label in ("wb", "nb"):
        folder = Path(f"dump/tagged/test_{label}")
        for table in ("wav.scp", "text", "text.st_eng", "utt2spk", "utt2bw", "utt2edge"):
            assert list(read_table(folder / table)) == ["u0", "u2"]
        assert "left out of this set" in (folder / "bandwidth_report.md").read_text()
    write_table("data/test/utt2bw", dict.fromkeys(UTTS[:3], "nb"))
    assert tag("--telephone_share", "0.5") == 1
    assert "test set 'test'" in capsys.readouterr().err


def test_segments_are_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/train/segments").write_text("u0 rec 0 1\n")
    assert tag() == 1
    assert "segments are not read here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--telephone_share", "1.5"],
        ["--telephone_noise", "2"],
        ["--telephone_codec", "ulaw mp3"],
        ["--on_conflict", "ignore"],
        ["--nj", "0"],
        ["--nope", "1"],
    ],
)
def test_impossible_options_stop_at_once(recipe: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tag_bandwidth.main(options)
