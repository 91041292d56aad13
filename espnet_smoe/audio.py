"""Audio in and out: read any file, resample, simulate a telephone line, write whole files.

Everything is mono float32 in [-1, 1] with shape (N,), N samples, beside its sampling rate in
Hz. Files are read through libsndfile (WAV, FLAC, Ogg/Opus, MP3, uncompressed SPHERE, ...) and,
for ``file.ark:offset``, through kaldiio; nothing here imports torch.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr

TARGET_RATE = 16000  # Hz, the rate at which the model hears everything
NB_RATE = 8000  # Hz, the rate of a telephone line
TELEPHONE_BAND_HZ = (300.0, 3400.0)  # the pass band that ITU-T G.712 gives a voice channel
TELEPHONE_TRANSITION_HZ = 100.0  # width of each of the filter's slopes
TELEPHONE_STOP_DB = 60.0  # attenuation outside; G.711 itself has about 38 dB of SNR
TELEPHONE_CODECS = {"ulaw": "ULAW", "alaw": "ALAW"}  # name: libsndfile's subtype
ERRORS_SHOWN = 10  # unusable files listed in one message before "and N more"
PARENT_POLL_SECONDS = 0.1  # how often a worker process looks whether its parent lives
ARK_ENTRY = re.compile(r"\.ark:\d+$")  # a wav.scp value that points into a Kaldi archive


Job = TypeVar("Job")
Result = TypeVar("Result")


class AudioError(ValueError):
    """An audio file cannot be used, or a value given to an audio function is impossible."""


@dataclass(frozen=True)
class AudioHeader:
    """What a file says about itself.

    Attributes:
        rate: Sampling rate in Hz.
        channels: Number of channels.
        frames: Samples per channel.
        format: libsndfile's name of the container, e.g. ``"FLAC"``.
        subtype: libsndfile's name of the coding, e.g. ``"PCM_16"``.
    """

    rate: int
    channels: int
    frames: int
    format: str
    subtype: str


def _where(path: str | Path, utt: str | None) -> str:
    return f"utterance {utt!r}: audio file {str(path)!r}" if utt else f"audio file {str(path)!r}"


def _unreadable(path: str | Path, utt: str | None, error: Exception) -> AudioError:
    where = _where(path, utt)
    if str(path).rstrip().endswith("|"):
        return AudioError(f"{where} is a shell command; write its output to a file and name that")
    if not ARK_ENTRY.search(str(path)) and not Path(path).is_file():
        return AudioError(f"{where} does not exist")
    reason = str(error).split(": ", 1)[-1].strip() or type(error).__name__
    return AudioError(
        f"{where} cannot be read ({reason}); accepted is what libsndfile decodes: "
        "WAV, FLAC, Ogg/Opus, MP3, uncompressed SPHERE, ..."
    )


def _read_ark(path: str | Path, utt: str | None) -> tuple[np.ndarray, int]:
    import kaldiio

    try:
        first, second = kaldiio.load_mat(str(path))
    except Exception as error:  # kaldiio passes on whatever its decoder raises
        raise _unreadable(path, utt, error) from error
    samples, rate = (second, first) if isinstance(first, int) else (first, second)
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.float32(-float(np.iinfo(samples.dtype).min))
    return np.asarray(samples, dtype=np.float32), int(rate)


def read_header(path: str | Path, *, utt: str | None = None) -> AudioHeader:
    """Read a file's header without decoding its samples.

    Args:
        path: An audio file.
        utt: The utterance that the file belongs to, named in errors.

    Raises:
        AudioError: The file is missing, not audio, or holds no samples.
    """
    if ARK_ENTRY.search(str(path)):
        samples, rate = _read_ark(path, utt)
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        header = AudioHeader(rate, channels, len(samples), "ARK", "")
    else:
        try:
            info = soundfile.info(str(path))
        except (soundfile.SoundFileError, OSError) as error:
            raise _unreadable(path, utt, error) from error
        header = AudioHeader(info.samplerate, info.channels, info.frames, info.format, info.subtype)
    if header.frames <= 0:
        raise AudioError(f"{_where(path, utt)} holds no samples")
    return header


def read_audio(path: str | Path, *, utt: str | None = None) -> tuple[np.ndarray, int]:
    """Read a whole file.

    Args:
        path: A mono audio file, or ``file.ark:offset`` for an entry of a Kaldi archive.
        utt: The utterance that the file belongs to, named in errors.

    Returns:
        The samples, float32 (N,), and the sampling rate in Hz.

    Raises:
        AudioError: The file is missing, not audio, cut short, empty, has several channels, or
            holds NaN or infinite samples.
    """
    if ARK_ENTRY.search(str(path)):
        x, rate = _read_ark(path, utt)
        promised = len(x)
    else:
        try:
            with soundfile.SoundFile(str(path)) as file:
                rate, promised = file.samplerate, file.frames
                lossless = file.format not in ("OGG", "MPEG", "MP3")
                x = file.read(dtype="float32")
        except (soundfile.SoundFileError, OSError) as error:
            raise _unreadable(path, utt, error) from error
        if not lossless:
            promised = len(x)  # a lossy file's length is an estimate
    where = _where(path, utt)
    if x.ndim != 1:
        raise AudioError(
            f"{where} has {x.shape[1]} channels; accepted is 1: write each speaker's channel "
            "to a file of its own"
        )
    if len(x) == 0:
        raise AudioError(f"{where} holds no samples")
    if len(x) < promised:
        raise AudioError(f"{where} is cut short: {len(x)} of the {promised} samples it promises")
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        raise AudioError(f"{where} holds {len(bad)} NaN or infinite samples, the first at {bad[0]}")
    return x, rate


def _require_mono(x: np.ndarray, rate: int) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1:
        raise AudioError(f"audio has shape {x.shape}; accepted is one channel, shape (samples,)")
    if rate <= 0:
        raise AudioError(f"sampling rate {rate} is impossible; accepted is a positive rate in Hz")
    return x.astype(np.float32, copy=False)


def resample(x: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Resample with soxr's high-quality linear-phase filter.

    Args:
        x: Samples (N,).
        rate: Their rate in Hz.
        target: The rate wanted, in Hz.

    Returns:
        float32 (round(N * target / rate),); ``x`` itself when the rates are equal.
    """
    x = _require_mono(x, rate)
    if target <= 0:
        raise AudioError(f"target rate {target} is impossible; accepted is a positive rate in Hz")
    if rate == target:
        return x
    return np.asarray(soxr.resample(x, rate, target, quality="HQ"), dtype=np.float32)


@lru_cache(maxsize=1)
def _telephone_filter() -> np.ndarray:
    """Linear-phase band-pass at 8 kHz: an ideal band cut out by a Kaiser window (odd length)."""
    width = 2 * np.pi * TELEPHONE_TRANSITION_HZ / NB_RATE  # radians per sample
    half = int(np.ceil((TELEPHONE_STOP_DB - 7.95) / (2.285 * width))) // 2 + 1  # Kaiser's rule
    n = np.arange(-half, half + 1)
    low, high = (2 * edge / NB_RATE for edge in TELEPHONE_BAND_HZ)
    ideal = high * np.sinc(high * n) - low * np.sinc(low * n)
    return np.asarray(ideal * np.kaiser(len(n), 0.1102 * (TELEPHONE_STOP_DB - 8.7)))


def telephone(x: np.ndarray, rate: int, *, codec: str = "ulaw") -> np.ndarray:
    """Send audio through a simulated telephone line: 8 kHz, 300-3400 Hz, G.711.

    The codecs limit no band by themselves, so the filter comes first. Samples beyond full
    scale are clipped, as a line does.

    Args:
        x: Samples (N,).
        rate: Their rate in Hz.
        codec: ``"ulaw"`` (North America, Japan) or ``"alaw"`` (elsewhere).

    Returns:
        float32 (round(N * 8000 / rate),) at 8000 Hz, aligned in time with ``x``.

    Raises:
        AudioError: Unknown codec, or audio of several channels.
    """
    if codec not in TELEPHONE_CODECS:
        raise AudioError(
            f"telephone codec {codec!r} is unknown; accepted: {', '.join(TELEPHONE_CODECS)}"
        )
    narrow = resample(x, rate, NB_RATE)
    if len(narrow) == 0:
        return narrow
    taps = _telephone_filter()
    half = len(taps) // 2
    filtered = np.convolve(narrow, taps)[half : half + len(narrow)]
    memory = io.BytesIO()
    subtype = TELEPHONE_CODECS[codec]
    soundfile.write(memory, filtered.clip(-1, 1), NB_RATE, format="RAW", subtype=subtype)
    memory.seek(0)
    coded, _ = soundfile.read(
        memory, dtype="float32", format="RAW", subtype=subtype, samplerate=NB_RATE, channels=1
    )
    return np.asarray(coded)


def to_int16(x: np.ndarray) -> np.ndarray:
    """Round float samples to 16 bits; the inverse of what reading a 16-bit file does.

    Returns:
        int16 (N,). Samples beyond full scale are clipped.
    """
    return np.rint(np.asarray(x, dtype=np.float32) * 32768).clip(-32768, 32767).astype(np.int16)


def write_audio(path: str | Path, x: np.ndarray, rate: int, *, subtype: str = "PCM_16") -> None:
    """Write a mono file; it appears whole or not at all.

    Args:
        path: Where to; the suffix (``.wav``, ``.flac``, ...) chooses the container.
        x: Samples (N,) in [-1, 1].
        rate: Their rate in Hz.
        subtype: libsndfile's name of the coding, e.g. ``"PCM_16"`` or ``"ULAW"``.

    Raises:
        AudioError: The samples or the container and coding are impossible; names the file.
    """
    path = Path(path)
    x = _require_mono(x, rate)
    if not np.isfinite(x).all():
        raise AudioError(f"audio for {str(path)!r} holds NaN or infinite samples")
    container = path.suffix[1:].upper()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".partial")
    samples = to_int16(x) if subtype == "PCM_16" else x.clip(-1, 1)
    try:
        soundfile.write(str(part), samples, rate, format=container, subtype=subtype)
    except (soundfile.SoundFileError, ValueError) as error:
        part.unlink(missing_ok=True)
        raise AudioError(
            f"cannot write {str(path)!r} as {container or 'no suffix'}/{subtype} at {rate} Hz "
            f"({error}); accepted are libsndfile's containers and codings"
        ) from error
    os.replace(part, path)


def _attempt(work: Callable[[str, Job], Result], item: tuple[str, Job]) -> Result | AudioError:
    try:
        return work(*item)
    except AudioError as error:
        return error


def _die_with(parent: int) -> None:
    """Worker start-up: end when the parent was killed, so that no orphan writes into a rerun."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def each_file(
    work: Callable[[str, Job], Result], jobs: Mapping[str, Job], *, nj: int, label: str
) -> Iterator[tuple[str, Result]]:
    """Do something with the audio of every utterance, in ``nj`` processes, with a progress bar.

    A bad file does not hide the next one: the rest is worked through, then all are reported.

    Args:
        work: A picklable function of (utterance id, job), such as a module's own.
        jobs: ``{utterance id: job}``.
        nj: Number of processes; 1 works in this one.
        label: Text beside the progress bar.

    Yields:
        (utterance id, result) in the order of ``jobs``.

    Raises:
        AudioError: Names every utterance and file that cannot be used (the first 10, and how
            many more).
    """
    from tqdm import tqdm

    if nj < 1:
        raise AudioError(f"nj {nj} is impossible; accepted is the number of processes, 1 or more")
    errors: list[AudioError] = []
    attempt = partial(_attempt, work)
    with tqdm(total=len(jobs), desc=label, unit="utt", mininterval=1.0) as bar:

        def sift(results: Iterator[Result | AudioError]) -> Iterator[tuple[str, Result]]:
            for utt, result in zip(jobs, results, strict=True):
                bar.update()
                if isinstance(result, AudioError):
                    errors.append(result)
                else:
                    yield utt, result

        if nj == 1:
            yield from sift(map(attempt, jobs.items()))
        else:
            with ProcessPoolExecutor(nj, initializer=_die_with, initargs=(os.getpid(),)) as pool:
                yield from sift(pool.map(attempt, jobs.items(), chunksize=16))
    if errors:
        lines = "".join(f"\n  {error}" for error in errors[:ERRORS_SHOWN])
        rest = len(errors) - ERRORS_SHOWN
        more = f"\n  ... and {rest} more" if rest > 0 else ""
        raise AudioError(f"{len(errors)} of {len(jobs)} audio files cannot be used:{lines}{more}")
