"""Training sets with wrong and missing labels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_texts import load_stage
from tiny import ID, TOKENS, smoe_decoder, training_config

from espnet_smoe.batching import PLAN_NAME, Batch, read_plan, write_plan
from espnet_smoe.datadir import DataError, read_table, write_table

label_noise = load_stage("label_noise")
corrupt_examples = label_noise.corrupt_examples

UTTS = 40
TASKS = {"asr": "hola", "st_eng": "hello", "st_fra": "salut"}


def make_source(directory: Path, tasks: tuple[str, ...] = ("asr", "st_eng")) -> Path:
    """A training set of stage 4, of which every second recording is narrowband."""
    rows = {f"u{i:02}_{task}": (i, task) for i in range(UTTS) for task in tasks}
    directory.mkdir(parents=True)
    tables = {
        "text": {e: f"<spa><{t}><notimestamps> {TASKS[t]} {i}" for e, (i, t) in rows.items()},
        "text.ctc": {e: f"hola {i}" for e, (i, _) in rows.items()},
        "bandwidth": {e: i % 2 for e, (i, _) in rows.items()},
        "utt2bw": {e: ("wb", "nb")[i % 2] for e, (i, _) in rows.items()},
        "utt2task": {e: t for e, (_, t) in rows.items()},
        "utt2num_samples": dict.fromkeys(rows, 16000),
        "wav.scp": {e: f"audio/{i}.flac" for e, (i, _) in rows.items()},
    }
    for name, table in tables.items():
        write_table(directory / name, table)
    write_plan(directory / PLAN_NAME, [Batch("asr", 16000, tuple(sorted(rows)))])
    return directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "train")


def differing(source: Path, out: Path, name: str) -> set[str]:
    before, after = read_table(source / name), read_table(out / name)
    assert before.keys() == after.keys()
    return {example for example, value in before.items() if after[example] != value}


def test_wrong_bandwidths_are_the_other_ones_for_all_tasks_of_a_recording(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "noisy"
    found = corrupt_examples(source, out, seed=1, bandwidth_wrong=0.25)
    changed = differing(source, out, "bandwidth")
    recordings = {example.rpartition("_")[0][:3] for example in changed}
    assert len(recordings) == found["bandwidth_wrong"] == 10
    assert changed == {e for e in read_table(source / "text") if e[:3] in recordings}
    for example in changed:
        before, after = (read_table(d / "bandwidth")[example] for d in (source, out))
        assert {before, after} == {"0", "1"}
    assert found["bandwidth_changed"] == 20 and found["text_changed"] == 0
    assert read_table(out / "label_noise") == dict.fromkeys(sorted(changed), "bandwidth=wrong")


def test_a_missing_bandwidth_is_the_fallback_and_so_changes_narrowband_only(
    source: Path, tmp_path: Path
) -> None:
    found = corrupt_examples(source, tmp_path / "out", seed=1, bandwidth_missing=1.0)
    assert set(read_table(tmp_path / "out" / "bandwidth").values()) == {"0"}
    assert (found["bandwidth_missing"], found["bandwidth_changed"]) == (UTTS, UTTS)


def test_task_tokens_are_changed_or_left_out_before_an_unchanged_text(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = corrupt_examples(source, out, seed=2, task_wrong=0.1, task_missing=0.2)
    assert (found["task_wrong"], found["task_missing"], found["text_changed"]) == (8, 16, 24)
    texts, tasks = read_table(out / "text"), read_table(out / "utt2task")
    for example, note in read_table(out / "label_noise").items():
        other = {"asr": "<st_eng>", "st_eng": "<asr>"}[tasks[example]]
        token = {"task=wrong": other, "task=missing": ""}[note]
        old = read_table(source / "text")[example]
        assert texts[example] == old.replace(f"<{tasks[example]}>", token)
    assert differing(source, out, "bandwidth") == set()


def test_a_wrong_task_is_any_other_one_of_the_set(tmp_path: Path) -> None:
    source = make_source(tmp_path / "train", tuple(TASKS))
    corrupt_examples(source, tmp_path / "out", seed=3, task_wrong=1.0)
    tasks = read_table(source / "utt2task")
    pairs = {
        (tasks[e], text.split(">")[1][1:]) for e, text in read_table(tmp_path / "out/text").items()
    }
    assert pairs == {(a, b) for a in TASKS for b in TASKS if a != b}


@settings(max_examples=15, deadline=None)
@given(
    first=st.floats(0, 0.5), more=st.floats(0, 0.5), seed=st.integers(0, 5),
    kind=st.sampled_from(label_noise.SHARES),
)  # fmt: skip
def test_shares_are_exact_and_a_larger_one_holds_the_smaller(
    tmp_path_factory: pytest.TempPathFactory, first: float, more: float, seed: int, kind: str
) -> None:
    directory = tmp_path_factory.mktemp("labels")
    source = make_source(directory / "train")
    noted = []
    for number, share in enumerate((first, first + more)):
        out = directory / str(number)
        found = corrupt_examples(source, out, seed=seed, **{kind: share})
        whole = UTTS if kind.startswith("bandwidth") else 2 * UTTS
        assert found[kind] == round(share * whole)
        noted.append(set(read_table(out / "label_noise")))
    assert noted[0] <= noted[1]


def test_the_same_seed_gives_the_same_set_and_another_one_another(
    source: Path, tmp_path: Path
) -> None:
    shares = {"bandwidth_wrong": 0.2, "task_wrong": 0.2}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        corrupt_examples(source, tmp_path / name, seed=seed, **shares)
    for table in ("text", "bandwidth"):
        a, b, c = ((tmp_path / name / table).read_text(encoding="utf-8") for name in "abc")
        assert a == b != c


def test_what_is_not_a_label_stays_and_outlives_the_source(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corrupt_examples(source, out, seed=1, bandwidth_wrong=0.5, task_wrong=0.5)
    for name in ("wav.scp", "utt2bw", "utt2task", "text.ctc", "utt2num_samples"):
        assert os.path.samefile(source / name, out / name)
    plan = read_plan(source / PLAN_NAME)
    assert not os.path.samefile(source / PLAN_NAME, out / PLAN_NAME)
    table = read_table(source / "wav.scp")
    for path in source.iterdir():
        path.unlink()
    assert read_table(out / "wav.scp") == table and read_plan(out / PLAN_NAME) == plan


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"bandwidth_wrong": 0.6, "bandwidth_missing": 0.5}, "bandwidth_missing 0.5; accepted"),
        ({"task_wrong": -0.1}, "task_wrong -0.1, task_missing 0.0; accepted: 0 to 1"),
    ],
)
def test_shares_that_are_none_are_an_error(
    source: Path, tmp_path: Path, shares: dict[str, float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        corrupt_examples(source, tmp_path / "out", seed=1, **shares)


def test_a_set_that_cannot_be_corrupted_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is the source itself"):
        corrupt_examples(source, source, seed=1)
    one_task = make_source(tmp_path / "one", ("asr",))
    with pytest.raises(DataError, match="its only task is asr"):
        corrupt_examples(one_task, tmp_path / "out", seed=1, task_wrong=0.1)
    write_table(source / "text", {**read_table(source / "text"), "u00_asr": "<spa> hola"})
    with pytest.raises(DataError, match="text: 'u00_asr' has '<spa> hola'; accepted: a text that"):
        corrupt_examples(source, tmp_path / "out", seed=1, task_missing=1.0)
    assert not (tmp_path / "out").exists()


def test_a_prompt_without_its_task_trains_the_default_expert() -> None:
    from espnet2.tasks.s2t import S2TTask

    import espnet_smoe  # noqa: F401

    args = S2TTask.get_parser().parse_args([])
    config = training_config()
    config["preprocessor_conf"]["time_apply_prob"] = 0.0
    for name, value in config.items():
        setattr(args, name, value)
    preprocess = S2TTask.build_preprocess_fn(args, True)
    data = {"speech": np.zeros(8000, np.float32), "text": "_ <spa> <notimestamps> hola casa"}
    ids = preprocess("u", data)["text"]
    assert [TOKENS[i] for i in ids] == ["<spa>", "<notimestamps>", "hola", "casa"]
    prompt = torch.tensor([[ID["<sos>"], *ids.tolist()]])
    assert smoe_decoder(default_expert="st").route_of(prompt) == ("st",)


def test_the_program_says_what_it_did(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--source", str(source), "--out", str(tmp_path / "out"), "--seed", "1"]
    assert label_noise.main([*command, "--task_missing", "0.5"]) == 0
    assert "task_missing 40" in capsys.readouterr().out
    assert label_noise.main([*command, "--task_missing", "2"]) == 1
    assert "label_noise.py: task_wrong 0.0, task_missing 2.0; accepted" in capsys.readouterr().err
