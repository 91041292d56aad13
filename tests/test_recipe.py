"""The recipe end to end: stages 1 to 14 run once, on a corpus and with a model of tiny size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from recipe_copy import call, copy_recipe, environment, run, scores_of, tolerance

from espnet_smoe.audio import read_header
from espnet_smoe.batching import read_plan
from espnet_smoe.bbpe import token_list
from espnet_smoe.datadir import read_table

TRAIN, VALID, TEST = 60, 8, 6  # utterances
EPOCHS = 6
SIZES = {"train": TRAIN, "valid": VALID, "test_wb": TEST, "test_nb": TEST}
OPTIONS = [
    *("--mini_size", str(TRAIN), "--corpus_args", f"--valid_size {VALID} --test_size {TEST}"),
    *("--nj", "1", "--train_threads", "1", "--decode_threads", "1", "--nbpe", "330"),
    *("--s2t_config", "conf/train_tiny.yaml", "--inference_args", "--beam_size 2"),
]
TASKS = ("asr", "st_eng")
TOKENS = Path("data/mini/token_list_bpe330")
MODEL = Path("exp/mini/s2t_train_tiny")
DECODED = MODEL / "decode_valid.acc.ave"
ARCHIVE = MODEL / "s2t_valid.acc.ave.zip"
FIELDS = "test_set task bandwidth metric value ci95 n_utts n_ref_words model commit"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recipe in which stages 1 to 14 have run; their output is in ``log``."""
    directory = copy_recipe(tmp_path_factory.mktemp("egs2") / "smoe" / "s2t1")
    done = run(directory, "--stage", "1", "--stop_stage", "14", *OPTIONS)
    assert done.returncode == 0, done.stdout[-4000:]
    (directory / "log").write_text(done.stdout, encoding="utf-8")
    return directory


@pytest.fixture(autouse=True)
def in_the_recipe(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tables name files relative to the recipe directory."""
    monkeypatch.chdir(recipe)
    yield


def test_every_stage_says_what_it_does() -> None:
    log = Path("log").read_text(encoding="utf-8")
    assert re.findall(r"^\d\d:\d\d:\d\d Stage (\d+): ", log, re.M) == [str(n) for n in range(1, 15)]


def test_stage_1_writes_the_tables_of_each_split() -> None:
    for name, size in {"train": TRAIN, "valid": VALID, "test": TEST}.items():
        wavs = read_table(f"data/mini/{name}/wav.scp")
        assert len(wavs) == size
        for table in ("text", "text.st_eng", "utt2lang", "utt2spk"):
            assert read_table(f"data/mini/{name}/{table}").keys() == wavs.keys()


def test_stage_2_narrows_half_of_training_and_makes_test_twins() -> None:
    for name, size in SIZES.items():
        labels = list(read_table(f"dump/mini/tagged/{name}/utt2bw").values())
        narrow = {"test_wb": 0, "test_nb": size}.get(name, size // 2)
        assert labels.count("nb") == narrow
        assert labels.count("wb") == size - narrow
    twins = [read_table(f"dump/mini/tagged/test_{bw}/text") for bw in ("wb", "nb")]
    assert twins[0] == twins[1]


def test_stage_3_writes_16_khz_mono() -> None:
    for name in SIZES:
        samples = read_table(f"dump/mini/raw/{name}/utt2num_samples")
        for utt, path in read_table(f"dump/mini/raw/{name}/wav.scp").items():
            header = read_header(path)
            assert (header.rate, header.channels, header.format) == (16000, 1, "FLAC")
            assert header.frames == int(samples[utt])


def test_stage_4_writes_an_example_per_utterance_and_task() -> None:
    for name, size in (("train", TRAIN), ("valid", VALID)):
        raw, out = Path("dump/mini/raw") / name, Path("dump/mini/s2t") / name
        utts = read_table(raw / "wav.scp")
        text = read_table(out / "text")
        assert list(text) == sorted(f"{utt}_{task}" for utt in utts for task in TASKS)
        assert len(text) == 2 * size
        words = {"asr": read_table(raw / "text"), "st_eng": read_table(raw / "text.st_eng")}
        bandwidth = read_table(raw / "utt2bw")
        tables = {
            table: read_table(out / table)
            for table in ("wav.scp", "text.prev", "text.ctc", "bandwidth", "utt2bw", "utt2task")
        }
        for utt in utts:
            for task in TASKS:
                example = f"{utt}_{task}"
                assert text[example] == f"<spa><{task}><notimestamps> {words[task][utt]}"
                assert tables["text.ctc"][example] == words["asr"][utt]
                assert tables["text.prev"][example] == "<na>"
                assert tables["utt2bw"][example] == bandwidth[utt]
                assert tables["bandwidth"][example] == {"wb": "0", "nb": "1"}[bandwidth[utt]]
                assert tables["utt2task"][example] == task
    for name in ("test_wb", "test_nb"):
        for table in ("text", "text.st_eng"):
            plain = read_table(f"dump/mini/raw/{name}/{table}")
            assert read_table(f"dump/mini/s2t/{name}/{table}") == plain


def test_stage_5_writes_a_model_and_its_token_list() -> None:
    tokens = (TOKENS / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert tokens == token_list(TOKENS / "bpe.model")
    assert len(tokens) == 330
    assert {"<spa>", "<asr>", "<st_eng>", "<notimestamps>", "<na>", "<sop>"} <= set(tokens)
    assert (tokens[0], tokens[1], *tokens[-2:]) == ("<blank>", "<unk>", "<sos>", "<eos>")


@pytest.mark.parametrize("name", ["train", "valid"])
def test_stage_6_plans_every_example_once_in_batches_of_one_task(name: str) -> None:
    directory = Path("dump/mini/s2t") / name
    batches = read_plan(directory / "batch_plan.jsonl")
    tasks = read_table(directory / "utt2task")
    assert sorted(utt for batch in batches for utt in batch.utts) == list(tasks)
    for batch in batches:
        assert {tasks[utt] for utt in batch.utts} == {batch.task}
        assert batch.samples <= 320000
    if name == "train":
        labels = read_table(directory / "utt2bw")
        mixed = [len({labels[utt] for utt in batch.utts}) == 2 for batch in batches]
        assert sum(mixed) > len(mixed) / 2  # of six examples, all may have one bandwidth
        log = Path("log").read_text(encoding="utf-8")
        assert len(re.findall(r"│ (?:asr|st_eng) +│ (?:nb|wb) +│ +30 │ 25.0% │", log)) == 4


def test_stages_7_to_9_report() -> None:
    log = Path("log").read_text(encoding="utf-8")
    assert "check_data.py: train valid test_wb test_nb: no problem found" in log
    assert "check_config.py: forward and backward on 8 examples: loss" in log
    for route in ("wb/asr", "wb/st", "nb/asr", "nb/st"):
        assert f"active on {route} " in log


def test_stage_10_counts_every_training_frame() -> None:
    stats = np.load("exp/mini/stats_train_tiny/train/feats_stats.npz")
    samples = read_table("dump/mini/s2t/train/utt2num_samples").values()
    assert stats["sum"].shape == (20,)
    assert int(stats["count"]) == sum(int(n) // 160 + 1 for n in samples)
    shapes = read_table("exp/mini/stats_train_tiny/train/speech_shape")
    assert shapes.keys() == read_table("dump/mini/s2t/train/wav.scp").keys()


def test_stage_11_trains_every_epoch_and_logs_every_route() -> None:
    log = (MODEL / "train.log").read_text(encoding="utf-8")
    lines = re.findall(r"(\d+)epoch results: (.*)", log)
    assert [int(n) for n, _ in lines] == list(range(1, EPOCHS + 1))
    for _, line in lines:
        for figure in ("acc", "loss_att"):
            for route in ("asr_wb", "asr_nb", "st_wb", "st_nb"):
                assert f"{figure}_{route}=" in line
    assert (MODEL / "valid.acc.ave.pth").resolve().name == "valid.acc.ave_2best.pth"
    config = yaml.safe_load((MODEL / "config.yaml").read_text(encoding="utf-8"))
    assert config["normalize"] == "global_mvn"
    assert config["model"] == config["preprocessor"] == "smoe"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bandwidth", ["wb", "nb"])
def test_stage_12_decodes_every_utterance_on_its_route(bandwidth: str, task: str) -> None:
    directory = DECODED / f"test_{bandwidth}" / task
    utts = list(read_table(f"dump/mini/s2t/test_{bandwidth}/wav.scp"))
    assert read_table(directory / "utt2route") == dict.fromkeys(utts, bandwidth)
    text = read_table(directory / "text", allow_empty=True)
    assert list(text) == utts
    assert not any("<" in words or "▁" in words for words in text.values())
    scores = read_table(directory / "score")
    assert list(scores) == utts
    assert all(float(score) < 0 for score in scores.values())


def test_espnets_program_decodes_the_same_and_is_scored_the_same(recipe: Path) -> None:
    """With CTC on transcripts only, as the config's comment says."""
    assert yaml.safe_load(Path("conf/decode.yaml").read_text(encoding="utf-8"))["ctc_weight"] > 0.0
    stock = DECODED.with_name(f"{DECODED.name}_stock")
    options = (*OPTIONS, "--nj", "2", "--stock_decode", "true")
    done = run(recipe, "--stage", "12", "--stop_stage", "13", *options)
    assert done.returncode == 0, done.stdout[-4000:]
    for bandwidth in ("wb", "nb"):
        for task in TASKS:
            ours, theirs = (top / f"test_{bandwidth}" / task for top in (DECODED, stock))
            for table in ("text", "utt2route"):
                assert (ours / table).read_bytes() == (theirs / table).read_bytes()
            for utt, path in read_table(f"dump/mini/s2t/test_{bandwidth}/wav.scp").items():
                expected = pytest.approx(scores_of(theirs)[utt], abs=tolerance(path))
                assert scores_of(ours)[utt] == expected
            log = stock / "jobs" / f"test_{bandwidth}.{task}.spa.0" / "log"
            command = log.read_text(encoding="utf-8").splitlines()[0]
            assert "--config conf/decode.yaml" in command
            assert ("--ctc_weight 0.0" in command) == (task != "asr")
    found, expected = (
        json.loads((top / "results.json").read_text(encoding="utf-8")) for top in (stock, DECODED)
    )
    assert found == expected


def test_the_command_line_transcribes_as_stage_12(recipe: Path) -> None:
    """In a fresh process, whose stdout holds nothing but the texts."""
    folder = Path("dump/mini/raw/test_nb/audio")
    command = [sys.executable, "-m", "espnet_smoe.cli", "transcribe", str(folder), "gone.wav"]
    command += ["--model", str(MODEL), "--beam_size", "2", "--ctc_weight", "0.3"]
    done = subprocess.run(
        [*command, "--task", "asr", "--task", "st_eng"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    texts = {t: read_table(DECODED / "test_nb" / t / "text", allow_empty=True) for t in TASKS}
    assert [tuple(line.split("\t")) for line in done.stdout.splitlines()] == [
        (str(folder / f"{utt}.flac"), task, texts[task][utt])
        for utt in texts["asr"]
        for task in TASKS
    ], done.stderr
    assert done.returncode == 1
    error = "audio file 'gone.wav' does not exist\n"
    assert done.stderr.endswith(f"1 of {TEST + 1} recordings could not be transcribed:\n  {error}")
    assert "x real time" in done.stderr


def test_stage_13_writes_results_with_the_designed_fields() -> None:
    results = json.loads((DECODED / "results.json").read_text(encoding="utf-8"))
    assert all(list(row) == FIELDS.split() for row in results)
    found = {(row["task"], row["bandwidth"], row["metric"]) for row in results}
    metrics = {"asr": ("wer", "cer"), "st_eng": ("bleu", "chrf")}
    bands = ("wb", "nb", "all")
    assert found == {
        (task, bw, metric) for task in TASKS for bw in bands for metric in metrics[task]
    }
    for row in results:
        assert row["test_set"] == "test"
        assert row["model"] == str(MODEL)
        assert row["n_utts"] == (2 * TEST if row["bandwidth"] == "all" else TEST)
        low, high = row["ci95"]
        assert low <= row["value"] <= high


def test_stage_13_writes_the_table_and_the_pictures() -> None:
    text = (DECODED / "RESULTS.md").read_text(encoding="utf-8")
    assert (
        len(re.findall(r"^\| test \| (?:asr|st_eng) \| (?:wb|nb|all) \|.* 0 \|$", text, re.M)) == 6
    )
    assert "./run.sh --stage 1 --stop_stage 14 --mini_size 60" in text
    log = Path("log").read_text(encoding="utf-8")
    assert "route mismatches" in log
    assert f"The model: {Path.cwd() / MODEL / 'valid.acc.ave.pth'}" in log
    for name in ("score_matrix.png", "training_curves.png"):
        assert (DECODED / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text


def test_stage_14_packs_all_that_a_model_needs_under_relative_names() -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = set(archive.namelist())
        assert not any(Path(name).is_absolute() or ".." in name for name in names)
        meta = yaml.safe_load(archive.read("meta.yaml"))
        config = yaml.safe_load(archive.read(meta["yaml_files"]["s2t_train_config"]))
    assert meta["files"]["s2t_model_file"] in names
    assert {config["bpemodel"], config["normalize_conf"]["stats_file"]} <= names
    assert {str(TOKENS / "bpe.model"), str(DECODED / "RESULTS.md")} <= names
    assert len(config["token_list"]) == 330
    assert str(Path.cwd()) not in yaml.safe_dump([config, meta])


@pytest.fixture(scope="module")
def answers(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple]:
    """What the packed model, unpacked elsewhere, answers in a fresh process."""
    requests = []
    for bandwidth in ("wb", "nb"):
        utts = read_table(recipe / f"dump/mini/s2t/test_{bandwidth}/wav.scp")
        requests += [[t, str(recipe / path)] for path in utts.values() for t in TASKS]
    telephone = read_table(recipe / "dump/mini/tagged/test_nb/wav.scp")
    requests += [[t, str(recipe / path)] for path in telephone.values() for t in TASKS]
    elsewhere = tmp_path_factory.mktemp("unpacked")
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("packed_process.py"))),
            *(str(recipe / ARCHIVE), str(elsewhere / "model")),
        ],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = json.loads(done.stdout.splitlines()[-1])
    return {(task, path): tuple(answer) for task, path, *answer in lines}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bandwidth", ["wb", "nb"])
def test_the_packed_model_gives_the_texts_of_stage_12(
    answers: dict, recipe: Path, bandwidth: str, task: str
) -> None:
    texts = read_table(DECODED / f"test_{bandwidth}" / task / "text", allow_empty=True)
    scores = read_table(DECODED / f"test_{bandwidth}" / task / "score")
    for utt, path in read_table(f"dump/mini/s2t/test_{bandwidth}/wav.scp").items():
        text, score, route = answers[task, str(recipe / path)]
        assert (text, route) == (texts[utt], bandwidth)
        assert score == pytest.approx(float(scores[utt]), abs=tolerance(path))


@pytest.mark.parametrize("task", TASKS)
def test_the_packed_model_takes_original_8_khz_audio(
    answers: dict, recipe: Path, task: str
) -> None:
    """Resampled by the user, without stage 3's rounding to 16 bit."""
    texts = read_table(DECODED / "test_nb" / task / "text", allow_empty=True)
    for utt, path in read_table("dump/mini/tagged/test_nb/wav.scp").items():
        assert read_header(path).rate == 8000
        text, _, route = answers[task, str(recipe / path)]
        assert (text, route) == (texts[utt], "nb")


def test_rerunning_12_and_13_decodes_nothing_and_gives_the_same_results(recipe: Path) -> None:
    before = (DECODED / "results.json").read_bytes()
    journal = DECODED / "journal.jsonl"
    changed = journal.stat().st_mtime_ns
    done = run(recipe, "--stage", "12", "--stop_stage", "13", *OPTIONS)
    assert done.returncode == 0, done.stdout
    assert journal.stat().st_mtime_ns == changed
    assert (DECODED / "results.json").read_bytes() == before


def test_without_copies_of_the_audio_training_and_decoding_hear_the_same(recipe: Path) -> None:
    """The same to the last bit, although the telephone copies are at 8 kHz."""
    none = ("--dumpdir", "dump/none", "--expdir", "exp/none", "--audio_format", "none")
    skip = ("--skip_stages", "5 8 9")
    done = run(recipe, "--stage", "2", "--stop_stage", "10", *skip, *OPTIONS, *none)
    assert done.returncode == 0, done.stdout[-4000:]
    assert not list(Path("dump/none/raw").rglob("*.flac"))
    for name in SIZES:
        audio = read_table(f"dump/none/s2t/{name}/wav.scp")
        assert set(audio.values()) <= set(read_table(f"dump/none/tagged/{name}/wav.scp").values())
        table = f"s2t/{name}/utt2num_samples"
        assert read_table(f"dump/none/{table}") == read_table(f"dump/mini/{table}")
    heard, copied = (
        np.load(f"exp/{name}/stats_train_tiny/train/feats_stats.npz") for name in ("none", "mini")
    )
    for figure in ("count", "sum", "sum_square"):
        np.testing.assert_array_equal(heard[figure], copied[figure])
    program = [sys.executable, "local/decode.py", "--out", "exp/none/decoded"]
    program += ["--examples", "dump/none/s2t", "--sets", "test_nb", "--tasks", "asr"]
    program += ["--s2t_dir", str(MODEL), "--model", "valid.acc.ave.pth"]
    program += ["--config", "conf/decode.yaml", "--", "--beam_size", "2"]
    done = call(program, cwd=recipe)
    assert done.returncode == 0, done.stdout[-4000:]
    directories = Path("exp/none/decoded/test_nb/asr"), DECODED / "test_nb" / "asr"
    for table in ("text", "utt2route"):
        assert len({(directory / table).read_bytes() for directory in directories}) == 1
    # in other company, sums are rounded otherwise
    assert scores_of(directories[0]) == pytest.approx(scores_of(directories[1]), abs=1e-3)


def test_stage_7_names_every_problem(recipe: Path) -> None:
    """On a copy of stage 4's output in which four things are wrong."""
    source, broken = Path("dump/mini/s2t"), Path("dump/broken/s2t")
    for name in SIZES:
        (broken / name).mkdir(parents=True)
        for path in (source / name).iterdir():
            (broken / name / path.name).write_bytes(path.read_bytes())
    lost, mute, *_ = read_table(broken / "train/wav.scp")
    deaf, other, *_ = read_table(broken / "test_nb/wav.scp")

    def rewrite(table: str, utt: str, line: str) -> None:
        text = (broken / table).read_text(encoding="utf-8")
        text = re.sub(rf"^{utt} .*\n", line, text, flags=re.M)
        (broken / table).write_text(text, encoding="utf-8")

    rewrite("train/utt2bw", lost, "")
    rewrite("train/text", mute, f"{mute} <spa><asr><notimestamps>\n")
    (broken / "nonsense.flac").write_bytes(b"fLaC, it says")
    rewrite("test_nb/wav.scp", deaf, f"{deaf} {broken}/nonsense.flac\n")
    rewrite("test_nb/utt2lang", other, f"{other} deu\n")
    done = run(recipe, "--stage", "7", "--stop_stage", "13", *OPTIONS, "--dumpdir", "dump/broken")
    assert done.returncode == 1
    assert f"utterance {lost}: {broken}/train/utt2bw: has no line for it, but" in done.stdout
    assert f"utterance {mute}: {broken}/train/text: " in done.stdout
    assert f"utterance {deaf}: {broken}/nonsense.flac: unreadable" in done.stdout
    assert f"utterance {other}: {broken}/test_nb/utt2lang: <deu> is not in" in done.stdout
    assert "check_data.py: 4 problem(s)" in done.stdout
    assert "Stage 8" not in done.stdout
