"""Where an utterance's audio lies: a value of ``wav.scp``, and how its samples are fetched.

A locator is one of

- ``audio/a.flac``: a file that libsndfile decodes;
- ``audio/a.ark:1234``: an entry of a Kaldi archive, read with kaldiio;
- ``sph2pipe -f wav a.sph |``: a shell command that writes an audio file, as in Kaldi;

and behind it, where the utterance is a part of the recording, a fragment in the manner of W3C
Media Fragments: ``#t=12.5,17.25`` (seconds), ``#channel=2`` (the first is 1), or both,
``#t=12.5,17.25&channel=2``. A locator without a fragment is what stock ESPnet reads too.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

ARK_ENTRY = re.compile(r"\.ark:\d+$")
NUMBER = r"\d+(?:\.\d+)?"
FRAGMENT = re.compile(rf"#(?:t=({NUMBER}),({NUMBER}))?(?:(?:(?<=#)|&)channel=(\d+))?$")
OVERSHOOT_SECONDS = 0.5  # an end so far behind the recording's is taken for its end, as Kaldi does
WHOLE = "accepted is the whole file"
MOST_FRAMES = 1 << 40  # libsndfile has 2 ** 63 - 1 for a length that is not known
LOSSY = ("OGG", "MPEG", "MP3")  # containers whose length in the header is an estimate


class AudioError(ValueError):
    """An audio file cannot be used, or a value given to an audio function is impossible."""


@dataclass(frozen=True)
class AudioHeader:
    """What a file says about itself.

    Attributes:
        rate: Sampling rate in Hz.
        channels: Number of channels; 1 when the locator picks one.
        frames: Samples per channel, of the part that the locator names.
        format: libsndfile's name of the container, e.g. ``"FLAC"``; ``"ARK"``.
        subtype: libsndfile's name of the coding, e.g. ``"PCM_16"``.
    """

    rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def exact(self) -> bool:
        """The number of frames is certain; Ogg and MP3 files only estimate it."""
        return self.format not in LOSSY


@dataclass(frozen=True)
class Locator:
    """A parsed locator.

    Attributes:
        source: The recording: a path, ``file.ark:offset`` or ``command |``.
        start: Where the utterance begins, seconds; None: the whole recording.
        end: Where it ends, seconds.
        channel: Its channel, counted from 1; None: the recording has one.
    """

    source: str
    start: float | None = None
    end: float | None = None
    channel: int | None = None

    @property
    def is_command(self) -> bool:
        """The source is a shell command."""
        return self.source.endswith("|")

    @property
    def is_part(self) -> bool:
        """The locator names a part of the recording, which stock ESPnet cannot read."""
        return self.start is not None or self.channel is not None

    def __str__(self) -> str:
        parts = []
        if self.start is not None:
            parts.append(f"t={_seconds(self.start)},{_seconds(self.end)}")
        if self.channel is not None:
            parts.append(f"channel={self.channel}")
        return self.source + ("#" + "&".join(parts) if parts else "")


def _seconds(value: float | None) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def parse_locator(text: str | Path) -> Locator:
    """Read a locator; a text without a fragment is the source as it stands.

    Raises:
        AudioError: A fragment whose end is not behind its start, or channel 0.
    """
    text = str(text).strip()
    found = FRAGMENT.search(text)
    if not found or found.end() - found.start() < 2:
        return Locator(text)
    start, end, channel = found.groups()
    if start is not None and float(end) <= float(start):
        raise AudioError(f"{text!r}: the part ends at {end} s, not behind its start {start} s")
    if channel is not None and int(channel) < 1:
        raise AudioError(f"{text!r}: channel {channel}; the first channel is 1")
    return Locator(
        text[: found.start()],
        None if start is None else float(start),
        None if end is None else float(end),
        None if channel is None else int(channel),
    )


def _run(command: str) -> bytes:
    """What a command writes."""
    done = subprocess.run(command.rstrip().rstrip("|"), shell=True, capture_output=True)
    if done.returncode != 0 or not done.stdout:
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise AudioError(f"its command ended with status {done.returncode}: {tail[0]}")
    return done.stdout


# The parts and channels of a recording, and its header and samples, come one after the other.
_output_of = lru_cache(maxsize=1)(_run)


def _ark_entry(path: str) -> tuple[np.ndarray, int]:
    """Samples float32 (N,) or (N, channels), and the rate."""
    found = os.stat(ARK_ENTRY.sub(".ark", path))
    return _read_ark_entry(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)
def _read_ark_entry(path: str, *state: int) -> tuple[np.ndarray, int]:
    import kaldiio

    first, second = kaldiio.load_mat(path)
    samples, rate = (second, first) if isinstance(first, int) else (first, second)
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
    return np.asarray(samples, dtype=np.float32), int(rate)


def _range(where: Locator, rate: int, frames: int) -> tuple[int, int]:
    """First sample and number of samples of the part."""
    if frames > MOST_FRAMES:
        raise AudioError(
            "its header does not say how long it is (a FLAC file that was written to a pipe); "
            "accepted is one that does: decode and encode it again"
        )
    if where.start is None or where.end is None:
        return 0, frames
    first, last = round(where.start * rate), round(where.end * rate)
    if first >= frames or last > frames + OVERSHOOT_SECONDS * rate:
        raise AudioError(
            f"the part {_seconds(where.start)} to {_seconds(where.end)} s lies outside the "
            f"recording, which has {frames / rate:.2f} s"
        )
    return first, min(last, frames) - first


def _one_channel(where: Locator, channels: int) -> int:
    if where.channel is not None and where.channel > channels:
        raise AudioError(f"channel {where.channel} is asked for; the recording has {channels}")
    return 1 if where.channel is not None else channels


def _open(where: Locator, *, once: bool = False) -> soundfile.SoundFile:
    """The file, or what the command writes: `once` it is run anew and its output is not kept."""
    if where.is_command:
        run = _run if once and not where.is_part else _output_of
        return soundfile.SoundFile(io.BytesIO(run(where.source)))
    return soundfile.SoundFile(where.source)


def header_of(where: Locator) -> AudioHeader:
    """The header of what a locator names, without decoding its samples (a command is run)."""
    if ARK_ENTRY.search(where.source):
        samples, rate = _ark_entry(where.source)
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        count = _range(where, rate, len(samples))[1]
        return AudioHeader(rate, _one_channel(where, channels), count, "ARK", "")
    with _open(where) as file:
        count = _range(where, file.samplerate, file.frames)[1]
        channels = _one_channel(where, file.channels)
        return AudioHeader(file.samplerate, channels, count, file.format, file.subtype)


def samples_of(where: Locator) -> tuple[np.ndarray, int]:
    """The samples that a locator names.

    Returns:
        float32 (N,) or (N, channels), and the sampling rate in Hz.

    Raises:
        AudioError: The part lies outside the recording, or the file is cut short.
        soundfile.SoundFileError, OSError: It cannot be read.
    """
    if ARK_ENTRY.search(where.source):
        x, rate = _ark_entry(where.source)
        first, count = _range(where, rate, len(x))
        x = x[first : first + count]
    else:
        with _open(where) as file:
            rate = file.samplerate
            first, count = _range(where, rate, file.frames)
            if first:
                file.seek(first)
            x = file.read(count if where.start is not None else -1, dtype="float32")
            if len(x) < count and file.format not in LOSSY:
                raise AudioError(
                    f"is cut short: {len(x)} of the {count} samples it promises; {WHOLE}"
                )
    channels = 1 if x.ndim == 1 else x.shape[1]
    _one_channel(where, channels)
    if where.channel is not None and x.ndim == 2:
        x = x[:, where.channel - 1]
    return x, rate


def blocks_of(where: Locator, seconds: float) -> Iterator[tuple[np.ndarray, int]]:
    """The samples that a locator names, block by block; a file is never held as a whole.

    Args:
        where: The locator.
        seconds: Length of a block.

    Yields:
        float32 (N, channels), C-ordered, N = ``seconds`` of samples (fewer in the last block),
        and the sampling rate in Hz. The locator's channel, if any, is the only one.

    Raises:
        AudioError, soundfile.SoundFileError, OSError: As `samples_of`; a file that is cut short
            raises behind its last block.
    """
    if ARK_ENTRY.search(where.source):
        x, rate = samples_of(where)
        x = x[:, None] if x.ndim == 1 else x
        size = max(1, round(seconds * rate))
        for start in range(0, len(x), size):
            yield np.ascontiguousarray(x[start : start + size]), rate
        return
    with _open(where, once=True) as file:
        rate = file.samplerate
        first, count = _range(where, rate, file.frames)
        _one_channel(where, file.channels)
        if first:
            file.seek(first)
        done, size = 0, max(1, round(seconds * rate))
        while done < count:
            wanted = min(size, count - done)
            try:
                x = file.read(wanted, dtype="float32", always_2d=True)
            except soundfile.SoundFileError as error:  # what came before in the block is lost
                reason = str(error).split(": ", 1)[-1].strip()
                raise AudioError(
                    f"is cut short or damaged: {done} of the {count} samples it promises came "
                    f"before the error ({reason}); {WHOLE}"
                ) from error
            if len(x):
                done += len(x)
                if where.channel is not None:
                    x = np.ascontiguousarray(x[:, where.channel - 1 : where.channel])
                yield x, rate
            if len(x) < wanted:
                break
        if done < count and file.format not in LOSSY:
            raise AudioError(f"is cut short: {done} of the {count} samples it promises; {WHOLE}")
