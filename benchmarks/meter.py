#!/usr/bin/env python3
"""How often the bandwidth meter is right, and what it costs.

    python benchmarks/meter.py DIR [--files 50] [--json FILE] [--accuracy_only]

DIR holds wideband recordings (any format that libsndfile reads, searched recursively). Each is
measured as it is, coded as Opus and MP3, and through every telephone codec of libsndfile at 8 kHz,
with a 300 to 3400 Hz band-pass before it and without, brought back to 16 kHz by five resamplers.
The costs: the meter against a paper-size encoder on the same audio, alternating, the median of
the ratios; and hours of audio tagged in an hour with FLAC files read, in as many processes.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import torch
import torchaudio
from tqdm import tqdm

from espnet_smoe import amr
from espnet_smoe.audio import TARGET_RATE, read_audio, resample, to_int16, write_audio
from espnet_smoe.bandwidth import BandwidthEstimate, measure
from espnet_smoe.telephone import NB_RATE

Channel = Callable[[np.ndarray], np.ndarray]
SUFFIXES = {".wav", ".flac", ".opus", ".ogg", ".mp3"}
BAND_PASS = scipy.signal.firwin(255, [300, 3400], fs=NB_RATE, pass_zero=False)
CODECS = {  # name: container and subtype of libsndfile
    "PCM": ("WAV", "PCM_16"),
    "u-law": ("WAV", "ULAW"),
    "A-law": ("WAV", "ALAW"),
    "GSM 06.10": ("WAV", "GSM610"),
    "G.721 32k": ("AU", "G721_32"),
    "G.723 24k": ("AU", "G723_24"),
    "G.723 40k": ("AU", "G723_40"),
    "IMA ADPCM": ("WAV", "IMA_ADPCM"),
    "Opus NB": ("OGG", "OPUS"),
}
WIDE_CODECS = {"Opus": ("OGG", "OPUS"), "MP3": ("MP3", "MPEG_LAYER_III")}
COMPRESSION = {"": 0.5, ", low bitrate": 0.95}  # libsndfile's level: some 16 kbit/s at 16 kHz


def coded(x: np.ndarray, rate: int, container: str, subtype: str, level: float = 0.5) -> np.ndarray:
    """Samples written in a format and read back."""
    lossy = {"compression_level": level} if subtype in ("OPUS", "MPEG_LAYER_III") else {}
    memory = io.BytesIO()
    soundfile.write(memory, x.clip(-1, 1), rate, format=container, subtype=subtype, **lossy)
    memory.seek(0)
    return soundfile.read(memory, dtype="float32")[0]


def linear(x: np.ndarray) -> np.ndarray:
    return np.interp(np.arange(2 * len(x)) / 2, np.arange(len(x)), x).astype(np.float32)


def windowed_sinc(x: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return torchaudio.functional.resample(tensor, NB_RATE, TARGET_RATE).numpy()


RESAMPLERS: dict[str, Channel] = {
    "linear": linear,
    "polyphase": lambda x: scipy.signal.resample_poly(x, 2, 1).astype(np.float32),
    "soxr HQ": lambda x: resample(x, NB_RATE, TARGET_RATE),
    "windowed sinc": windowed_sinc,
    "FFT": lambda x: scipy.signal.resample(x, 2 * len(x)).astype(np.float32),
}


def estimates(path: Path) -> list[tuple[str, str, BandwidthEstimate]]:
    """(truth, channel, estimate) of a recording through every channel."""
    x, rate = read_audio(path)
    rows = [("wb", "as it is", measure(x, rate))]
    x = resample(x, rate, TARGET_RATE)
    for name, (container, subtype) in WIDE_CODECS.items():
        for suffix, level in COMPRESSION.items():
            y = coded(x, TARGET_RATE, container, subtype, level)
            rows.append(("wb", name + suffix, measure(y, TARGET_RATE)))
    narrow = resample(x, TARGET_RATE, NB_RATE)
    telephone = np.convolve(narrow, BAND_PASS, "same").astype(np.float32)
    for band, y in (("full", narrow), ("300-3400", telephone)):
        lines = {codec: coded(y, NB_RATE, *kind) for codec, kind in CODECS.items()}
        if amr.is_available():
            lines["AMR-NB"] = amr.code(to_int16(y)) / np.float32(32768)
        for codec, line in lines.items():
            for name, up in RESAMPLERS.items():
                sixteen_bit = to_int16(up(line)) / np.float32(32768)
                rows.append(("nb", f"{band}|{codec}|{name}", measure(sixteen_bit, TARGET_RATE)))
    return rows


def accuracy(paths: list[Path]) -> list[dict[str, object]]:
    """Rows of the table: per channel right, ambiguous and wrong in percent."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for path in tqdm(paths, desc="channels", mininterval=1.0):
        for truth, channel, estimate in estimates(path):
            parts = channel.split("|")
            groups = [channel] if truth == "wb" else ["all", f"{parts[1]}, {parts[0]}", parts[2]]
            for group in groups:
                count = counts.setdefault((truth, group), Counter())
                count["n"] += 1
                count["right"] += estimate.label == truth
                count["ambiguous"] += estimate.label == "ambiguous"
                count["guess"] += estimate.likelier == truth
    return [
        {
            "truth": truth,
            "channel": channel,
            "measured": count["n"],
            "right": round(100 * count["right"] / count["n"], 2),
            "ambiguous": round(100 * count["ambiguous"] / count["n"], 2),
            "likelier_right": round(100 * count["guess"] / count["n"], 2),
        }
        for (truth, channel), count in counts.items()
    ]


def cost(x: np.ndarray, rounds: int = 15) -> float:
    """Median ratio of the meter's time to a paper-size encoder's (12 blocks, d 512, FFN 2048)."""
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

    encoder = TransformerEncoder(80, 512, 8, 2048, 12).eval()
    frames = torch.randn(1, 100 * len(x) // TARGET_RATE, 80)
    lengths = torch.tensor([frames.shape[1]])
    ratios = []
    with torch.inference_mode():
        for _ in range(rounds):
            start = time.perf_counter()
            encoder(frames, lengths)
            middle = time.perf_counter()
            measure(x, TARGET_RATE)
            ratios.append((time.perf_counter() - middle) / (middle - start))
    return statistics.median(ratios)


def tag(path: str) -> float:
    """Seconds of audio in a file that was read and measured."""
    x, rate = read_audio(path)
    measure(x, rate)
    return len(x) / rate


def hours_per_hour(x: np.ndarray, processes: int, copies: int = 400) -> float:
    """Audio tagged in an hour, FLAC reading included; the files hold 10 s each."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{i}.flac" for i in range(copies)]
        for path in paths:
            write_audio(path, x, TARGET_RATE)
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(tag, paths[:processes]))  # the workers start
            start = time.perf_counter()
            seconds = sum(pool.map(tag, paths, chunksize=8))
            return seconds / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--files", type=int, default=50, help="recordings, chosen with seed 1")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--accuracy_only", action="store_true")
    args = parser.parse_args()
    paths = sorted(p for p in args.dir.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{args.dir} holds no recordings")
    random.Random(1).shuffle(paths)
    paths = paths[: args.files]
    result: dict[str, object] = {"recordings": len(paths), "accuracy": accuracy(paths)}
    print("| truth | channel | measured | right % | ambiguous % | likelier right % |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in result["accuracy"]:  # type: ignore[attr-defined]
        print(f"| {' | '.join(str(value) for value in row.values())} |")
    if not args.accuracy_only:
        audio = [resample(*read_audio(p), TARGET_RATE) for p in paths]
        x = np.resize(np.concatenate(audio), 10 * TARGET_RATE)
        result["of_encoder"] = cost(x)
        result["hours_per_hour"] = hours_per_hour(x, args.processes)
        percent = 100 * float(result["of_encoder"])  # type: ignore[arg-type]
        print(f"cost: {percent:.2f} % of the encoder's time for 10 s on {os.cpu_count()} cores")
        print(
            f"FLAC tagged by {args.processes} processes: {result['hours_per_hour']:.0f} h an hour"
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
