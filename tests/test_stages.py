"""Stages 4, 6 and 7: each stops at a mistake in the data and names utterance and file."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stage_data import (
    CONFIG,
    SAMPLES,
    TEST_UTTS,
    UTTS,
    edit,
    make_plan,
    make_raw,
    make_s2t,
    run_main,
)

from espnet_smoe.batching import PLAN_NAME, read_plan
from espnet_smoe.datadir import read_table, write_table
from espnet_smoe.faults import Fault, read_faults, write_faults

import check_data  # isort: skip  (stage_data puts the recipe's local/ on the path)
import make_examples  # isort: skip


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of stage 3 in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    return Path("raw")


def check(*options: object) -> int:
    """Stage 7."""
    sets = ("--sets", "train valid test", "--token_list", "tokens.txt", "--nj", "1")
    config = ("--", "--config", "train.yaml") if Path("train.yaml").exists() else ()
    return run_main(check_data.main, "--examples", "s2t", *sets, *options, *config)


def test_stages_4_6_and_7_pass_on_good_data(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    assert check() == 0
    out = capsys.readouterr().out
    assert "s2t/train: 8 examples of 4 utterances (asr, st_eng)" in out
    assert "s2t/test: 4 utterances (asr, st_eng)" in out
    assert "check_data.py: train valid test: no problem found" in out
    plan = read_plan(Path("s2t/train") / PLAN_NAME)
    assert {b.task for b in plan} == {"asr", "st_eng"}
    assert all(b.samples <= 64000 for b in plan)


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("utt2bw", None, "raw/train/utt2bw: it has no line here, but one in wav.scp"),
        ("utt2bw", "narrow", "raw/train/utt2bw: bandwidth 'narrow'; accepted: wb, nb"),
        ("utt2lang", None, "raw/train/utt2lang: it has no line here"),
        ("utt2num_samples", "1.5", "raw/train/utt2num_samples: '1.5' is no number of samples"),
        ("text", None, "raw/train/text: it has no line here"),
        ("text", "", "raw/train/text: line 2 has an empty value"),
        ("text", "\u00a0", "raw/train/text: a text without a visible character"),
        ("text", "a\nu1 b", "raw/train/text: occurs twice, in lines 2 and 3"),
        ("text.st_eng", "  ", "raw/train/text.st_eng: line 2 has an empty value"),
        ("text", "di <asr> hola", "raw/train/text: .* special symbol '<asr>'"),
        ("text", "hola <sos>", "raw/train/text: .* special symbol '<sos>'"),
        ("text.st_eng", "a <0.00> b", "text.st_eng: .* special symbol '<0.00>'"),
        ("text", "hola \U000e0fff", r"raw/train/text: U\+E0FFF"),
        ("wav.scp", None, "raw/train/utt2num_samples: it is not in raw/train/wav.scp: no audio"),
    ],
)
@pytest.mark.parametrize("name", ["train", "test"])
def test_stage_4_leaves_out_what_has_a_fault_and_notes_utterance_and_file(
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    table: str,
    value: str | None,
    message: str,
) -> None:
    utt = {"train": "u1", "test": "t1"}[name]
    edit(raw / name / table, utt, value and value.replace("u1", utt))
    assert make_s2t() == 0
    faults = read_faults(f"s2t/{name}")
    assert len(faults) == 1
    shown = str(faults[0])
    assert re.fullmatch(f"utterance {utt}: .*{message.replace('train', name)}.*", shown), shown
    assert f"s2t/{name}: 1 fault(s), left out:\n  {shown}" in capsys.readouterr().err
    whole = table != "text.st_eng"  # a faulty translation takes only its own example along
    if name == "train":
        left = set(read_table("s2t/train/text"))
        assert "u1_st_eng" not in left
        assert ("u1_asr" in left) != whole
        assert len(left) == 6 + (not whole)
    else:
        assert (utt in read_table("s2t/test/text")) != whole
        assert utt not in read_table("s2t/test/text.st_eng")
        if whole:
            assert all(utt not in read_table(p) for p in Path("s2t/test").glob("[wu]*"))


def test_stage_4_hands_on_the_faults_of_earlier_stages_and_adds_no_line_for_them(
    raw: Path,
) -> None:
    early = Fault("u1", "u1.wav", "is no audio")
    write_faults(raw / "train", [early])
    for table in ("wav.scp", "utt2num_samples"):  # as a stage that leaves the utterance out
        edit(raw / "train" / table, "u1", None)
    edit(raw / "train" / "text", "u2", "")
    assert make_s2t() == 0
    assert read_faults("s2t/train") == [
        early,
        Fault("u2", "raw/train/text", "line 3 has an empty value"),
    ]


def test_stage_4_sorts_a_table_and_notes_it_once(raw: Path) -> None:
    path = raw / "train" / "text"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    assert make_s2t() == 0
    assert len(read_table("s2t/train/text")) == 8
    (fault,) = read_faults("s2t/train")
    assert "utterance 'u2' follows 'u3'; the ids are not sorted" in fault.reason


def test_stage_4_leaves_out_a_reference_with_its_others(raw: Path) -> None:
    write_table(raw / "test" / "text.st_eng.ref2", dict.fromkeys(TEST_UTTS, "hi"))
    edit(raw / "test" / "text.st_eng.ref2", "t1", "<asr>")
    assert make_s2t() == 0
    for name in ("text.st_eng", "text.st_eng.ref2"):
        assert list(read_table(f"s2t/test/{name}")) == ["t0", "t2", "t3"]
    assert list(read_table("s2t/test/text")) == TEST_UTTS


@pytest.mark.parametrize("name", ["wav.scp", "utt2lang", "text"])
def test_stage_4_wants_its_tables(raw: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (raw / "train" / name).unlink()
    assert make_s2t() == 1
    assert f"make_examples.py: raw/train/{name}: no such file" in capsys.readouterr().err
    assert not Path("s2t/train").exists()


def test_stage_4_orders_examples_by_their_own_ids(raw: Path) -> None:
    """'u1-b' follows 'u1', but 'u1-b_asr' precedes 'u1_asr'."""
    folder = raw / "train"
    for table in ("wav.scp", "text", "text.st_eng", "utt2lang", "utt2bw", "utt2num_samples"):
        rows = read_table(folder / table)
        write_table(folder / table, {**rows, "u1-b": rows["u1"]})
    write_table(folder / "utt2spk", dict.fromkeys(["u0", "u1", "u1-b"], "maria"))
    assert make_s2t() == 0
    ids = list(read_table("s2t/train/text"))
    assert ids.index("u1-b_asr") < ids.index("u1_asr")
    for table in make_examples.EXAMPLE_TABLES.split():
        assert list(read_table(f"s2t/train/{table}")) == ids
    assert "u1-b_asr" in read_table("s2t/train/utt2spk")


def test_stage_4_drops_what_is_too_short_or_too_long_and_says_so(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_s2t("--min_seconds", "0.6", "--max_seconds", "1.7") == 0
    out = capsys.readouterr().out
    assert "s2t/train: dropped u0: 0.50 s, accepted 0.6 to 1.7 s" in out
    assert list(read_table("s2t/train/dropped")) == ["u0", "u3"]
    utts = {example.partition("_")[0] for example in read_table("s2t/train/text")}
    assert utts == {"u1", "u2"}
    assert list(read_table("s2t/test/text")) == TEST_UTTS  # no test utterance is dropped
    assert "s2t/test: 2 outside the training lengths, decoded all the same" in out
    assert make_s2t("--max_seconds", "0.3") == 1
    assert "raw/train: no utterance is left (dropped: 4)" in capsys.readouterr().err


def test_stage_4_takes_a_task_that_covers_some_utterances_only(raw: Path) -> None:
    edit(raw / "train" / "text.st_eng", "u2", None)
    assert make_s2t() == 0
    tasks = read_table("s2t/train/utt2task")
    assert "u2_asr" in tasks
    assert "u2_st_eng" not in tasks


def test_stage_4_takes_a_test_set_with_few_translations(raw: Path) -> None:
    edit(raw / "test" / "text.st_eng", "t2", None)
    assert make_s2t() == 0
    assert list(read_table("s2t/test/text.st_eng")) == ["t0", "t1", "t3"]
    assert list(read_table("s2t/test/text")) == TEST_UTTS


@pytest.mark.parametrize("name", ["train", "test"])
def test_stage_4_notes_a_translation_of_no_utterance(raw: Path, name: str) -> None:
    with (raw / name / "text.st_eng").open("a", encoding="utf-8") as file:
        file.write("u9 hello\n")
    assert make_s2t() == 0
    reason = f"it is not in raw/{name}/wav.scp: no audio"
    assert read_faults(f"s2t/{name}") == [Fault("u9", f"raw/{name}/text.st_eng", reason)]


def test_stage_4_leaves_out_the_second_example_of_one_name(raw: Path) -> None:
    """'u' with task 'a_b' and 'u_a' with task 'b' would both be 'u_a_b'."""
    folder = raw / "train"
    for table in ("wav.scp", "text", "utt2lang", "utt2bw", "utt2num_samples"):
        rows = read_table(folder / table)
        write_table(folder / table, {**rows, "u1_st": rows["u1"]})
    write_table(folder / "text.eng", {"u1_st": "hello"})
    assert make_s2t() == 0
    (fault,) = read_faults("s2t/train")
    assert (fault.utt, fault.file) == ("u1_st", "raw/train/text.eng")
    assert "task 'eng' give the example id 'u1_st_eng', as another pair does" in fault.reason


def test_inputs_of_training_and_further_references_are_no_tasks(raw: Path) -> None:
    for name in ("text.prev", "text.ctc", "text.st_eng.ref2"):
        (raw / "test" / name).write_text("u0 x\n", encoding="utf-8")
    assert list(make_examples.find_tasks(raw / "test")) == ["asr", "st_eng"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("max_epoch: 3", "train.yaml: batch_bins is None; it takes samples"),
        ("batch_bins: 16000", "utterance u2_asr: 24000 samples .* do not fit batch_bins 16000"),
    ],
)
def test_stage_6_says_what_is_wrong_with_batch_bins(
    raw: Path, capsys: pytest.CaptureFixture[str], config: str, message: str
) -> None:
    assert make_s2t() == 0
    assert make_plan(config) == 1
    assert re.search(message, capsys.readouterr().err)


def test_stage_6_names_a_missing_bandwidth(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_s2t() == 0
    edit(Path("s2t/train/utt2bw"), "u1_asr", None)
    assert make_plan() == 1
    error = capsys.readouterr().err
    assert "s2t/train/utt2bw has no line for utterance 'u1_asr'" in error


def test_stage_6_balances_training_only_and_is_repeatable(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(raw / "train" / "text.st_eng", "u1", None)
    edit(raw / "train" / "text.st_eng", "u3", None)  # the narrowband ones
    assert make_s2t() == 0
    for _ in range(2):
        assert make_plan(CONFIG, "--route_temperature", "inf") == 0
        counts = Counter(u for b in read_plan(Path("s2t/train") / PLAN_NAME) for u in b.utts)
        assert counts == dict.fromkeys(read_table("s2t/train/text"), 1)
    edit(raw / "train" / "text.st_eng", "u2", None)
    assert make_s2t() == 0
    assert make_plan(CONFIG, "--route_temperature", "inf") == 0
    counts = Counter(u for b in read_plan(Path("s2t/train") / PLAN_NAME) for u in b.utts)
    assert counts == {"u0_asr": 1, "u1_asr": 1, "u2_asr": 1, "u3_asr": 1, "u0_st_eng": 2}
    out = capsys.readouterr().out
    assert re.search(r"st_eng │ wb +│ +1 │ +2.00 x │ 33.3% │", out), out
    valid = Counter(u for b in read_plan(Path("s2t/valid") / PLAN_NAME) for u in b.utts)
    assert set(valid.values()) == {1}


def test_stage_6_announces_the_shares_after_narrowing_on_the_fly(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_s2t() == 0
    config = CONFIG + "\npreprocessor_conf: {narrowband_prob: 0.4}"
    assert make_plan(config) == 0
    train, _, valid = capsys.readouterr().out.rpartition("s2t/valid")
    assert "Shares after narrowing: 40% of the wideband examples" in train
    for task in ("asr", "st_eng"):
        assert re.search(rf"{task} +│ nb +│ +2 │ 35.0% │", train), train
        assert re.search(rf"{task} +│ wb +│ +2 │ 15.0% │", train), train
        assert re.search(rf"{task} +│ nb +│ +2 │ 25.0% │", valid), valid
    assert "narrowing" not in valid


def test_stage_6_marks_routes_that_starve(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for utt in UTTS:
        edit(raw / "train" / "utt2bw", utt, "wb")
    assert make_s2t() == 0
    experts = "{asr: ['<asr>'], st: ['<st_*>'], sum: ['<sum>']}"
    config = f"{CONFIG}\nencoder_conf: {{experts: [wb, nb]}}\ndecoder_conf: {{experts: {experts}}}"
    assert make_plan(config, "--route_floor", "0.6") == 0
    out, error = capsys.readouterr()
    assert re.search(r"asr +│ wb +│ +4 │ 50.0% │ below 60.0% │", out), out
    for route in ("asr nb", "st_eng nb", "sum nb", "sum wb"):
        assert f"warning: route {route} has 0.00% of the training examples" in error
    assert error.count("take the expert out") == 4
    assert error.count("--route_temperature raises it") == 2
    assert make_plan(f"{CONFIG}\ndecoder_conf: {{experts: {{spa: ['<spa>']}}}}") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0.5", "hot", "nan"])
def test_stage_6_wants_a_temperature(
    raw: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    with pytest.raises(SystemExit):
        make_plan(CONFIG, "--route_temperature", value)
    assert f"--route_temperature: '{value}'; accepted: 1 to inf" in capsys.readouterr().err


def broken_audio(path: Path) -> None:
    path.write_bytes(b"no audio")


def other_rate(path: Path) -> None:
    soundfile.write(path, np.zeros(SAMPLES), 8000)


@pytest.mark.parametrize(
    ("table", "utt", "value", "message"),
    [
        ("train/utt2bw", "u1_asr", None, "u1_asr: s2t/train/utt2bw: has no line for it, but wav.s"),
        ("train/utt2bw", "u1_asr", "x", "u1_asr: s2t/train/utt2bw: 'x'; accepted: wb, nb"),
        ("train/text", "u1_asr", "hola", "u1_asr: s2t/train/text: 'hola' is not '<language>"),
        ("train/text", "u1_asr", "<spa><asr> ", "utterance u1_asr: s2t/train/text: '<spa><asr>'"),
        ("train/text", "u1_asr", "<deu><asr> a", "u1_asr: s2t/train/text: <deu> is not in the tok"),
        ("train/bandwidth", "u1_asr", "", "u1_asr: s2t/train/bandwidth: line 3 has an empty value"),
        ("train/wav.scp", "u1_asr", "gone.flac", "utterance u1_asr: gone.flac: unreadable"),
        ("train/utt2num_samples", "u1_asr", "7", "u1.flac: 16000 Hz, .* 16000 samples; expected"),
        ("test/utt2lang", "t1", "deu", "t1: s2t/test/utt2lang: <deu> is not in the token list"),
        ("test/text", "t1", None, "t1: s2t/test/text: has no line for it, but wav.scp has"),
        ("test/text.st_eng", "t1", "a <asr> b", "t1: s2t/test/text.st_eng: .* symbol '<asr>'"),
        ("test/text.st_eng", "t1", "a \u0378", "t1: s2t/test/text.st_eng: U.0378"),
        ("train/text", "u1_asr", "<spa><asr> a <asr>", "u1_asr: s2t/train/text: .*symbol '<asr>'"),
        ("train/text", "u1_st_eng", "<spa><st_eng> hola u1", "is the transcript itself"),
        ("test/text.st_eng", "t1", "hola t1", "t1: s2t/test/text.st_eng: .* transcript itself"),
    ],
)
def test_stage_7_names_the_utterance_and_the_file(
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    utt: str,
    value: str | None,
    message: str,
) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    edit(Path("s2t") / table, utt, value)
    assert check() == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "check_data.py: 1 problem(s)" in error


def test_stage_7_names_audio_that_changed_since_stage_3(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_s2t() == 0
    assert make_plan() == 0
    broken_audio(raw / "train/audio/u0.flac")
    other_rate(raw / "test/audio/t3.flac")
    assert check() == 1
    error = capsys.readouterr().err
    assert "utterance u0_asr: raw/train/audio/u0.flac: unreadable" in error
    assert "utterance t3: raw/test/audio/t3.flac: 8000 Hz" in error
    assert "check_data.py: 2 problem(s)" in error


def test_stage_7_wants_the_plan_and_a_token_per_task(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(raw / "test" / "text.st_deu", dict.fromkeys(TEST_UTTS, "guten tag"))
    assert make_s2t() == 0
    assert check() == 1
    error = capsys.readouterr().err
    assert "s2t/train/batch_plan.jsonl: no batch plan" in error
    assert "rerun stage 6" in error
    assert "s2t/test/text.st_deu: <st_deu> is not in the token list" in error
