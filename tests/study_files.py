"""What the study's programs need beside a model: test sets, a training set, options."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import soundfile
from recipe_copy import RECIPE
from tiny import FS, speech

from espnet_smoe.datadir import write_table

sys.path.insert(0, str(RECIPE / "local"))

SENTENCES = ["hola casa", "perro grande", "casa perro", "hola perro grande"]
TRANSLATIONS = ["hello the house", "big dog", "the house dog", "hello the big dog"]
SETS = "test_wb test_nb"
OPTIONS = "beam_size: 2\nctc_weight: 0.3\nmaxlenratio: -6.0\n"


def program(name: str) -> ModuleType:
    """A program of the recipe."""
    return __import__(name)


def write_sets(directory: Path) -> Path:
    """Test sets and a training set of stage 4: every sentence in both bandwidths."""
    audio = directory / "audio"
    audio.mkdir(parents=True)
    train: dict[str, dict[str, Any]] = {}
    for place, band in enumerate(("wb", "nb")):
        utts = [f"s{i}" for i in range(len(SENTENCES))]
        paths = {}
        for i, utt in enumerate(utts):
            paths[utt] = audio / f"{utt}_{band}.flac"
            x = speech(9000 + 600 * i, wide=band == "wb", seed=i)
            soundfile.write(paths[utt], x.numpy(), FS)
        folder = directory / f"test_{band}"
        folder.mkdir()
        tables = {
            "wav.scp": paths,
            "utt2lang": dict.fromkeys(utts, "spa"),
            "utt2bw": dict.fromkeys(utts, band),
            "utt2spk": {utt: f"spk{i % 2}" for i, utt in enumerate(utts)},
            "text": dict(zip(utts, SENTENCES, strict=True)),
            "text.st_eng": dict(zip(utts, TRANSLATIONS, strict=True)),
        }
        for name, table in tables.items():
            write_table(folder / name, table)
        for i, utt in enumerate(utts):
            for task, text in (("asr", SENTENCES[i]), ("st_eng", TRANSLATIONS[i])):
                row = {
                    "wav.scp": paths[utt],
                    "text": f"<spa><{task}><notimestamps> {text}",
                    "text.ctc": SENTENCES[i],
                    "bandwidth": place,
                    "utt2bw": band,
                    "utt2task": task,
                    "utt2num_samples": 9000 + 600 * i,
                }
                for name, value in row.items():
                    train.setdefault(name, {})[f"{utt}-{band}_{task}"] = value
    (directory / "train").mkdir()
    for name, table in train.items():
        write_table(directory / "train" / name, table)
    (directory / "decode.yaml").write_text(OPTIONS, encoding="utf-8")
    return directory


def command(model: Path, sets: Path, out: Path, *more: str) -> list[str]:
    """A program's command line."""
    return [
        *("--s2t_dir", str(model), "--examples", str(sets), "--sets", SETS, "--out", str(out)),
        *("--config", str(sets / "decode.yaml"), *more),
    ]


def arguments(module: ModuleType, words: list[str]) -> argparse.Namespace:
    """What a program makes of its command line."""
    return module.get_options().parse_args(words)
