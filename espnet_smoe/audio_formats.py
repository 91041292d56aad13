"""What stage 3 does with one utterance: write a file, make an archive's entry, or look at it.

In the package, not beside the stage's program, so that workers on other machines find it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet_smoe.audio import (
    AudioError,
    read_at,
    read_header,
    samples_at,
    to_int16,
    write_audio,
)
from espnet_smoe.faults import Fault, fault_of
from espnet_smoe.locator import parse_locator
from espnet_smoe.tables import Broken, Value

FORMATS = ("flac", "flac.ark", "wav.ark", "none")


class Job(NamedTuple):
    """What to do with one utterance.

    Attributes:
        utt: The utterance that it is a copy of, or is.
        source: Its locator.
        fs: The rate wanted, in Hz.
        speed: How fast to play it.
        target: The file to write, or ``flac`` or ``wav`` for an entry of an archive of those.
    """

    utt: str
    source: Value
    fs: int
    speed: float
    target: str


@dataclass
class Done:
    """What has been done: where the audio is, how long, its peak before clipping."""

    samples: int
    peak: float = 0.0
    entry: bytes = b""


def source_of(job: Job) -> str:
    """The job's locator.

    Raises:
        AudioError: Its line of wav.scp cannot be used.
    """
    if isinstance(job.source, Broken):
        raise AudioError(job.source.reason)
    return job.source


def load(job: Job) -> tuple[np.ndarray, float]:
    """The samples at the wanted rate, and their peak."""
    x = read_at(source_of(job), job.fs, utt=job.utt, speed=job.speed)
    return x, float(np.abs(x).max())


def format_file(utt: str, job: Job) -> Done:
    """Write one file."""
    x, peak = load(job)
    try:
        write_audio(job.target, x, job.fs)
    except AudioError as error:  # a full disk, not the utterance's fault
        raise OSError(str(error)) from error
    return Done(len(x), peak)


def format_entry(utt: str, job: Job) -> Done:
    """Make an entry of a Kaldi archive."""
    import kaldiio

    x, peak = load(job)
    entry = io.BytesIO()
    kaldiio.save_ark(
        entry,
        {utt: (job.fs, to_int16(x))},
        write_function="soundfile",
        write_kwargs={"format": job.target, "subtype": "PCM_16"},
    )
    return Done(len(x), peak, entry.getvalue())


def keep(utt: str, job: Job) -> Done:
    """Leave the audio where it is; decode it only when its header does not tell its length.

    Stage 2 has decoded all of it.
    """
    source = source_of(job)
    header = read_header(source, utt=job.utt)
    if not header.exact or header.channels != 1 or parse_locator(source).is_command:
        return Done(len(read_at(source, job.fs, utt=job.utt)))
    samples = samples_at(header, job.fs)
    if samples == 0:
        raise AudioError(f"is too short for {job.fs} Hz")
    return Done(samples)


def work_of(audio_format: str) -> Callable[[str, Job], Done]:
    """The work on each utterance for one of `FORMATS`."""
    work = {"flac": format_file, "none": keep}
    return work.get(audio_format, format_entry)


def fault_in(wav_scp: Path, utt: str, job: Job, error: AudioError) -> Fault:
    """The fault of an utterance that cannot be used; copies of one have the same."""
    if isinstance(job.source, Broken):
        return Fault(job.utt, str(wav_scp), job.source.reason)
    error = AudioError(str(error).removeprefix(f"utterance {utt!r}: "))
    return fault_of(job.utt, job.source, error)
