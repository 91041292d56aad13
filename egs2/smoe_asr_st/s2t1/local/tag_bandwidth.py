#!/usr/bin/env python3
"""Stage 2: tag every utterance with its bandwidth, and simulate telephone speech.

The tags come from the original files, before any resampling or speed perturbation could move
the band's edge. Each set ``data/<set>`` becomes ``dump/tagged/<set>``: the same tables, and
``utt2fs`` (rate in the original file's header), ``utt2bw`` (nb or wb), ``utt2edge``
(``<utt> <edge in Hz> <confidence>``), ``bandwidth_report.md`` with its picture, and
``bandwidth_cases.tsv``, the files to look at. Utterances whose file cannot be used are left out
and noted in ``faults.jsonl``, which stage 7 lists.

A ``utt2bw`` of the data's own is kept, for the utterances that it has. Where a file's header and
its spectrum disagree, ``--on_conflict`` says who decides.

With ``--telephone_share`` above 0, that share of the wideband utterances of the training and
the validation set is replaced by telephone copies, and each test set T becomes T_wb and T_nb:
the same wideband utterances, as they are and through the telephone.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import bandwidth_report
import numpy as np
from bandwidth_report import Tag

from espnet_smoe.audio import AudioError, read_audio, write_audio
from espnet_smoe.bandwidth import BANDWIDTHS, BandwidthEstimate, measure
from espnet_smoe.datadir import DataError, publish_dir, read_table, write_table, write_text
from espnet_smoe.faults import FAULTS_NAME, Fault, read_faults, summary, write_faults
from espnet_smoe.tables import Broken, rows
from espnet_smoe.telephone import NB_RATE, Line, parse_codecs, telephone
from espnet_smoe.workers import each_item

OWN_TABLES = {
    *("wav.scp", "utt2fs", "utt2bw", "utt2edge", "bandwidth_report.md", FAULTS_NAME),
    *(bandwidth_report.CASES_NAME, bandwidth_report.PICTURE_NAME),
}
POLICIES = ("measured", "header", "error")
CONFLICTS_SHOWN = 20  # of --on_conflict error


@dataclass(frozen=True)
class TaggedSet:
    """What is known about a set's original files; every mapping is by utterance id."""

    wavs: dict[str, str]
    tags: dict[str, Tag]
    faults: list[Fault]
    known: set[str]  # every utterance of wav.scp, also those left out

    @property
    def wide(self) -> set[str]:
        """The wideband utterances."""
        return {utt for utt, tag in self.tags.items() if tag.label == "wb"}


def measure_file(utt: str, path: str) -> tuple[int, BandwidthEstimate]:
    """The rate in the file's header, and what its spectrum holds."""
    x, rate = read_audio(path)
    return rate, measure(x, rate)


def narrow_file(utt: str, job: tuple[str, str, Line]) -> BandwidthEstimate:
    """Write the telephone copy of a file; measures it."""
    source, target, line = job
    x, rate = read_audio(source)
    narrow = telephone(x, rate, line=line)
    write_audio(target, narrow, NB_RATE)
    return measure(narrow, NB_RATE)


def line_of(utt: str, args: argparse.Namespace) -> Line:
    """The telephone line of an utterance: always the same one for the same seed."""
    digest = hashlib.sha256(f"line {args.seed} {utt}".encode()).digest()
    return Line.random(
        np.random.default_rng(int.from_bytes(digest[:8], "big")),
        args.telephone_codecs,
        random_level=args.telephone_level == "true",
        noise_prob=args.telephone_noise,
    )


def reject_segments(source: Path) -> None:
    """Refuse a data directory whose wav.scp names recordings rather than utterances."""
    if (source / "segments").exists():
        raise DataError(
            f"{source / 'segments'}: segments are not read here; let stage 1 turn them into "
            "locators (--corpus kaldi)"
        )


def own_labels(source: Path, wavs: Collection[str]) -> dict[str, str]:
    """The data's own ``utt2bw``; it may cover some of the utterances only.

    Raises:
        DataError: A value that is no bandwidth, or an utterance without audio.
    """
    path = source / "utt2bw"
    if not path.exists():
        return {}
    labels = read_table(path)
    for utt, label in labels.items():
        if label not in BANDWIDTHS:
            raise DataError(
                f"{path}: utterance {utt!r} has bandwidth {label!r}; accepted: "
                f"{', '.join(BANDWIDTHS)}"
            )
        if utt not in wavs:
            raise DataError(f"{path}: utterance {utt!r} is not in {source / 'wav.scp'}")
    if len(labels) < len(wavs):
        print(f"{path}: {len(labels)} of {len(wavs)} utterances; the others are measured")
    return labels


def tag_set(source: Path, args: argparse.Namespace) -> TaggedSet:
    """Measure every file of a data directory.

    Raises:
        DataError: The directory is empty or segmented, its utt2bw is wrong, none of its files can
            be used, or header and spectrum disagree under ``--on_conflict error``.
    """
    reject_segments(source)
    faults = read_faults(source)
    wavs: dict[str, str] = {}
    broken = set()
    for utt, wav in rows(source / "wav.scp", faults.append):
        if isinstance(wav, Broken):
            faults.append(Fault(utt, str(source / "wav.scp"), wav.reason))
            broken.add(utt)
        else:
            wavs[utt] = wav
    if not wavs:
        raise DataError(f"{source / 'wav.scp'} is empty; it needs a line per utterance")
    labels = own_labels(source, wavs)
    tags: dict[str, Tag] = {}
    unusable = []
    for utt, result in each_item(
        measure_file, wavs.items(), nj=args.nj, dask=args.dask, label=f"{source.name}: tag"
    ):
        if isinstance(result, ValueError):
            unusable.append(Fault(utt, wavs[utt], str(result)))
            continue
        rate, estimate = result
        by_policy = Tag(rate, estimate, estimate.likelier, False)
        if args.on_conflict == "header":
            by_policy = by_policy._replace(label=by_policy.by_header)
        given = labels.get(utt)
        tags[utt] = by_policy._replace(label=given, given=True) if given else by_policy
    if unusable:
        what = f"{source}: {len(unusable)} of {len(wavs)} audio files cannot be used"
        print(f"tag_bandwidth.py: {summary(unusable, what)}", file=sys.stderr)
    if not tags:
        raise DataError(f"{source}: none of its {len(wavs)} audio files can be used")
    conflicts = [utt for utt, tag in tags.items() if tag.is_conflict and not tag.given]
    if conflicts and args.on_conflict == "error":
        known = {utt: tags[utt] for utt in conflicts}
        lines = [", ".join(row) for row in bandwidth_report.cases(wavs, known)]
        more = len(lines) - CONFLICTS_SHOWN
        raise DataError(
            f"{source}: the header and the spectrum of {len(conflicts)} files disagree "
            f"(--on_conflict error): {', '.join(bandwidth_report.CASE_COLUMNS)}\n  "
            + "\n  ".join(lines[:CONFLICTS_SHOWN])
            + (f"\n  ... and {more} more" if more > 0 else "")
        )
    return TaggedSet(wavs, tags, faults + unusable, broken | wavs.keys())


def choose(utts: Collection[str], share: float, seed: int) -> set[str]:
    """A seeded share of utterances: exact in number, whatever order they come in."""

    def rank(utt: str) -> bytes:
        return hashlib.sha256(f"{seed} {utt}".encode()).digest()

    return set(sorted(utts, key=rank)[: round(share * len(utts))])


def copy_table(path: Path, target: Path, known: Collection[str], kept: Collection[str]) -> None:
    """Copy a file; of a table keyed by utterance, without the known ones that are not kept.

    A line of an utterance that has no audio at all is copied: stage 4 notes it.
    """
    if len(kept) == len(known):
        shutil.copyfile(path, target)
        return
    with path.open("rb") as file, target.open("wb") as out:
        for line in file:
            utt = b"".join(line.split(maxsplit=1)[:1]).decode("utf-8", "replace")
            if utt not in known or utt in kept:
                out.write(line)


def narrow_set(
    tagged: TaggedSet, name: str, narrowed: Collection[str], args: argparse.Namespace
) -> Iterator[tuple[str, str, BandwidthEstimate | ValueError]]:
    """Write the telephone copies of a set: utterance, file, and what is measured there."""
    copies = args.telephone_dir / name
    file_of = {utt: utt.replace("%", "%25").replace("/", "%2F") + ".flac" for utt in narrowed}
    with publish_dir(copies) as folder:
        folder = folder.resolve()  # a dask worker has a working directory of its own
        jobs = (
            (utt, (tagged.wavs[utt], str(folder / file_of[utt]), line_of(utt, args)))
            for utt in sorted(narrowed)
        )
        for utt, result in each_item(
            narrow_file,
            jobs,
            nj=args.nj,
            dask=args.dask,
            label=f"{name}: telephone",
            total=len(narrowed),
        ):
            yield utt, str(copies / file_of[utt]), result


def write_set(
    source: Path,
    name: str,
    tagged: TaggedSet,
    args: argparse.Namespace,
    *,
    kept: Collection[str],
    narrowed: Collection[str],
) -> list[str]:
    """Write one tagged set.

    Args:
        source: The data directory that the set comes from.
        name: Name of the tagged set.
        tagged: What is known about the original files.
        args: The program's options.
        kept: The utterances that the set holds.
        narrowed: Those of them that are replaced by telephone copies.

    Returns:
        The set's row of the summary: name, utterances, nb, wb, simulated, files to look at.
    """
    wavs = {utt: tagged.wavs[utt] for utt in kept}
    labels = {utt: tagged.tags[utt].label for utt in kept}
    estimates = {utt: tagged.tags[utt].estimate for utt in kept}
    faults = list(tagged.faults)
    notes = []
    if narrowed:
        for utt, file, result in narrow_set(tagged, name, narrowed, args):
            if isinstance(result, ValueError):
                faults.append(Fault(utt, tagged.wavs[utt], f"cannot be narrowed: {result}"))
                del wavs[utt], labels[utt], estimates[utt]
            else:
                wavs[utt], labels[utt], estimates[utt] = file, "nb", result
        lines = ", ".join(args.telephone_codecs)
        notes += [
            "",
            f"{len(narrowed)} wideband utterances of this set are simulated telephone copies "
            f"({lines}, 8 kHz, 300-3400 Hz; seed {args.seed}); they count as nb.",
        ]
    spared = len(tagged.tags) - len(tagged.wide)
    if spared and args.telephone_share > 0:
        what = "kept as they are" if len(kept) == len(tagged.tags) else "left out of this set"
        notes += ["", f"{spared} utterances are narrowband already and not narrowed: {what}."]
    cases = list(bandwidth_report.cases(tagged.wavs, tagged.tags))
    with publish_dir(args.out / name) as folder:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name not in OWN_TABLES and path.suffix != ".partial":
                copy_table(path, folder / path.name, tagged.known, wavs.keys())
        write_table(folder / "wav.scp", wavs)
        write_table(folder / "utt2fs", {utt: tagged.tags[utt].rate for utt in wavs})
        write_table(folder / "utt2bw", labels)
        write_table(
            folder / "utt2edge",
            {utt: f"{e.edge_hz:.0f} {e.confidence:.2f}" for utt, e in estimates.items()},
        )
        write_faults(folder, faults)
        text = bandwidth_report.report(name, tagged.tags, cases, notes, args.on_conflict)
        write_text(folder / "bandwidth_report.md", text)
        with (folder / bandwidth_report.CASES_NAME).open("w", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerows([bandwidth_report.CASE_COLUMNS, *cases])
        picture = folder / bandwidth_report.PICTURE_NAME
        bandwidth_report.draw(picture, name, tagged.wavs, tagged.tags)
    count = Counter(labels.values())
    row = [name, str(len(wavs)), str(count["nb"]), str(count["wb"])]
    return [*row, str(len(narrowed)), str(len(cases))]


def tag_all(args: argparse.Namespace) -> list[list[str]]:
    """Tag every set; returns the rows of the summary."""
    table = []
    share = args.telephone_share
    tested = dict.fromkeys(args.test_sets.split())
    sets = {
        name: tag_set(args.data / name, args)
        for name in dict.fromkeys((args.train_set, args.valid_set, *tested))
    }
    for name in dict.fromkeys((args.train_set, args.valid_set)):
        tagged = sets[name]
        narrowed = choose(tagged.wide, share, args.seed)
        table.append(
            write_set(args.data / name, name, tagged, args, kept=tagged.tags, narrowed=narrowed)
        )
    for name in tested:
        source, tagged = args.data / name, sets[name]
        if share == 0:
            if name not in (args.train_set, args.valid_set):
                table.append(write_set(source, name, tagged, args, kept=tagged.tags, narrowed=()))
            continue
        wide = sorted(tagged.wide)
        if not wide:
            raise DataError(
                f"test set {name!r} ({source}) has no wideband utterance, so there is nothing to "
                "narrow; tag it in a run of its own with --telephone_share 0"
            )
        table.append(write_set(source, f"{name}_wb", tagged, args, kept=wide, narrowed=()))
        table.append(write_set(source, f"{name}_nb", tagged, args, kept=wide, narrowed=wide))
    return table


def aligned(header: list[str], table: list[list[str]]) -> str:
    """A plain-text table, the first column left-aligned."""
    widths = [max(len(row[column]) for row in [header, *table]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *cells])

    return "\n".join(line(row) for row in [header, *table])


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
    parser.add_argument(
        "--telephone_codec", default="ulaw", help="names between spaces, drawn evenly; or all"
    )
    parser.add_argument(
        "--telephone_level", choices=["true", "false"], default="false", help="draw a level too"
    )
    parser.add_argument(
        "--telephone_noise", type=float, default=0.0, help="share of the copies with line noise"
    )
    parser.add_argument(
        "--on_conflict",
        choices=POLICIES,
        default="measured",
        help="who decides when header and spectrum disagree; error: stop and list them",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nj", type=int, default=2, help="number of processes")
    parser.add_argument("--dask", help="work on a dask cluster: tcp://SCHEDULER:8786")
    args = parser.parse_args(argv)
    if not 0 <= args.telephone_share <= 1:
        parser.error(f"--telephone_share {args.telephone_share}: accepted is 0 to 1")
    if not 0 <= args.telephone_noise <= 1:
        parser.error(f"--telephone_noise {args.telephone_noise}: accepted is 0 to 1")
    try:
        args.telephone_codecs = parse_codecs(args.telephone_codec)
    except AudioError as error:
        parser.error(f"--telephone_codec: {error}")
    if args.nj < 1:
        parser.error(f"--nj {args.nj}: accepted is 1 or more")
    args.telephone_dir = args.telephone_dir or args.out.parent / "telephone"
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the stage; returns the exit code."""
    args = parse(argv)
    try:
        table = tag_all(args)
    except ValueError as error:
        print(f"tag_bandwidth.py: error: {error}", file=sys.stderr)
        return 1
    print(aligned(["set", "utterances", "nb", "wb", "simulated nb", "to look at"], table))
    print(f"Reports: {args.out}/<set>/bandwidth_report.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
