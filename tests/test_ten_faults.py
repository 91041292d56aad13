"""A manifest with ten different faults: stages 1 to 6 go on, stage 7 lists exactly ten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_copy import copy_recipe, run

COLUMNS = ("id", "speaker", "audio", "offset", "duration", "src_lang", "transcript")
COLUMNS += ("tgt_lang", "translation")
WORDS = [("casa", "house"), ("perro", "dog"), ("blanca", "white"), ("grande", "big")]
GOOD = 12  # sound utterances of training


def noise(path: Path, seed: int, seconds: float = 1.0) -> str:
    """Speech-like noise that comes and goes, at 16 kHz."""
    rng = np.random.default_rng(seed)
    n = int(16000 * seconds)
    envelope = 0.5 - 0.5 * np.cos(2 * np.pi * 5 * np.arange(n) / 16000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * envelope * rng.standard_normal(n), 16000)
    return str(path)


def row(utt: str, audio: str, number: int = 0, **other: str) -> dict[str, str]:
    (one, eins), (two, zwei) = WORDS[number % 4], WORDS[(number + 1) % 4]
    fields = {"id": utt, "speaker": f"s{utt}", "audio": audio, "src_lang": "es"}
    texts = {"transcript": f"la {one} {two}", "tgt_lang": "en", "translation": f"the {eins} {zwei}"}
    return {**dict.fromkeys(COLUMNS, ""), **fields, **texts, **other}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    lines = ["\t".join(COLUMNS), *("\t".join(r[c] for c in COLUMNS) for r in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.tsv with ten faults; valid.tsv and test.tsv without."""
    root = tmp_path_factory.mktemp("manifest")
    audio = root / "audio"

    def make(utt: str, seed: int) -> str:
        return noise(audio / f"{utt}.wav", seed)

    train = [row(f"good{n:02d}", make(f"good{n:02d}", n), n) for n in range(GOOD)]
    (audio / "text.wav").write_text("this is no audio")
    soundfile.write(audio / "zero.wav", np.zeros(16000), 16000)
    broken = np.full(16000, 0.1, np.float32)
    broken[99] = np.nan
    soundfile.write(audio / "nan.wav", broken, 16000, subtype="FLOAT")
    train += [
        row("f01missing", str(audio / "gone.wav")),
        row("f02text", str(audio / "text.wav")),
        row("f03zero", str(audio / "zero.wav")),
        row("f04nan", str(audio / "nan.wav")),
        row("good00", make("twice", 103)),  # an id that is taken
        row("f06symbol", make("f06", 104), transcript="la <asr> casa"),
        row("f07unassigned", make("f07", 105), translation="the \U000e0fff house"),
        row("f08empty", make("f08", 106), translation=""),
        row("f09long", make("f09", 107), transcript="casa " * 60),
        row("f10test", noise(audio / "copy.wav", 200)),  # the samples of a test utterance
    ]
    write(root / "train.tsv", train)
    write(root / "valid.tsv", [row(f"v{n}", make(f"v{n}", 300 + n), n) for n in range(4)])
    write(root / "test.tsv", [row(f"t{n}", make(f"t{n}", 200 + n), n) for n in range(4)])
    return root


def test_ten_faults_give_ten_lines(corpus: Path, tmp_path: Path) -> None:
    recipe = copy_recipe(tmp_path / "recipe")
    options = ["--corpus", "manifest", "--corpus_dir", str(corpus), "--nbpe", "300"]
    options += ["--s2t_config", "conf/train_tiny.yaml"]
    done = run(recipe, "--stop_stage", "6", *options)
    assert done.returncode == 0, done.stdout
    done = run(recipe, "--stage", "7", "--stop_stage", "7", *options)
    assert done.returncode == 1, done.stdout
    assert "10 problem(s)" in done.stdout
    lines = (recipe / "dump/manifest/s2t/validation.jsonl").read_text("utf-8").splitlines()
    utts = [json.loads(line)["utt"].split("_")[0] for line in lines]
    expected = ["f01missing", "f02text", "f03zero", "f04nan", "f06symbol", "f07unassigned"]
    assert sorted(utts) == sorted([*expected, "f08empty", "f09long", "f10test", "good00"])
    for line in lines:
        fault = json.loads(line)
        assert f"utterance {fault['utt']}: {fault['file']}: {fault['reason']}" in done.stdout
    done = run(recipe, "--stage", "7", "--stop_stage", "7", "--accept_faults", "true", *options)
    assert done.returncode == 0, done.stdout
    kept = (recipe / "dump/manifest/s2t/train/text").read_text("utf-8")
    assert [f"good{n:02d}_st_eng" in kept for n in range(1, GOOD)] == [True] * (GOOD - 1)
