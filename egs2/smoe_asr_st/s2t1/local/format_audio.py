#!/usr/bin/env python3
"""Stage 3: write every utterance's audio at one rate, as mono 16-bit FLAC.

Each set ``dump/tagged/<set>`` becomes ``dump/raw/<set>``: the same tables, a ``wav.scp`` that
names the new audio (a file each, or entries of one Kaldi archive), and ``utt2num_samples``. With
``--audio_format none`` no audio is written, and ``wav.scp`` names the original recordings, which
training and decoding read and resample themselves.

An utterance whose audio cannot be used is left out and noted in ``faults.jsonl``. A set appears
whole or not at all, so a rerun after a kill just does it again.
"""

from __future__ import annotations

import argparse
import heapq
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from carry_tables import carry, prefix_of

from espnet_smoe.audio import TARGET_RATE, AudioError
from espnet_smoe.audio_formats import FORMATS, Done, Job, fault_in, work_of
from espnet_smoe.datadir import DataError, publish_dir
from espnet_smoe.faults import FAULTS_NAME, Fault, read_faults, summary, write_faults
from espnet_smoe.tables import TableWriter, rows
from espnet_smoe.workers import each_item

OWN_TABLES = {"wav.scp", "utt2num_samples", FAULTS_NAME}
FACTORS = (0.5, 2.0)  # of speed: beyond, hardly speech


class SetWriter:
    """Writes a set's ``wav.scp``, ``utt2num_samples`` and archive as the utterances come."""

    def __init__(self, folder: Path, out: Path, audio_format: str, stack: ExitStack) -> None:
        self.out = out
        self.format = audio_format
        self.audio = stack.enter_context(TableWriter(folder / "wav.scp"))
        self.lengths = stack.enter_context(TableWriter(folder / "utt2num_samples"))
        self.samples = self.clipped = 0
        self.first_clipped = ("", 0.0)
        if audio_format != "none":
            (folder / "audio").mkdir()
        if audio_format.endswith(".ark"):
            self.ark = stack.enter_context((folder / "audio" / audio_format).open("wb"))

    def write(self, utt: str, job: Job, done: Done) -> None:
        """Write one utterance's lines, and its entry."""
        if self.format == "none":
            where = str(job.source)
        elif self.format == "flac":
            where = f"{self.out}/audio/{Path(job.target).name}"
        else:
            offset = self.ark.tell() + len(f"{utt} ".encode())  # Kaldi's: behind the id
            where = f"{self.out}/audio/{self.format}:{offset}"
            self.ark.write(done.entry)
        self.audio.write(utt, where)
        self.lengths.write(utt, done.samples)
        self.samples += done.samples
        if done.peak > 1:
            self.clipped += 1
            self.first_clipped = self.first_clipped if self.first_clipped[0] else (utt, done.peak)


def jobs_of(
    source: Path, folder: Path, args: argparse.Namespace, factors: list[str], faults: list[Fault]
) -> Iterator[tuple[str, Job]]:
    """(utterance id, job) of each utterance at each speed, sorted by id."""

    def at(factor: str, note: list[Fault]) -> Iterator[tuple[str, Job]]:
        for utt, locator in rows(source / "wav.scp", note.append):
            name = prefix_of(factor) + utt
            if args.audio_format == "flac":
                file = name.replace("%", "%25").replace("/", "%2F") + ".flac"
                target = str(folder / "audio" / file)
            else:
                target = args.audio_format.partition(".")[0]
            yield name, Job(utt, locator, args.fs, float(factor), target)

    streams = [at(factor, [] if number else faults) for number, factor in enumerate(factors)]
    return heapq.merge(*streams, key=lambda entry: entry[0])


def count_lines(path: Path) -> int:
    """Lines of a table; 0 when there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def format_set(source: Path, out: Path, args: argparse.Namespace) -> tuple[int, int]:
    """Format one set.

    Args:
        source: A tagged data directory.
        out: The directory to write.
        args: The program's options.

    Returns:
        The numbers of utterances and of samples.

    Raises:
        DataError: ``source`` has no usable ``wav.scp``, or no utterance of it can be used.
        RuntimeError: The audio cannot be written.
    """
    factors = args.factors if source.name == args.train_set and args.factors else ["1.0"]
    work = work_of(args.audio_format)
    faults: list[Fault] = []
    left_out: set[str] = set()
    pending: dict[str, Job] = {}  # under way: each_item takes no more than it needs
    total = count_lines(source / "wav.scp") * len(factors)
    with publish_dir(out) as folder:

        def noted() -> Iterator[tuple[str, Job]]:
            for utt, job in jobs_of(source, folder, args, factors, faults):
                pending[utt] = job
                yield utt, job

        label = f"{out.name}: {args.audio_format}"
        with ExitStack() as stack:
            writer = SetWriter(folder, out, args.audio_format, stack)
            for utt, done in each_item(
                work, noted(), nj=args.nj, dask=args.dask, label=label, total=total
            ):
                job = pending.pop(utt)
                if isinstance(done, AudioError):
                    left_out.add(utt)
                    faults.append(fault_in(source / "wav.scp", utt, job, done))
                    Path(f"{job.target}.partial").unlink(missing_ok=True)  # of a killed worker
                else:
                    writer.write(utt, job, done)
        kept = writer.audio.count
        if faults:
            what = f"{out}: {len(left_out)} of {kept + len(left_out)} utterances left out"
            print(summary(faults, what), file=sys.stderr)
        if not kept:
            raise DataError(
                f"{source / 'wav.scp'}: no utterance is left"
                if left_out
                else f"{source / 'wav.scp'} is empty; it needs a line per utterance"
            )
        prefixes = [prefix_of(factor) for factor in factors]
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in OWN_TABLES and path.suffix != ".partial":
                carry(path, folder / path.name, prefixes=prefixes, left_out=left_out)
        write_faults(folder, [*read_faults(source), *faults])
    if writer.clipped:
        print(
            f"{out.name}: warning: {writer.clipped} of {kept} utterances exceed full scale and "
            f"are clipped, the first {writer.first_clipped[0]!r} (peak "
            f"{writer.first_clipped[1]:.3f})",
            file=sys.stderr,
        )
    return kept, writer.samples


def speed_factors(text: str) -> list[str]:
    """Check the factors of ``--speed_perturb_factors``."""
    factors = text.split()
    for factor in factors:
        if (
            not re.fullmatch(r"\d+(\.\d+)?", factor)
            or not FACTORS[0] <= float(factor) <= FACTORS[1]
        ):
            raise argparse.ArgumentTypeError(
                f"{factor!r}: accepted are numbers from {FACTORS[0]} to {FACTORS[1]} between "
                "spaces, e.g. '0.9 1.0 1.1'"
            )
    values = [float(factor) for factor in factors]
    twice = next((f for f, v in zip(factors, values, strict=True) if values.count(v) > 1), None)
    if twice:
        raise argparse.ArgumentTypeError(f"{twice} occurs twice in {text!r}")
    return factors


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tagged", type=Path, default=Path("dump/tagged"), help="stage 2's output")
    parser.add_argument("--out", type=Path, default=Path("dump/raw"))
    parser.add_argument("--sets", required=True, help="names between spaces")
    parser.add_argument("--fs", type=int, default=TARGET_RATE, help="rate in Hz")
    parser.add_argument("--audio_format", choices=FORMATS, default="flac")
    parser.add_argument(
        "--speed_perturb_factors",
        dest="factors",
        type=speed_factors,
        default=[],
        help="speeds of the copies of the training set; 1.0 is the set itself",
    )
    parser.add_argument("--train_set", default="train")
    parser.add_argument("--nj", type=int, default=2, help="number of processes")
    parser.add_argument("--dask", default="", help="a dask cluster to work on instead; see cmd.sh")
    args = parser.parse_args(argv)
    if not args.sets.split():
        parser.error("--sets is empty; accepted are names of sets between spaces")
    if args.fs < 1 or args.nj < 1:
        parser.error(f"--fs {args.fs} --nj {args.nj}: accepted is 1 or more")
    if args.audio_format == "none" and args.fs != TARGET_RATE:
        parser.error(
            f"--fs {args.fs} --audio_format none: audio that is read as it lies is always brought "
            f"to {TARGET_RATE} Hz; another rate needs --audio_format {FORMATS[0]}"
        )
    if args.audio_format == "none" and args.factors:
        parser.error(
            "--speed_perturb_factors --audio_format none: the copies at another speed have to be "
            f"written; use --audio_format {FORMATS[0]}"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    args = parse(argv)
    try:
        for name in dict.fromkeys(args.sets.split()):
            utts, samples = format_set(args.tagged / name, args.out / name, args)
            hours = samples / args.fs / 3600
            print(f"{name}: {utts} utterances, {hours:.2f} h at {args.fs} Hz", flush=True)
    except (DataError, AudioError, OSError, RuntimeError) as error:
        print(f"format_audio.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
