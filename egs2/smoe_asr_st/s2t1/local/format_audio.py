#!/usr/bin/env python3
"""Stage 3: write every utterance's audio at one rate, as mono 16-bit FLAC.

Each set ``dump/tagged/<set>`` becomes ``dump/raw/<set>``: the same tables, a ``wav.scp`` that
names the new audio (a file each, or entries of one Kaldi archive), and ``utt2num_samples``.
A set appears whole or not at all, so a rerun after a kill just does it again.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

import numpy as np

from espnet_smoe.audio import (
    TARGET_RATE,
    AudioError,
    read_audio,
    resample,
    to_int16,
    write_audio,
)
from espnet_smoe.datadir import DataError, publish_dir, read_table, write_table
from espnet_smoe.workers import each_file

FORMATS = ("flac", "flac.ark")
OWN_TABLES = {"wav.scp", "utt2num_samples"}


def load(utt: str, path: str, fs: int) -> np.ndarray:
    """Read a file at the wanted rate; names the utterance when nothing is left of it."""
    x, rate = read_audio(path, utt=utt)
    x = resample(x, rate, fs)
    if len(x) == 0:
        raise AudioError(f"utterance {utt!r}: audio file {path!r} is too short for {fs} Hz")
    return x


def format_file(utt: str, job: tuple[str, int, Path]) -> tuple[int, float]:
    """Write one FLAC file; returns its number of samples and the peak before clipping."""
    source, fs, target = job
    x = load(utt, source, fs)
    write_audio(target, x, fs)
    return len(x), float(np.abs(x).max())


def format_entry(utt: str, job: tuple[str, int]) -> tuple[int, float, bytes]:
    """Like ``format_file``, but returns the entry of a Kaldi archive instead of writing it."""
    import kaldiio

    x = load(utt, *job)
    entry = io.BytesIO()
    kaldiio.save_ark(
        entry,
        {utt: (job[1], to_int16(x))},
        write_function="soundfile",
        write_kwargs={"format": "flac", "subtype": "PCM_16"},
    )
    return len(x), float(np.abs(x).max()), entry.getvalue()


def format_set(source: Path, out: Path, *, fs: int, audio_format: str, nj: int) -> tuple[int, int]:
    """Format one set.

    Args:
        source: A tagged data directory.
        out: The directory to write.
        fs: The rate wanted, in Hz.
        audio_format: ``"flac"`` or ``"flac.ark"``.
        nj: Number of processes.

    Returns:
        The numbers of utterances and of samples.

    Raises:
        DataError: ``source`` has no usable ``wav.scp``.
        AudioError: Names every utterance whose file cannot be read.
    """
    wavs = read_table(source / "wav.scp")
    if not wavs:
        raise DataError(f"{source / 'wav.scp'} is empty; it needs a line per utterance")
    where: dict[str, str] = {}
    samples: dict[str, int] = {}
    peaks: dict[str, float] = {}
    with publish_dir(out) as folder:
        (folder / "audio").mkdir()
        if audio_format == "flac":
            file_of = {utt: utt.replace("%", "%25").replace("/", "%2F") + ".flac" for utt in wavs}
            files = {utt: (wav, fs, folder / "audio" / file_of[utt]) for utt, wav in wavs.items()}
            for utt, result in each_file(format_file, files, nj=nj, label=f"{out.name}: flac"):
                samples[utt], peaks[utt] = result
                where[utt] = str(out / "audio" / file_of[utt])
        else:
            entries = {utt: (wav, fs) for utt, wav in wavs.items()}
            with (folder / "audio" / "flac.ark").open("wb") as ark:
                for utt, (count, peak, entry) in each_file(
                    format_entry, entries, nj=nj, label=f"{out.name}: flac.ark"
                ):
                    samples[utt], peaks[utt] = count, peak
                    offset = ark.tell() + len(f"{utt} ".encode())  # Kaldi's: behind the id
                    where[utt] = f"{out / 'audio' / 'flac.ark'}:{offset}"
                    ark.write(entry)
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in OWN_TABLES and path.suffix != ".partial":
                shutil.copyfile(path, folder / path.name)
        write_table(folder / "wav.scp", where)
        write_table(folder / "utt2num_samples", samples)
    clipped = [utt for utt, peak in peaks.items() if peak > 1]
    if clipped:
        print(
            f"{out.name}: warning: {len(clipped)} of {len(wavs)} utterances exceed full scale and "
            f"are clipped, the first {clipped[0]!r} (peak {peaks[clipped[0]]:.3f})",
            file=sys.stderr,
        )
    return len(samples), sum(samples.values())


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tagged", type=Path, default=Path("dump/tagged"), help="stage 2's output")
    parser.add_argument("--out", type=Path, default=Path("dump/raw"))
    parser.add_argument("--sets", required=True, help="names between spaces")
    parser.add_argument("--fs", type=int, default=TARGET_RATE, help="rate in Hz")
    parser.add_argument("--audio_format", choices=FORMATS, default="flac")
    parser.add_argument("--nj", type=int, default=2, help="number of processes")
    args = parser.parse_args(argv)
    if not args.sets.split():
        parser.error("--sets is empty; accepted are names of sets between spaces")
    if args.fs < 1 or args.nj < 1:
        parser.error(f"--fs {args.fs} --nj {args.nj}: accepted is 1 or more")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    args = parse(argv)
    try:
        for name in dict.fromkeys(args.sets.split()):
            utts, samples = format_set(
                args.tagged / name,
                args.out / name,
                fs=args.fs,
                audio_format=args.audio_format,
                nj=args.nj,
            )
            hours = samples / args.fs / 3600
            print(f"{name}: {utts} utterances, {hours:.2f} h at {args.fs} Hz", flush=True)
    except (DataError, AudioError) as error:
        print(f"format_audio.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
