#!/usr/bin/env python3
"""Stage 1 for Europarl-ST (Iranzo-Sanchez et al., 2020): speeches in the European Parliament.

``--corpus europarl_st_<source>_<target>[_<target>...]``. ``--corpus_dir`` is the folder ``v1.1``
or holds it: ``<source>/<target>/{train,dev,test}/segments.{lst,<source>,<target>}``, a line of
``segments.lst`` being ``<speech> <start> <end>`` in seconds, and
``<source>/audios/<speech>.m4a``. libsndfile decodes no M4A: ``<speech>.flac`` or ``.wav`` beside
it (or in ``audios_wav/``) is preferred, else ffmpeg decodes it whenever it is read.

Writes ``<out>/{train,valid,test}``; ``valid`` is ``dev``.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from corpus import Utterance, get_parser, parallel_lines, read_lines, require_dir, run
from languages import language, pair, translation_task
from recordings import MissingProgram, Segments, part, part_id, write_segments

from espnet_smoe.datadir import DataError
from espnet_smoe.faults import Fault

SETS = {"test": "test", "dev": "valid", "train": "train"}
SOURCE = (
    "v1.1/<source>/<target>/{train,dev,test}/segments.{lst,<source>,<target>} and "
    "v1.1/<source>/audios/*.m4a of Europarl-ST (MLLP, www.mllp.upv.es/europarl-st; CC BY-NC 4.0)"
)


def find_source(root: Path, source: str, targets: Sequence[str]) -> Path:
    """The source language's folder.

    Raises:
        DataError: It lacks the audio, or a target's split.
    """
    places = (root / source, root / "v1.1" / source)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise DataError(f"--corpus_dir {root}: no folder {source}/; expected {SOURCE}")
    wanted = [folder / t / split / "segments.lst" for t in targets for split in SETS]
    lacking = [str(path) for path in (*wanted, folder / "audios") if not path.exists()]
    if lacking:
        raise DataError(f"no {', '.join(lacking)}; expected {SOURCE}")
    return folder


@lru_cache(maxsize=64)
def audio_of(folder: Path, speech: str) -> str:
    """The locator of a whole speech; a path that does not exist when there is none.

    Raises:
        MissingProgram: It is M4A and there is no ffmpeg.
    """
    for place in (folder / "audios", folder / "audios_wav"):
        for suffix in (".flac", ".wav"):
            if (place / f"{speech}{suffix}").is_file():
                return str(place / f"{speech}{suffix}")
    path = folder / "audios" / f"{speech}.m4a"
    if not path.is_file():
        return str(path)
    if shutil.which("ffmpeg") is None:
        raise MissingProgram(
            f"{path}: M4A needs ffmpeg, which is not on the PATH; install it, or convert the "
            f"audio beforehand: {folder}/audios/<speech>.flac or .wav"
        )
    return f"ffmpeg -nostdin -v error -i {shlex.quote(str(path))} -ac 1 -f wav - |"


def speakers_of(folder: Path) -> dict[str, str]:
    """``{speech: speaker}`` where the split lists both; else each speech is a speaker."""
    listings = (folder / "speeches.lst", folder / "speakers.lst")
    if not all(path.is_file() for path in listings):
        return {}
    speeches, speakers = map(read_lines, listings)
    if len(speeches) != len(speakers):
        return {}
    names = ("_".join(name.split()) for name in speakers)
    return dict(zip(map(str.strip, speeches), names, strict=True))


def read_split(
    folder: Path, codes: tuple[str, str], split: str, faults: list[Fault]
) -> Iterator[tuple[str, Utterance]]:
    """Speech and utterance of every segment of one split and target."""
    source, target = codes
    texts = folder / target / split
    speakers = speakers_of(texts)
    listing, *others = (texts / f"segments.{end}" for end in ("lst", *codes))
    for number, (line, transcript, translation) in enumerate(parallel_lines(listing, *others), 1):
        file = f"{listing}:{number}"
        try:
            speech, start, end = line.split()
            audio = audio_of(folder, speech)
            locator = part(audio, float(start), float(end))
            utt = part_id(speech, float(start), float(end))
        except MissingProgram:
            raise
        except ValueError as error:
            faults.append(Fault("", file, f"{line!r}: {error}; expected '<speech> <start> <end>'"))
            continue
        yield (
            speech,
            Utterance(
                utt,
                locator,
                language(source),
                transcript,
                ((translation_task(target), translation),),
                speaker=speakers.get(speech, speech),
                file=file,
            ),
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser(__doc__, text_case="raw").parse_args(argv)
    source, targets = pair(args.corpus, "europarl_st")
    root = require_dir(args.corpus_dir, corpus=args.corpus, variable="EUROPARL_ST", source=SOURCE)
    folder = find_source(root, source, targets)

    def read(split: str, faults: list[Fault]) -> Segments:
        for target in targets:
            yield from read_split(folder, (source, target), split, faults)

    write_segments(args.out, SETS, read, text_case=args.text_case)


if __name__ == "__main__":
    run(main)
