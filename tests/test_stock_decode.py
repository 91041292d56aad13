"""Stage 12 with ESPnet's own program: jobs over stretches of the test sets."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from stage_data import TEST_UTTS, edit, make_raw, make_s2t

from espnet_smoe.datadir import DataError, read_table

import decode_dir  # isort: skip  (stage_data puts the recipe's local/ on the path)
import jobs  # isort: skip
import stock_decode  # isort: skip
from jobs import Job  # isort: skip


@pytest.fixture
def decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """The options of stage 12 in a working directory of its own, with something for a model."""
    monkeypatch.chdir(tmp_path)
    make_raw(tmp_path)
    assert make_s2t() == 0
    Path("model").mkdir()
    for name in ("model/m.pth", "model/config.yaml", "decode.yaml"):
        Path(name).write_text(f"ctc_weight: 0.3  # {name}\n", encoding="utf-8")
    return argparse.Namespace(
        **{"out": Path("out"), "examples": Path("s2t"), "s2t_dir": Path("model"), "model": "m.pth"},
        **{"config": Path("decode.yaml"), "route_override": "", "python": "python3", "ngpu": 0},
        **{"sets": "test", "tasks": "", "nj": 1, "audio_type": "sound"},
    )


def test_every_utterance_and_task_is_decoded_once(decoding: argparse.Namespace) -> None:
    for nj, parts in ((1, 1), (2, 1), (3, 2), (40, 4)):
        stretches = stock_decode.plan(decoding.examples, ["test"], [], nj)
        assert len(stretches) == 2 * parts
        for task in ("asr", "st_eng"):
            assert [u for s in stretches if s.task == task for u in s.utts] == TEST_UTTS
        assert len({s.name for s in stretches}) == len(stretches)
    edit(Path("s2t/test/utt2lang"), "t1", "eus")
    languages = {
        s.language: list(s.utts) for s in stock_decode.plan(decoding.examples, ["test"], [], 1)
    }
    assert languages == {"spa": ["t0", "t2", "t3"], "eus": ["t1"]}
    assert {s.task for s in stock_decode.plan(decoding.examples, ["test"], ["st_eng"], 1)} == {
        "st_eng"
    }


def test_the_fingerprint_covers_model_options_route_and_program(
    decoding: argparse.Namespace,
) -> None:
    first = decode_dir.fingerprint(decoding, [], "a")
    assert decode_dir.fingerprint(decoding, [], "a") == first
    seen = {first, decode_dir.fingerprint(decoding, ["--beam_size", "2"], "a")}
    seen.add(decode_dir.fingerprint(decoding, [], "b"))
    decoding.route_override = "nb"
    seen.add(decode_dir.fingerprint(decoding, [], "a"))
    for name in ("model/m.pth", "model/config.yaml", "decode.yaml"):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write("# more\n")
        seen.add(decode_dir.fingerprint(decoding, [], "a"))
    assert len(seen) == 7


def test_ctc_scores_transcripts_only(decoding: argparse.Namespace) -> None:
    assert "--ctc_weight" not in stock_decode.inference_options(decoding, "asr")
    assert stock_decode.inference_options(decoding, "st_eng")[-2:] == ["--ctc_weight", "0.0"]
    decoding.config.write_text("ctc_weight: 0.0\n", encoding="utf-8")
    assert "--ctc_weight" not in stock_decode.inference_options(decoding, "st_eng")


def test_a_model_trained_without_ctc_is_decoded_without(decoding: argparse.Namespace) -> None:
    (decoding.s2t_dir / "config.yaml").write_text("model_conf: {ctc_weight: 0.0}", encoding="utf-8")
    assert stock_decode.inference_options(decoding, "asr")[-2:] == ["--ctc_weight", "0.0"]


@pytest.mark.parametrize(("ngpu", "used"), [(0, "0"), (1, "1"), (4, "1")])
def test_a_job_decodes_on_one_gpu_at_most(
    decoding: argparse.Namespace, ngpu: int, used: str
) -> None:
    decoding.ngpu = ngpu
    (stretch,) = stock_decode.plan(decoding.examples, ["test"], ["asr"], 1)
    job = stock_decode.make_job(decoding, [], stretch, Path("partial"), Path("final"))
    assert job.command[job.command.index("--ngpu") + 1] == used


FAKE_DECODER = """
import os, sys
from pathlib import Path
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = Path(options["--output_dir"]) / "1best_recog"
out.mkdir(parents=True)
keys = [line.split()[0] for line in open(options["--key_file"])]
routes = open(os.environ["ESPNET_SMOE_ROUTE_LOG"], "a")
with open(out / "token", "w") as token, open(out / "score", "w") as score:
    for key in keys[: int(os.environ.get("STOP_AFTER", "99"))]:
        token.write(f"{key} <spa> <{options['--task_sym']}> <notimestamps> a\\n" * (key != "t1"))
        token.write(f"{key} \\n" * (key == "t1"))
        score.write(f"{key} tensor(-1.5, device='cuda:0')\\n")
        print("nb", file=routes)
"""


@pytest.fixture
def fake(decoding: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Stage 12 with a program in place of ESPnet's; it hears 'a' everywhere, nothing in t1."""
    Path("fake.py").write_text(FAKE_DECODER, encoding="utf-8")
    job = stock_decode.make_job

    decoding.started = []

    def make_job(*arguments: Any) -> Job:
        made = job(*arguments)
        decoding.started.append(arguments[2].name)
        rest = list(made.command)[list(made.command).index("--output_dir") :]
        return Job([sys.executable, "fake.py", *rest], made.log, made.environment, made.finish)

    monkeypatch.setattr(stock_decode, "make_job", make_job)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    return decoding


def test_results_are_gathered_per_set_and_task(fake: argparse.Namespace) -> None:
    fake.nj = 4
    stock_decode.decode(fake, [])
    for task in ("asr", "st_eng"):
        folder = Path("out/test") / task
        text = read_table(folder / "text", allow_empty=True)
        assert text == {**dict.fromkeys(TEST_UTTS, "a"), "t1": ""}
        assert read_table(folder / "score") == dict.fromkeys(TEST_UTTS, "-1.5")
        assert read_table(folder / "utt2route") == dict.fromkeys(TEST_UTTS, "nb")


def test_a_rerun_decodes_only_what_is_missing_or_changed(fake: argparse.Namespace) -> None:
    def decoded_again() -> set[str]:
        fake.started.clear()
        stock_decode.decode(fake, [])
        return set(fake.started)

    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}
    assert decoded_again() == set()
    Path("out/jobs/test.asr.spa.0").rename("out/jobs/test.asr.spa.0.partial")  # killed
    assert decoded_again() == {"test.asr.spa.0"}
    soundfile.write("raw/test/audio/t2.flac", np.zeros(77), 16000)  # stages 2 to 4 again
    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}
    Path("model/m.pth").write_text("another model", encoding="utf-8")
    assert decoded_again() == {"test.asr.spa.0", "test.st_eng.spa.0"}


def test_an_incomplete_decode_is_not_kept(
    fake: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP_AFTER", "3")
    with pytest.raises(DataError, match="3 of 4 utterances decoded"):
        stock_decode.decode(fake, [])
    assert not Path("out/test").exists()
    monkeypatch.delenv("STOP_AFTER")
    stock_decode.decode(fake, [])
    assert len(read_table("out/test/asr/text", allow_empty=True)) == 4
