"""Audio in and out: read any file or part of one, resample, write whole files.

Everything is mono float32 in [-1, 1] with shape (N,), N samples, beside its sampling rate in
Hz. What is read is named by a locator (`espnet_smoe.locator`): libsndfile decodes files (WAV,
FLAC, Ogg/Opus, MP3, uncompressed SPHERE, ...), kaldiio archives; nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

from espnet_smoe.locator import (
    ARK_ENTRY,
    AudioError,
    AudioHeader,
    Locator,
    header_of,
    parse_locator,
    samples_of,
)

TARGET_RATE = 16000  # Hz, the rate at which the model hears everything


def _where(path: str | Path, utt: str | None) -> str:
    return f"utterance {utt!r}: audio file {str(path)!r}" if utt else f"audio file {str(path)!r}"


def unreadable(path: str | Path, where: Locator, utt: str | None, error: Exception) -> AudioError:
    """The error to raise for a locator that cannot be read: names it and what is accepted."""
    named = _where(path, utt)
    if isinstance(error, AudioError):
        return AudioError(f"{named} {error}" if "cut short" in str(error) else f"{named}: {error}")
    is_file = not where.is_command and not ARK_ENTRY.search(where.source)
    if is_file and not Path(where.source).is_file():
        if Path(where.source).is_dir():
            return AudioError(f"{named} is a directory; accepted is a file")
        return AudioError(f"{named} does not exist")
    reason = str(error).split(": ", 1)[-1].strip() or type(error).__name__
    return AudioError(
        f"{named} cannot be read ({reason}); accepted is what libsndfile decodes: "
        "WAV, FLAC, Ogg/Opus, MP3, uncompressed SPHERE, ..."
    )


def read_header(path: str | Path, *, utt: str | None = None) -> AudioHeader:
    """Read a file's header without decoding its samples.

    Args:
        path: A locator: an audio file, an entry of an archive, a command, or a part of one.
        utt: The utterance that the file belongs to, named in errors.

    Raises:
        AudioError: The file is missing, not audio, or holds no samples.
    """
    where = parse_locator(path)
    try:
        header = header_of(where)
    except Exception as error:  # kaldiio passes on whatever its decoder raises
        raise unreadable(path, where, utt, error) from error
    if header.frames <= 0:
        raise AudioError(f"{_where(path, utt)} holds no samples")
    return header


def read_audio(path: str | Path, *, utt: str | None = None) -> tuple[np.ndarray, int]:
    """Read what a locator names.

    Args:
        path: A mono audio file, ``file.ark:offset`` for an entry of a Kaldi archive, a shell
            command with ``|`` behind it, or a part or channel of one (``#t=1.5,3&channel=2``).
        utt: The utterance that the file belongs to, named in errors.

    Returns:
        The samples, float32 (N,), and the sampling rate in Hz.

    Raises:
        AudioError: The file is missing, not audio, cut short, empty, has several channels, or
            holds NaN or infinite samples.
    """
    where = parse_locator(path)
    try:
        x, rate = samples_of(where)
    except Exception as error:  # kaldiio passes on whatever its decoder raises
        raise unreadable(path, where, utt, error) from error
    named = _where(path, utt)
    if x.ndim != 1:
        raise AudioError(
            f"{named} has {x.shape[1]} channels; accepted is 1: pick one with "
            f"'{where.source}#channel=1'"
        )
    if len(x) == 0:
        raise AudioError(f"{named} holds no samples")
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        raise AudioError(f"{named} holds {len(bad)} NaN or infinite samples, the first at {bad[0]}")
    return x, rate


def _require_mono(x: np.ndarray, rate: float) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1:
        raise AudioError(f"audio has shape {x.shape}; accepted is one channel, shape (samples,)")
    if rate <= 0:
        raise AudioError(f"sampling rate {rate} is impossible; accepted is a positive rate in Hz")
    return x.astype(np.float32, copy=False)


def resample(x: np.ndarray, rate: float, target: int) -> np.ndarray:
    """Resample with soxr's high-quality linear-phase filter.

    Args:
        x: Samples (N,).
        rate: Their rate in Hz; 1.1 times their rate plays them 1.1 times as fast, as sox's
            ``speed`` does.
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


def samples_at(header: AudioHeader, rate: float) -> int:
    """How many samples a recording has once `resample` has brought it to a rate.

    Exact where the header is (``header.exact``); else as good an estimate as the header's own.
    """
    return int(header.frames * rate / header.rate + 0.5)


def header_problem(
    header: AudioHeader, *, rate: int, samples: int, any_rate: bool = False
) -> str | None:
    """What a header says otherwise than an utterance's tables; None: they agree.

    Args:
        header: The utterance's.
        rate: The rate in Hz at which it is heard.
        samples: Its number of samples at that rate (``utt2num_samples``).
        any_rate: It is resampled when it is read (``--audio_format none``).
    """
    found = samples_at(header, rate)
    right_rate = any_rate or header.rate == rate
    if right_rate and header.channels == 1 and (found == samples or not header.exact):
        return None
    return (
        f"{header.rate} Hz, {header.channels} channel(s), {header.frames} samples; expected "
        f"{rate} Hz, 1 channel, {samples} samples"
        + (f" (resampled it has {found})" if any_rate and header.rate != rate else "")
    )


def read_at(
    path: str | Path, rate: int, *, utt: str | None = None, speed: float = 1.0
) -> np.ndarray:
    """Read what a locator names, at a rate.

    Args:
        path: See `read_audio`.
        rate: The rate wanted, in Hz.
        utt: The utterance that the file belongs to, named in errors.
        speed: Play it so many times as fast, which changes tempo and pitch.

    Returns:
        The samples, float32 (N,).

    Raises:
        AudioError: As `read_audio`, or nothing is left of it at this rate.
    """
    x, own = read_audio(path, utt=utt)
    x = resample(x, own * speed if speed != 1.0 else own, rate)
    if len(x) == 0:
        raise AudioError(f"{_where(path, utt)} is too short for {rate} Hz")
    return x


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
