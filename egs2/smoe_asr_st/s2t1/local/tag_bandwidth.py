#!/usr/bin/env python3
"""Stage 2: tag every utterance with its bandwidth, and simulate telephone speech.

The tags come from the original files, before any resampling or speed perturbation could move
the band's edge. Each set ``data/<set>`` becomes ``dump/tagged/<set>``: the same tables, and
``utt2fs`` (rate in the original file's header), ``utt2bw`` (nb or wb), ``utt2edge``
(``<utt> <edge in Hz> <confidence>``) and ``bandwidth_report.md``.

With ``--telephone_share`` above 0, that share of the wideband utterances of the training and
the validation set is replaced by telephone copies, and each test set T becomes T_wb and T_nb:
the same wideband utterances, as they are and through the telephone.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from espnet_smoe.audio import (
    NB_RATE,
    TELEPHONE_CODECS,
    AudioError,
    each_file,
    read_audio,
    telephone,
    write_audio,
)
from espnet_smoe.bandwidth import BANDWIDTHS, BandwidthEstimate, measure
from espnet_smoe.datadir import (
    DataError,
    publish_dir,
    read_table,
    require_same_keys,
    write_table,
    write_text,
)

OWN_TABLES = {"wav.scp", "utt2fs", "utt2bw", "utt2edge", "bandwidth_report.md"}
DOUBTFUL_CONFIDENCE = 0.75  # utterances below it are listed in the report


@dataclass(frozen=True)
class Tags:
    """What is known about a set's original files; every mapping is by utterance id."""

    wavs: dict[str, str]
    rates: dict[str, int]
    estimates: dict[str, BandwidthEstimate]
    labels: dict[str, str]  # the decision: the user's own utt2bw, else the measurement
    given: bool  # the labels come from the user's own utt2bw


def measure_file(utt: str, path: str) -> tuple[int, BandwidthEstimate]:
    """The rate in the file's header, and what its spectrum holds."""
    x, rate = read_audio(path, utt=utt)
    return rate, measure(x, rate)


def narrow_file(utt: str, job: tuple[str, Path, str]) -> BandwidthEstimate:
    """Write the telephone copy of a file; measures it."""
    source, target, codec = job
    x, rate = read_audio(source, utt=utt)
    narrow = telephone(x, rate, codec=codec)
    write_audio(target, narrow, NB_RATE, subtype=TELEPHONE_CODECS[codec])
    return measure(narrow, NB_RATE)


def reject_segments(source: Path) -> None:
    """Refuse a data directory whose wav.scp names recordings rather than utterances."""
    if (source / "segments").exists():
        raise DataError(
            f"{source / 'segments'}: segments are not read; cut the recordings into one file "
            "per utterance and name those in wav.scp"
        )


def tag_set(source: Path, *, nj: int) -> Tags:
    """Measure every file of a data directory.

    Raises:
        DataError: The directory is empty or segmented, or its utt2bw is incomplete or wrong.
        AudioError: Names every utterance whose file cannot be read.
    """
    wavs = read_table(source / "wav.scp")
    if not wavs:
        raise DataError(f"{source / 'wav.scp'} is empty; it needs a line per utterance")
    reject_segments(source)
    labels: dict[str, str] = {}
    given = (source / "utt2bw").exists()
    if given:
        labels = read_table(source / "utt2bw")
        require_same_keys(wavs, labels, names=(str(source / "wav.scp"), str(source / "utt2bw")))
        for utt, label in labels.items():
            if label not in BANDWIDTHS:
                raise DataError(
                    f"{source / 'utt2bw'}: utterance {utt!r} has bandwidth {label!r}; "
                    f"accepted: {', '.join(BANDWIDTHS)}"
                )
    rates, estimates = {}, {}
    for utt, (rate, estimate) in each_file(measure_file, wavs, nj=nj, label=f"{source.name}: tag"):
        rates[utt], estimates[utt] = rate, estimate
    if not given:
        labels = {utt: estimate.likelier for utt, estimate in estimates.items()}
    return Tags(wavs, rates, estimates, labels, given)


def choose(utts: Collection[str], share: float, seed: int) -> set[str]:
    """A seeded share of utterances: exact in number, whatever order they come in."""

    def rank(utt: str) -> bytes:
        return hashlib.sha256(f"{seed} {utt}".encode()).digest()

    return set(sorted(utts, key=rank)[: round(share * len(utts))])


def listed_cases(tags: Tags) -> list[str]:
    """Lines of the report's table: files about which header, spectrum or user disagree."""
    lines = []
    for utt, estimate in tags.estimates.items():
        rate, label = tags.rates[utt], tags.labels[utt]
        reasons = []
        if rate > NB_RATE and estimate.likelier == "nb":
            reasons.append(f"header {rate} Hz, spectrum narrowband")
        if label != estimate.likelier:
            reasons.append(f"utt2bw says {label}, measured {estimate.likelier}")
        if estimate.confidence < DOUBTFUL_CONFIDENCE:
            reasons.append("doubtful")
        if reasons:
            lines.append(
                f"| {utt} | {tags.wavs[utt]} | {rate} | {estimate.edge_hz:.0f} "
                f"| {estimate.confidence:.2f} | {label} | {'; '.join(reasons)} |"
            )
    return lines


def report(name: str, tags: Tags, notes: list[str]) -> str:
    """The text of bandwidth_report.md."""
    counts = Counter((tags.rates[utt], label) for utt, label in tags.labels.items())
    cases = listed_cases(tags)
    text = [f"# Bandwidth of `{name}`", ""]
    text.append(f"{len(tags.wavs)} original files, by the rate in their header:")
    text += ["", "| header rate (Hz) | nb | wb |", "| ---: | ---: | ---: |"]
    for rate in sorted(set(tags.rates.values())):
        text.append(f"| {rate} | {counts[rate, 'nb']} | {counts[rate, 'wb']} |")
    source = "the data directory's own `utt2bw`" if tags.given else "the measurement"
    text += ["", f"Decided by {source}.", *notes]
    text += ["", "## Files to look at", ""]
    if cases:
        text += [
            f"{len(cases)} files where header, spectrum or `utt2bw` disagree, or the measurement "
            f"is doubtful (confidence below {DOUBTFUL_CONFIDENCE}):",
            "",
            "| utterance | file | header (Hz) | edge (Hz) | confidence | decision | why |",
            "| --- | --- | ---: | ---: | ---: | --- | --- |",
            *cases,
        ]
    else:
        text.append("None: header and spectrum agree everywhere.")
    return "\n".join(text) + "\n"


def copy_table(path: Path, target: Path, utts: Collection[str], kept: Collection[str]) -> None:
    """Copy a file; of a table keyed by utterance, only the lines of the kept utterances."""
    if len(kept) < len(utts):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        keys = [line.split(maxsplit=1)[0] if line.strip() else "" for line in lines]
        if any(key in utts for key in keys):
            chosen = (line for key, line in zip(keys, lines, strict=True) if key in kept)
            target.write_text("".join(chosen), encoding="utf-8")
            return
    shutil.copyfile(path, target)


def write_set(
    source: Path,
    name: str,
    tags: Tags,
    args: argparse.Namespace,
    *,
    kept: Collection[str],
    narrowed: Collection[str],
) -> list[str]:
    """Write one tagged set.

    Args:
        source: The data directory that the set comes from.
        name: Name of the tagged set.
        tags: What is known about the original files.
        args: The program's options.
        kept: The utterances that the set holds.
        narrowed: Those of them that are replaced by telephone copies.

    Returns:
        The set's row of the summary: name, utterances, nb, wb, simulated, files to look at.
    """
    wavs = {utt: tags.wavs[utt] for utt in kept}
    labels = {utt: tags.labels[utt] for utt in kept}
    estimates = {utt: tags.estimates[utt] for utt in kept}
    notes = []
    if narrowed:
        copies = args.telephone_dir / name
        file_of = {utt: utt.replace("%", "%25").replace("/", "%2F") + ".wav" for utt in narrowed}
        with publish_dir(copies) as folder:
            jobs = {
                utt: (tags.wavs[utt], folder / file_of[utt], args.telephone_codec)
                for utt in sorted(narrowed)
            }
            made = each_file(narrow_file, jobs, nj=args.nj, label=f"{name}: telephone")
            estimates.update(made)
        for utt in narrowed:
            wavs[utt], labels[utt] = str(copies / file_of[utt]), "nb"
        notes += [
            "",
            f"{len(narrowed)} wideband utterances of this set are simulated telephone copies "
            f"({args.telephone_codec}, 8 kHz, 300-3400 Hz; seed {args.seed}); they count as nb.",
        ]
    spared = sum(label == "nb" for label in tags.labels.values())
    if spared and args.telephone_share > 0:
        what = "kept as they are" if len(kept) == len(tags.wavs) else "left out of this set"
        notes += ["", f"{spared} utterances are narrowband already and not narrowed: {what}."]
    with publish_dir(args.out / name) as folder:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in OWN_TABLES and path.suffix != ".partial":
                copy_table(path, folder / path.name, tags.wavs, kept)
        write_table(folder / "wav.scp", wavs)
        write_table(folder / "utt2fs", {utt: tags.rates[utt] for utt in kept})
        write_table(folder / "utt2bw", labels)
        write_table(
            folder / "utt2edge",
            {utt: f"{e.edge_hz:.0f} {e.confidence:.2f}" for utt, e in estimates.items()},
        )
        write_text(folder / "bandwidth_report.md", report(name, tags, notes))
    count = Counter(labels.values())
    to_check = str(len(listed_cases(tags)))
    row = [name, str(len(kept)), str(count["nb"]), str(count["wb"])]
    return [*row, str(len(narrowed)), to_check]


def tag_all(args: argparse.Namespace) -> list[list[str]]:
    """Tag every set; returns the rows of the summary."""
    rows = []
    share = args.telephone_share
    tested = dict.fromkeys(args.test_sets.split())
    tags_of = {
        name: tag_set(args.data / name, nj=args.nj)
        for name in dict.fromkeys((args.train_set, args.valid_set, *tested))
    }
    for name in dict.fromkeys((args.train_set, args.valid_set)):
        tags = tags_of[name]
        wide = {utt for utt, label in tags.labels.items() if label == "wb"}
        narrowed = choose(wide, share, args.seed)
        rows.append(
            write_set(args.data / name, name, tags, args, kept=tags.wavs, narrowed=narrowed)
        )
    for name in tested:
        source, tags = args.data / name, tags_of[name]
        if share == 0:
            if name not in (args.train_set, args.valid_set):
                rows.append(write_set(source, name, tags, args, kept=tags.wavs, narrowed=()))
            continue
        wide = {utt for utt, label in tags.labels.items() if label == "wb"}
        if not wide:
            raise DataError(
                f"test set {name!r} ({source}) has no wideband utterance, so there is nothing to "
                "narrow; tag it in a run of its own with --telephone_share 0"
            )
        rows.append(write_set(source, f"{name}_wb", tags, args, kept=wide, narrowed=()))
        rows.append(write_set(source, f"{name}_nb", tags, args, kept=wide, narrowed=wide))
    return rows


def summary(header: list[str], rows: list[list[str]]) -> str:
    """A plain-text table, the first column left-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *cells])

    return "\n".join(line(row) for row in [header, *rows])


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="stage 1's directory")
    parser.add_argument("--out", type=Path, default=Path("dump/tagged"))
    parser.add_argument("--telephone_dir", type=Path, help="default: telephone, beside --out")
    parser.add_argument("--train_set", default="train")
    parser.add_argument("--valid_set", default="valid")
    parser.add_argument("--test_sets", default="test", help="names between spaces")
    parser.add_argument(
        "--telephone_share", type=float, default=0.0, help="0: no simulation; at most 1"
    )
    parser.add_argument("--telephone_codec", choices=sorted(TELEPHONE_CODECS), default="ulaw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nj", type=int, default=2, help="number of processes")
    args = parser.parse_args(argv)
    if not 0 <= args.telephone_share <= 1:
        parser.error(f"--telephone_share {args.telephone_share}: accepted is 0 to 1")
    if args.nj < 1:
        parser.error(f"--nj {args.nj}: accepted is 1 or more")
    args.telephone_dir = args.telephone_dir or args.out.parent / "telephone"
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    args = parse(argv)
    try:
        rows = tag_all(args)
    except (DataError, AudioError) as error:
        print(f"tag_bandwidth.py: error: {error}", file=sys.stderr)
        return 1
    print(summary(["set", "utterances", "nb", "wb", "simulated nb", "to look at"], rows))
    print(f"Reports: {args.out}/<set>/bandwidth_report.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
