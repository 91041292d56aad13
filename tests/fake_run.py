#!/usr/bin/env python3
"""Stands in for run.sh: leaves what the stages leave, without audio, models or training.

Every call is noted in ``calls``. A file ``fail_<tag>`` makes stage 11 of that model fail, a file
``hang_<tag>`` makes it wait.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import yaml

from espnet_smoe.datadir import read_table, write_table

SENTENCE = "el perro come una manzana roja y la casa es grande no sé qué hora"
WORDS = SENTENCE.split()
TASKS = ("asr", "st_eng")
SHARE = {"base": 0.3, "encdec_smoe": 0.2}  # of wrong words
SIZES = {"train": 8, "valid": 4, "test_wb": 12, "test_nb": 12}


def sentences(count: int, seed: int) -> dict[str, str]:
    rng = random.Random(seed)
    return {f"u{i:02}": " ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for i in range(count)}


def examples(directory: Path) -> None:
    """Stage 4 (and 6)."""
    for name, size in SIZES.items():
        out = directory / name
        out.mkdir(parents=True, exist_ok=True)
        texts = sentences(size, size)
        bands = {utt: "nb" if name == "test_nb" or i % 2 else "wb" for i, utt in enumerate(texts)}
        if name == "test_wb":
            bands = dict.fromkeys(texts, "wb")
        if name.startswith("test"):
            tables = {"wav.scp": dict.fromkeys(texts, "x.flac"), "text": texts, "utt2bw": bands}
            tables["text.st_eng"] = texts
            tables["utt2num_samples"] = dict.fromkeys(texts, "16000")
        else:
            ids = [(f"{utt}_{task}", utt, task) for utt in texts for task in TASKS]
            tables = {
                "wav.scp": {e: "x.flac" for e, _, _ in ids},
                "text": {e: f"<spa><{t}><notimestamps> {texts[u]}" for e, u, t in ids},
                "text.ctc": {e: texts[u] for e, u, _ in ids},
                "text.prev": {e: "<na>" for e, _, _ in ids},
                "utt2bw": {e: bands[u] for e, u, _ in ids},
                "bandwidth": {e: str(int(bands[u] == "nb")) for e, u, _ in ids},
                "utt2task": {e: t for e, _, t in ids},
                "utt2num_samples": {e: "16000" for e, _, _ in ids},
            }
            batches = [
                {"task": task, "samples": 64000, "utts": [e for e, _, t in ids if t == task]}
                for task in TASKS
            ]
            lines = "".join(json.dumps(batch) + "\n" for batch in batches)
            (out / "batch_plan.jsonl").write_text(lines, encoding="utf-8")
        for table, rows in tables.items():
            write_table(out / table, rows)


def train(options: dict[str, str], s2t_dir: Path) -> None:
    """Stage 11: a checkpoint after the first epoch, from which a second call goes on."""
    tag = options["s2t_tag"]
    s2t_dir.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(Path(options["s2t_config"]).read_text(encoding="utf-8"))
    (s2t_dir / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    log = s2t_dir / "train.log"
    epochs = log.read_text(encoding="utf-8").count("results") if log.exists() else 0
    while epochs < 2:
        epochs += 1
        with log.open("a", encoding="utf-8") as file:
            file.write(
                f"{epochs}epoch results: [train] acc=0.5, train_time=0.1, time=1 minute and "
                f"{epochs}.5 seconds, total_count={2 * epochs}, [valid] acc=0.5, time=3 seconds, "
                f"total_count={epochs}\n"
            )
        for name in ("checkpoint.pth", f"{epochs}epoch.pth"):
            (s2t_dir / name).write_text("x", encoding="utf-8")
        if Path(f"fail_{tag}").exists():
            sys.exit("fake training failed: loss is nan")
        while Path(f"hang_{tag}").exists():
            time.sleep(0.05)
    (s2t_dir / "valid.acc.ave_2best.pth").write_text("x", encoding="utf-8")
    link = s2t_dir / "valid.acc.ave.pth"
    link.unlink(missing_ok=True)
    link.symlink_to("valid.acc.ave_2best.pth")


def decode(options: dict[str, str], s2t_dir: Path) -> None:
    """Stage 12."""
    system, _, seed = options["s2t_tag"].removeprefix("study_").rpartition("_seed")
    for name in ("test_wb", "test_nb"):
        for task in options.get("tasks", "").split() or TASKS:
            rng = random.Random(f"{system}{seed}{name}{task}")
            references = read_table(Path(options["dumpdir"]) / "s2t" / name / "text")
            share = SHARE.get(system, 0.3)
            texts = {
                utt: " ".join(rng.choice(WORDS) if rng.random() < share else w for w in t.split())
                for utt, t in references.items()
            }
            write_table(s2t_dir / options["inference_tag"] / name / task / "text", texts)


def score(options: dict[str, str], s2t_dir: Path) -> None:
    """Stage 13."""
    from espnet_smoe import scoring

    rows = []
    out = s2t_dir / options["inference_tag"]
    for bandwidth in ("wb", "nb"):
        source = Path(options["dumpdir"]) / "s2t" / f"test_{bandwidth}"
        for directory in sorted((out / f"test_{bandwidth}").iterdir()):
            texts = read_table(directory / "text")
            task = directory.name
            references = read_table(source / ("text" if task == "asr" else f"text.{task}"))
            for metric in scoring.metrics_for(task):
                found = scoring.score(
                    references, texts, metric, test_set="test", task=task, bandwidth=bandwidth
                )
                rows.append(found.as_dict())
    (out / "results.json").write_text(json.dumps(rows), encoding="utf-8")


def main() -> None:
    words = sys.argv[1:]
    options = dict(zip([w.removeprefix("--") for w in words[::2]], words[1::2], strict=True))
    with Path("calls").open("a", encoding="utf-8") as file:
        file.write(f"{options['stage']} {options['s2t_tag']} {options['dumpdir']}\n")
    s2t_dir = Path(options["expdir"]) / f"s2t_{options['s2t_tag']}"
    stage = int(options["stage"])
    if stage == 4:
        examples(Path(options["dumpdir"]) / "s2t")
    elif stage == 8 and "broken" in Path(options["s2t_config"]).read_text(encoding="utf-8"):
        sys.exit("check_config.py: an option that does not exist")
    elif stage == 10:
        stats = Path(options["stats_dir"]) / "train"
        stats.mkdir(parents=True)
        (stats / "feats_stats.npz").write_text("x", encoding="utf-8")
    elif stage == 11:
        train(options, s2t_dir)
    elif stage == 12:
        decode(options, s2t_dir)
    elif stage == 13:
        score(options, s2t_dir)


if __name__ == "__main__":
    main()
