"""The recordings that a user names: files, directories, ``wav.scp`` tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espnet_smoe.datadir import DataError, read_table

TABLE = ".scp"
# What libsndfile decodes and is audio beyond doubt (a .raw or .mat file may be anything).
SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".sph", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".w64", ".rf64", ".caf", ".voc"),
)


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe.

    Attributes:
        name: What messages and results call it: the path, or the id in a table.
        stem: What files that are written for it are called, without suffix; may hold ``/``.
        source: A path or another locator.
    """

    name: str
    stem: str
    source: str


def find_recordings(inputs: Iterable[str | Path]) -> list[Recording]:
    """List what a user names.

    Args:
        inputs: Audio files or other locators; directories, of which all audio files are taken, by
            their suffix; tables ``*.scp`` of ``<id> <locator>`` lines. A file that is not there is
            listed too: it counts as one that cannot be read.

    Raises:
        DataError: A directory without audio, a table that cannot be read, nothing at all.
    """
    found: list[Recording] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            found += _in_directory(path)
        elif path.suffix == TABLE:
            found += [Recording(utt, utt, source) for utt, source in read_table(path).items()]
        else:
            found.append(Recording(_shown(given), path.stem, str(given)))
    if not found:
        raise DataError("no recording is named")
    return found


def _in_directory(directory: Path) -> list[Recording]:
    paths = sorted(p for p in directory.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise DataError(
            f"directory {str(directory)!r} holds no audio; accepted are {' '.join(SUFFIXES)}"
        )
    return [
        Recording(_shown(path), path.relative_to(directory).with_suffix("").as_posix(), str(path))
        for path in paths
    ]


def _shown(path: str | Path) -> str:
    """A path as text that can be written; bytes that are no UTF-8 become question marks."""
    return str(path).encode("utf-8", "replace").decode("utf-8")
