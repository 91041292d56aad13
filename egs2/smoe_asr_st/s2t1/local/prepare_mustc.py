#!/usr/bin/env python3
"""Stage 1 for MuST-C v1 and v2 (Di Gangi et al., 2019): TED talks, English to other languages.

``--corpus mustc_en_<target>[_<target>...]``. ``--corpus_dir`` holds ``en-<target>/`` as the
archives unpack (or is that folder itself), with ``data/<split>/txt/<split>.{yaml,en,<target>}``
and ``data/<split>/wav/ted_*.wav``. A line of the YAML is one segment::

    - {duration: 3.5, offset: 16.08, rW: 9, uW: 0, speaker_id: spk.767, wav: ted_767.wav}

Writes ``<out>/{train,valid,tst-COMMON,tst-HE}``; ``valid`` is ``dev``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus import Utterance, get_parser, parallel_lines, require_dir, run
from languages import language, pair, translation_task
from recordings import Segments, part, part_id, write_segments

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

SETS = {"tst-COMMON": "tst-COMMON", "tst-HE": "tst-HE", "dev": "valid", "train": "train"}
FIELD = re.compile(r"(\w+): *([^,{}]+)")
SOURCE = (
    "en-<target>/data/{train,dev,tst-COMMON,tst-HE}/{txt,wav} of MuST-C v1 or v2 (FBK, "
    "ict.fbk.eu/must-c; CC BY-NC-ND 4.0)"
)


def find_data(root: Path, target: str) -> Path:
    """The ``data`` folder of one target.

    Raises:
        DataError: It lacks a split.
    """
    name = f"en-{target}"
    places = [root / name / "data"] + ([root / "data"] if root.name == name else [])
    data = next((place for place in places if place.is_dir()), None)
    if data is None:
        raise DataError(f"--corpus_dir {root}: no {name}/data; expected {SOURCE}")
    lacking = [split for split in SETS if not (data / split / "txt" / f"{split}.yaml").is_file()]
    if lacking:
        missing = ", ".join(f"{data}/{split}/txt/{split}.yaml" for split in lacking)
        raise DataError(f"no {missing}; expected {SOURCE}")
    return data


def read_split(
    data: Path, codes: tuple[str, str], split: str, faults: list[Fault]
) -> Iterator[tuple[str, Utterance]]:
    """Recording and utterance of every segment of one split and target."""
    source, target = codes
    listing, *texts = (data / split / "txt" / f"{split}.{end}" for end in ("yaml", *codes))
    for number, (line, transcript, translation) in enumerate(parallel_lines(listing, *texts), 1):
        file = f"{listing}:{number}"
        fields = {key: value.strip().strip("'\"") for key, value in FIELD.findall(line)}
        try:
            start = float(fields["offset"])
            end = start + float(fields["duration"])
            recording = fields["wav"].removesuffix(".wav")
            audio = part(data / split / "wav" / fields["wav"], start, end)
        except KeyError as error:
            reason = f"{line!r} has no {error}; expected duration, offset, speaker_id, wav"
            faults.append(Fault("", file, reason))
            continue
        except ValueError as error:
            faults.append(Fault(fields.get("wav", ""), file, str(error)))
            continue
        yield (
            recording,
            Utterance(
                part_id(recording, start, end),
                audio,
                language(source),
                transcript,
                ((translation_task(target), translation),),
                speaker=fields.get("speaker_id", recording),
                file=file,
            ),
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser(__doc__, text_case="raw").parse_args(argv)
    source, targets = pair(args.corpus, "mustc")
    if source != "en":
        raise DataError(f"--corpus {args.corpus}: MuST-C's speech is English: mustc_en_<target>")
    root = require_dir(args.corpus_dir, corpus=args.corpus, variable="MUSTC", source=SOURCE)
    folders = {target: find_data(root, target) for target in targets}

    def read(split: str, faults: list[Fault]) -> Segments:
        for target, data in folders.items():
            yield from read_split(data, (source, target), split, faults)

    write_segments(args.out, SETS, read, text_case=args.text_case)


if __name__ == "__main__":
    run(main)
