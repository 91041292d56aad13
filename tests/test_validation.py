"""Stage 7 lists every fault of a corpus in one pass, a line each, and can go on without them."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stage_data import CONFIG, TOKENS, edit, make_plan, make_s2t, run_main

from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.crosschecks import HeldOut
from espnet_smoe.datadir import read_table, write_table
from espnet_smoe.faults import Fault, read_faults, write_faults
from espnet_smoe.validation import Report, check_ctc

import check_data  # isort: skip  (stage_data puts the recipe's local/ on the path)

RATE = 16000
SIZES = {"train": 70, "valid": 6, "test_wb": 6, "test_nb": 6}
SETS = " ".join(SIZES)
WORDS = {
    "text": "la casa blanca un perro grande come en jardín por mañana hija del vecino quiere agua",
    "text.st_eng": "the white house with big dogs eating their food every morning what she wanted",
}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound corpus as stage 3 leaves it, two of its sets telephone twins; returns its place."""
    monkeypatch.chdir(tmp_path)
    for name, size in SIZES.items():
        rng = random.Random(name.removesuffix("_wb").removesuffix("_nb"))
        short = name.partition("_")[0]
        folder = Path("raw") / name
        (folder / "audio").mkdir(parents=True)
        utts = [f"{short}-{number:02}" for number in range(size)]
        samples = {utt: RATE * rng.randint(8, 14) // 4 for utt in utts}
        noise = np.random.default_rng(len(name))
        for utt in utts:
            x = 0.1 * noise.standard_normal(samples[utt])
            soundfile.write(folder / "audio" / f"{utt}.flac", x, RATE)
        write_table(folder / "wav.scp", {u: f"raw/{name}/audio/{u}.flac" for u in utts})
        for table, words in WORDS.items():
            texts = {u: " ".join(rng.choices(words.split(), k=rng.randint(5, 8))) for u in utts}
            write_table(folder / table, texts)
        write_table(folder / "utt2lang", dict.fromkeys(utts, "spa"))
        write_table(folder / "utt2spk", dict.fromkeys(utts, f"{short}-speaker"))
        write_table(folder / "utt2num_samples", samples)
        bands = {u: name[-2:] if "_" in name else ("wb", "nb")[i % 2] for i, u in enumerate(utts)}
        write_table(folder / "utt2bw", bands)
    Path("tokens.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return Path("raw")


def stages_4_and_6() -> None:
    sets = ("--train_sets", "train valid", "--test_sets", "test_wb test_nb")
    assert make_s2t(*sets) == 0
    assert make_plan() == 0


def check(*options: object, config: str = CONFIG) -> int:
    """Stage 7."""
    Path("train.yaml").write_text(config, encoding="utf-8")
    common = ("--examples", "s2t", "--sets", SETS, "--token_list", "tokens.txt", "--nj", "1")
    return run_main(check_data.main, *common, *options, "--", "--config", "train.yaml")


def listed() -> list[Fault]:
    lines = Path("s2t/validation.jsonl").read_text(encoding="utf-8").splitlines()
    return [Fault(**json.loads(line)) for line in lines]


def value(table: Path, utt: str) -> str:
    lines = (line.partition(" ") for line in table.read_text(encoding="utf-8").splitlines())
    return next(text for name, _, text in lines if name == utt)


def spoil(corpus: Path) -> dict[str, str]:
    """Put a fault of each kind into the corpus: ``{utterance: a word of its reason}``."""
    train = corpus / "train"
    write_faults(train, [Fault("train-00", "a.wav", "audio file 'a.wav' does not exist")])
    for table in ("wav.scp", "utt2num_samples", "utt2bw"):  # as a stage that leaves it out
        edit(train / table, "train-00", None)
    edit(train / "text.st_eng", "train-01", "")
    edit(train / "text", "train-02", "la <asr> casa")
    edit(train / "text.st_eng", "train-03", "the white \U000e0fff house")
    edit(train / "utt2bw", "train-04", "narrow")
    edit(train / "text", "train-05", "la casa\ntrain-05 un perro")
    transcript, translation = (value(train / name, "train-06") for name in WORDS)
    edit(train / "text", "train-06", translation)
    edit(train / "text.st_eng", "train-06", transcript)
    edit(train / "text.st_eng", "train-07", value(train / "text", "train-07"))
    edit(train / "text", "train-08", "белая собака ест в саду каждое утро")
    edit(train / "text", "train-09", "perro " * 60)
    for twin in ("test_wb", "test_nb"):  # a text of both twins is one fault
        edit(corpus / twin / "text.st_eng", "test-01", value(corpus / twin / "text", "test-01"))
    return {
        "train-00": "does not exist",
        "train-01": "empty value",
        "train-02": "special symbol",
        "train-03": "U+E0FFF",
        "train-04": "accepted: wb, nb",
        "train-05": "occurs twice",
        "train-06_st_eng": "look swapped",
        "train-07_st_eng": "the transcript itself",
        "train-08_asr": "looks like the script CYRILLIC",
        "train-09_asr": "nobody speaks more than 40",
        "test-01": "the transcript itself",
    }


def spoil_examples(corpus: Path) -> dict[str, str]:
    """Put further faults into audio and example tables, after stages 4 and 6."""
    audio = corpus / "train" / "audio"
    (audio / "train-10.flac").unlink()
    (audio / "train-11.flac").write_bytes((audio / "train-11.flac").read_bytes()[:3000])
    samples = int(value(corpus / "train" / "utt2num_samples", "train-13"))
    soundfile.write(audio / "train-13.flac", np.zeros(samples), RATE)
    soundfile.write(audio / "train-14.flac", 0.1 * np.ones(100), RATE)
    source = corpus / "test_wb" / "audio" / "test-02.flac"
    shutil.copyfile(source, audio / "train-15.flac")
    copied = value(corpus / "test_wb" / "utt2num_samples", "test-02")
    for task in ("asr", "st_eng"):
        edit(Path("s2t/train/utt2num_samples"), f"train-15_{task}", copied)
        edit(Path("s2t/train/text"), f"train-16_{task}", f"<deu><{task}><notimestamps> la casa")
    edit(Path("s2t/train/bandwidth"), "train-17_asr", "7")
    edit(Path("s2t/train/text.prev"), "train-18_st_eng", None)
    return {
        "train-10_asr": "unreadable",
        "train-11_asr": "unreadable",
        "train-13_asr": "silent: every sample is 0",
        "train-14_asr": "100 samples; expected",
        "train-15": "its audio is the same as that of utterance test-02 of test_wb",
        "train-16_asr": "<deu> is not in the token list (nor for 1 further",
        "train-17_asr": "'7', but utt2bw has nb (1)",
        "train-18_st_eng": "has no line for it",
    }


def test_a_sound_corpus_has_no_fault(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages_4_and_6()
    assert check() == 0
    assert "no problem found" in capsys.readouterr().out
    assert listed() == []


def test_every_fault_is_listed_once(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = spoil(corpus)
    stages_4_and_6()
    expected |= spoil_examples(corpus)
    assert check() == 1
    found = listed()
    counts = Counter(fault.utt for fault in found)
    assert counts == Counter(list(expected)), [str(fault) for fault in found]
    for fault in found:
        assert expected[fault.utt] in fault.reason
        assert fault.file
    error = capsys.readouterr().err
    assert f"check_data.py: {len(expected)} problem(s); all of them: s2t/validation.jsonl" in error
    for fault in found:
        assert f"check_data.py: {fault}\n" in error


def test_accepted_faults_are_left_out_and_listed_again(corpus: Path) -> None:
    expected = spoil(corpus)
    stages_4_and_6()
    expected |= spoil_examples(corpus)
    assert check("--accept_faults", "true") == 0
    first = listed()
    for name in ("train-06", "train-10", "train-13", "train-15", "train-16"):
        for table in ("text", "wav.scp", "utt2spk", "utt2num_samples"):
            assert not {f"{name}_asr", f"{name}_st_eng"} & set(read_table(f"s2t/train/{table}"))
    left = read_table("s2t/train/text")
    assert {"train-01_asr", "train-03_asr", "train-18_asr", "train-20_asr"} <= set(left)
    assert "train-08_st_eng" not in left  # its CTC target is the faulty transcript
    planned = Counter(u for b in read_plan(Path("s2t/train") / PLAN_NAME) for u in b.utts)
    assert planned == dict.fromkeys(left, 1)
    assert check("--accept_faults", "true") == 0
    assert sorted(listed()) == sorted(first)
    assert len(read_faults("s2t/train")) == len(expected) - 1


def test_a_test_utterance_in_training_is_an_error(corpus: Path) -> None:
    for table in ("wav.scp", "text", "text.st_eng", "utt2lang", "utt2bw", "utt2num_samples"):
        rows = read_table(corpus / "train" / table)
        write_table(corpus / "train" / table, {**rows, "test-03": rows["train-03"]})
    stages_4_and_6()
    assert check() == 1
    (fault,) = listed()
    assert (fault.utt, fault.file) == ("test-03", "s2t/train/wav.scp")
    assert fault.reason == "utterance test-03 is also one of test set test_nb"


def test_the_same_source_of_audio_is_an_error(corpus: Path) -> None:
    """Stage 3's copies may differ: the telephone has been at one of them."""
    for name, utt in (("train", "train-05"), ("test", "test-05")):
        write_table(Path("data") / name / "wav.scp", {utt: "/audio/one.wav"})
    stages_4_and_6()
    assert check("--data", "data") == 1
    (fault,) = listed()
    assert (fault.utt, fault.file) == ("train-05", "data/train/wav.scp")
    assert fault.reason.startswith("its audio is that of utterance test-05 of test_")


def test_speakers_in_training_and_test_are_listed_unless_allowed(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for twin in ("test_wb", "test_nb"):
        edit(corpus / twin / "utt2spk", "test-03", "train-speaker")
    stages_4_and_6()
    assert check() == 1
    (fault,) = listed()
    assert fault.file == "s2t/train/utt2spk"
    assert "speaker 'train-speaker' of 140 examples also speaks in test set test_" in fault.reason
    assert check("--allow_speaker_overlap", "true") == 0
    assert f"check_data.py: accepted: {fault}" in capsys.readouterr().out
    assert check("--accept_faults", "true") == 0
    assert len(read_table("s2t/train/text")) == 140


def test_without_decoding_the_samples_are_not_looked_at(corpus: Path) -> None:
    samples = int(value(corpus / "train" / "utt2num_samples", "train-13"))
    soundfile.write(corpus / "train" / "audio" / "train-13.flac", np.zeros(samples), RATE)
    stages_4_and_6()
    assert check("--check_samples", "false") == 0
    assert check("--check_samples", "true", "--nj", "2") == 1


def test_a_faulty_file_cannot_be_accepted(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages_4_and_6()
    Path("s2t/train/batch_plan.jsonl").unlink()
    Path("s2t/valid/utt2bw").unlink()
    assert check("--accept_faults", "true") == 1
    assert [fault.file for fault in listed()] == [
        "s2t/train/batch_plan.jsonl",
        "s2t/valid/utt2bw",
    ]
    assert "cannot go on with a faulty file" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lacks", "holds", "twice"])
def test_a_plan_of_other_examples_is_a_fault(corpus: Path, kind: str) -> None:
    stages_4_and_6()
    path = Path("s2t/train/batch_plan.jsonl")
    first, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entry = json.loads(first)
    if kind == "holds":
        entry["utts"].append("nobody")
    elif kind == "twice":
        entry["utts"].append(entry["utts"][0])
    lines = rest if kind == "lacks" else [json.dumps(entry) + "\n", *rest]
    path.write_text("".join(lines), encoding="utf-8")
    assert check() == 1
    (fault,) = listed()
    assert kind in fault.reason
    assert "rerun stage 6" in fault.reason


def test_no_plan_is_asked_for_when_espnets_samplers_are_used(corpus: Path) -> None:
    stages_4_and_6()
    for name in ("train", "valid"):
        Path(f"s2t/{name}/batch_plan.jsonl").unlink()
    assert check() == 1
    assert check(config="iterator_type: sequence\nbatch_type: folded") == 0
    assert check(config="iterator_type: sequence\nvalid_iterator_type: task") == 1
    assert [fault.file for fault in listed()] == ["s2t/valid/batch_plan.jsonl"]


def test_transcripts_of_more_ctc_tokens_than_frames_are_listed(corpus: Path) -> None:
    stages_4_and_6()
    edit(Path("s2t/train/text.ctc"), "train-03_asr", "aab b")
    edit(Path("s2t/train/utt2num_samples"), "train-03_asr", "5")
    report = Report(Path("s2t/train"))
    check_ctc(report, lambda samples: max(samples, 5) if samples == 5 else 999, lambda t: [*t])
    (fault,) = report.faults
    assert (fault.utt, fault.file) == ("train-03_asr", "s2t/train/text.ctc")
    assert fault.reason.startswith("6 CTC tokens for 5 encoder frames (5 samples)")


def test_sets_without_speakers_share_none(corpus: Path) -> None:
    for name in SIZES:
        (corpus / name / "utt2spk").unlink()
    stages_4_and_6()
    tests = HeldOut()
    tests.add("test_wb", Path("s2t/test_wb"), None)
    assert list(tests.check_speakers(Report(Path("s2t/train")))) == []
