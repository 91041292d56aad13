#!/usr/bin/env python3
"""Stage 1 for anything listed in manifests: DIR/<set>.tsv or DIR/<set>.jsonl, a row a text.

Columns of the TSV (its first line names them, in any order; no quoting) or keys of each JSON
object::

    audio        a locator; a relative path is relative to the manifest
    offset       seconds; empty with an empty duration: the whole audio
    duration     seconds
    src_lang     es or spa
    transcript   what is said
    tgt_lang     en or eng; empty: no translation, a row for asr only
    translation  what it means
    bandwidth    optional: nb or wb
    speaker      optional
    id           optional; else made of the audio's name, the offset and a hash

Rows of one (audio, offset, duration, id) are one utterance: each tgt_lang a translation, a
tgt_lang again a further reference. Any number of rows fits in memory: they are sorted through
files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from corpus import BANDWIDTHS, Utterance, get_parser, require_dir, run, usable, write_set
from languages import language, translation_task
from recordings import part
from spill import Sorter

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault
from espnet_smoe.locator import ARK_ENTRY, parse_locator

REQUIRED = ("audio", "src_lang", "transcript")
OPTIONAL = ("offset", "duration", "tgt_lang", "translation", "bandwidth", "speaker", "id")
COLUMNS = REQUIRED + OPTIONAL
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
NAME_LENGTH = 60  # of an id made of an audio's name
SOURCE = (
    "a folder with <set>.tsv or <set>.jsonl for each set, of the columns "
    f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
)


def find_manifest(directory: Path, name: str) -> Path:
    """The manifest of a set.

    Raises:
        DataError: There is none, or there are two.
    """
    found = [p for s in ("tsv", "jsonl") if (p := directory / f"{name}.{s}").is_file()]
    if len(found) != 1:
        has = "both" if found else "neither"
        raise DataError(
            f"--corpus_dir {directory}: it has {has} {name}.tsv and {name}.jsonl; expected {SOURCE}"
        )
    return found[0]


def read_rows(path: Path, faults: list[Fault]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values of every row, missing ones ``""``."""
    with path.open("rb") as file:
        header: list[str] = []
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                faults.append(Fault("", f"{path}:{number}", f"not UTF-8 at byte {error.start}"))
                continue
            if path.suffix == ".tsv" and number == 1:
                header = _header(path, line.split("\t"))
                continue
            if not line.strip():
                continue
            try:
                values = _json_row(line) if path.suffix == ".jsonl" else _tsv_row(line, header)
            except ValueError as error:
                faults.append(Fault("", f"{path}:{number}", str(error)))
                continue
            yield number, values


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    lacking = [name for name in REQUIRED if name not in names]
    if lacking or len(set(names)) < len(names):
        raise DataError(
            f"{path}:1: columns {names} lack {lacking or 'nothing but hold one twice'}; expected "
            f"{', '.join(COLUMNS)}, separated by tabs"
        )
    ignored = [name for name in names if name not in COLUMNS]
    if ignored:
        print(f"{path}: columns not read: {', '.join(ignored)}")
    return names


def _tsv_row(line: str, header: list[str]) -> dict[str, str]:
    values = line.split("\t")
    if len(values) != len(header):
        raise DataError(f"{len(values)} columns; expected {len(header)}, separated by tabs")
    return dict(zip(header, map(str.strip, values), strict=True))


def _json_row(line: str) -> dict[str, str]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"a JSON {type(row).__name__}; expected an object")
    values = {name: row.get(name) for name in COLUMNS}
    odd = [n for n, v in values.items() if isinstance(v, (list, dict, bool))]
    if odd:
        raise DataError(f"{odd[0]} is {values[odd[0]]!r}; expected text or a number")
    return {name: "" if v is None else str(v).strip() for name, v in values.items()}


def utterance(row: dict[str, str], file: str, root: Path) -> Utterance:
    """The utterance of one row, with at most one translation.

    Raises:
        ValueError: A value that cannot be used.
    """
    get = {name: row.get(name, "") for name in COLUMNS}
    empty = [name for name in REQUIRED if not get[name]]
    if empty:
        raise DataError(f"empty {', '.join(empty)}")
    if get["tgt_lang"] and not get["translation"]:
        raise DataError(f"tgt_lang {get['tgt_lang']!r} with an empty translation")
    if get["translation"] and not get["tgt_lang"]:
        raise DataError("a translation with an empty tgt_lang")
    if get["bandwidth"] not in ("", *BANDWIDTHS):
        raise DataError(f"bandwidth {get['bandwidth']!r}; expected nb, wb or nothing")
    if len(get["speaker"].split()) > 1:
        raise DataError(f"speaker {get['speaker']!r}; expected no white space")
    where = parse_locator(get["audio"])
    source = where.source if where.is_command else str(root / where.source)
    audio = str(replace(where, source=source))
    if get["duration"]:
        start, length = _number(get, "offset"), _number(get, "duration")
        if where.start is not None:
            raise DataError(f"audio {get['audio']!r} names a part; so do offset and duration")
        audio = part(source, start, start + length, where.channel)
    elif get["offset"] and _number(get, "offset") > 0:
        raise DataError(f"offset {get['offset']} without a duration")
    translations: tuple[tuple[str, str], ...] = ()
    if get["tgt_lang"]:
        translations = ((translation_task(get["tgt_lang"]), get["translation"]),)
    return Utterance(
        get["id"] or made_id(get["audio"], audio.removeprefix(source)),
        audio,
        language(get["src_lang"]),
        get["transcript"],
        translations,
        speaker=get["speaker"],
        bandwidth=get["bandwidth"],
        file=file,
    )


def _number(values: dict[str, str], name: str) -> float:
    try:
        return float(values[name] or 0)
    except ValueError as error:
        raise DataError(f"{name} {values[name]!r}; expected seconds") from error


def made_id(audio: str, fragment: str) -> str:
    """An id that depends on nothing but the row's own audio, offset and duration.

    The parts of a recording sort in their order.
    """
    where = parse_locator(audio)
    digest = hashlib.sha256(f"{where.source}{fragment}".encode()).hexdigest()[:10]
    words = where.source.split()[-2:-1] if where.is_command else [where.source]
    name = Path(ARK_ENTRY.sub("", words[0] if words else "")).name.rpartition(".")
    stem = UNSAFE.sub("_", name[0] or name[2]).strip("._-")[:NAME_LENGTH] or "audio"
    start = parse_locator(f"x{fragment}").start
    return f"{stem}-{digest}" if start is None else f"{stem}-{round(1000 * start):08}-{digest}"


def read_set(path: Path, faults: list[Fault], *, work: Path) -> Iterator[Utterance]:
    """The utterances of a manifest, rows of one utterance put together."""
    sorter = Sorter(work)
    for number, row in read_rows(path, faults):
        file = f"{path}:{number}"
        try:
            u = utterance(row, file, path.parent)
        except ValueError as error:
            faults.append(Fault(row.get("id", ""), file, str(error)))
            continue
        record = [u.language, u.transcript, u.translations, u.speaker, u.bandwidth, number]
        sorter.add(json.dumps([u.utt, u.audio]), json.dumps(record))
    for key, rows in groupby(sorter, key=lambda pair: pair[0]):
        utt, audio = json.loads(key)
        whole: Utterance | None = None
        for _, record in rows:
            language_, transcript, translations, speaker, bandwidth, number = json.loads(record)
            file = f"{path}:{number}"
            u = Utterance(
                utt,
                audio,
                language_,
                transcript,
                tuple((task, text) for task, text in translations),
                speaker=speaker,
                bandwidth=bandwidth,
                file=file,
            )
            if whole is None:
                whole = u
            elif replace(u, translations=(), file="") != replace(whole, translations=(), file=""):
                reason = "another src_lang, transcript, speaker or bandwidth than in"
                faults.append(Fault(utt, file, f"{reason} {whole.file}"))
            elif not u.translations or u.translations[0] in whole.translations:
                faults.append(Fault(utt, file, f"repeats {whole.file}"))
            else:
                whole = replace(whole, translations=whole.translations + u.translations)
        if whole is not None:
            yield whole


def main(argv: Sequence[str] | None = None) -> None:
    parser = get_parser(__doc__, text_case="raw")
    parser.add_argument("--sets", default="train valid test", help="names between spaces")
    args = parser.parse_args(argv)
    root = require_dir(args.corpus_dir, corpus="manifest", variable="", source=SOURCE)
    manifests = {name: find_manifest(root, name) for name in args.sets.split()}
    for name, path in manifests.items():
        faults: list[Fault] = []
        rows = read_set(path, faults, work=args.out)
        write_set(args.out / name, usable(rows, text_case=args.text_case, faults=faults), faults)


if __name__ == "__main__":
    run(main)
