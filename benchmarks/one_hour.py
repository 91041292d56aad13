#!/usr/bin/env python3
"""One recording of an hour: memory over time, speed, WER, and where the change of line is found.

    python ../../../benchmarks/one_hour.py --model exp/mini/s2t_train_mini \\
        --data dump/mini/s2t/test_wb [--hours 1] [--beam_size 5] [--json FILE]

Run in the recipe directory after stage 11. The utterances of the directory are put one behind the
other (again and again, in a fixed random order) with pauses of 0.3 to 1.5 s of faint noise between
them, and now and then one of 4 s; from the middle of the hour on it is sent through a simulated
telephone. The hour is a 16 kHz WAV file, decoded by one call. A thread samples the process's
resident memory. Linux only.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import threading
import time
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch

from espnet_smoe import Speech2Text
from espnet_smoe.audio import read_audio, resample
from espnet_smoe.datadir import read_table
from espnet_smoe.telephone import NB_RATE, Line, telephone

FS = 16000
SAMPLE_SECONDS = 1.0
LONG_PAUSE_EVERY = 20  # utterances


def write_hour(data: Path, path: Path, seconds: float) -> tuple[list[str], float]:
    """Write the recording; returns the texts in order and the second at which the line changes."""
    rng = np.random.default_rng(1)
    wavs, texts = read_table(data / "wav.scp"), read_table(data / "text")
    said: list[str] = []
    done, change = 0.0, 0.0
    with soundfile.SoundFile(path, "w", FS, 1, "PCM_16") as file:
        while done < seconds:
            for utt in rng.permutation(sorted(texts)):
                x, rate = read_audio(wavs[utt])
                pause = 4.0 if len(said) % LONG_PAUSE_EVERY == 0 else rng.uniform(0.3, 1.5)
                silence = rng.normal(0, 1e-4, int(pause * FS)).astype(np.float32)
                x = np.concatenate([resample(x, rate, FS), silence])
                if done >= seconds / 2:
                    change = change or done
                    x = resample(telephone(x, FS, line=Line("ulaw")), NB_RATE, FS)
                file.write(x)
                said.append(texts[utt])
                done += len(x) / FS
                if done >= seconds:
                    break
    return said, change


class Sampler(threading.Thread):
    """Samples this process's resident memory, MiB, until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(SAMPLE_SECONDS):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.samples.append(pages * 4096 / (1 << 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a test set of stage 4")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--beam_size", type=int, default=5)
    parser.add_argument("--ctc_weight", type=float, default=0.3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_length", type=float, help="seconds; default: the model's")
    parser.add_argument("--pause", type=float, help="seconds; default: the model's")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    s2t = Speech2Text.from_pretrained(
        args.model,
        beam_size=args.beam_size,
        ctc_weight=args.ctc_weight,
        batch_size=args.batch_size,
        max_length=args.max_length,
        pause=args.pause,
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hour.wav"
        said, change = write_hour(args.data, path, args.hours * 3600)
        sampler = Sampler()
        sampler.start()
        begin = time.perf_counter()
        result = s2t(path)
        wall = time.perf_counter() - begin
        sampler.stopped.set()
        sampler.join()
        seconds = soundfile.info(path).duration
    memory = sampler.samples
    tenth = max(1, len(memory) // 10)
    words = jiwer.process_words(" ".join(said), result.text)
    summary = {
        "hours": seconds / 3600,
        "threads": torch.get_num_threads(),
        "wall_s": wall,
        "times_real_time": seconds / wall,
        "segments": len(result.segments),
        "longest_segment_s": max(s.end - s.start for s in result.segments),
        "heard_s": result.duration,
        "wer": 100 * words.wer,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "substitutions": words.substitutions,
        "line_changes_at_s": change,
        "route_changes": [(start, route) for start, _, route in result.route_changes],
        "memory_first_tenth_mib": max(memory[:tenth]),
        "memory_peak_mib": max(memory),
        "memory_last_tenth_mib": max(memory[-tenth:]),
        "memory_by_tenth_mib": [max(memory[i : i + tenth]) for i in range(0, len(memory), tenth)],
    }
    print(json.dumps(summary, indent=2))
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
