"""Speech for the built-in corpora: espeak-ng in process, 16 kHz, the same bytes on every run.

espeak-ng comes with the wheel ``espeakng-loader`` (no apt package). It keeps state from call to
call, so every utterance is spoken by a fresh fork of this process; resampling is exact integer
arithmetic.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import warnings
import wave
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

NATIVE_RATE = 22050  # Hz, espeak-ng's own
RATE = 16000  # Hz, written
ACCENTS = {"es": "es", "la": "es-419"}  # short name in speaker ids -> espeak-ng voice
ENGLISH = {"gb": "en", "us": "en-us"}  # likewise, for English ("en-gb" is no name)
VOICES = {**ACCENTS, **ENGLISH}
VOLUME = 70  # espeak-ng's 0..200; 100 clips several voices
EDGE_SECONDS = 0.1  # silence kept at either end
UP, DOWN = 320, 441  # 22,050 Hz * 320 / 441 = 16 kHz
TAPS = 80  # of the resampling filter, per output sample
CUTOFF = 0.965 * RATE / NATIVE_RATE  # of the native Nyquist frequency
RATE_PARAMETER, VOLUME_PARAMETER, PITCH_PARAMETER = 1, 2, 3  # espeak_PARAMETER
MAX_DATA_PATH = 120  # bytes; espeak-ng cuts the path of its data off at 160


class SpeechError(ValueError):
    """A text cannot be spoken as asked."""


class Speaker:
    """espeak-ng, loaded in this process."""

    def __init__(self) -> None:
        import espeakng_loader

        self._chunks: list[bytes] = []
        self.data = Path(espeakng_loader.get_data_path())
        self._lib = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._collect)  # kept: ctypes does not
        path = str(self.data)
        if len(os.fsencode(path)) > MAX_DATA_PATH:
            self._link = tempfile.TemporaryDirectory(prefix="espeak")
            path = os.path.join(self._link.name, self.data.name)
            os.symlink(self.data, path)
        # synchronous output (2) to a callback; 0x8000: return an error rather than exit
        rate = self._lib.espeak_Initialize(2, 0, os.fsencode(path), 0x8000)
        if rate != NATIVE_RATE:
            raise SpeechError(f"espeak-ng did not start from {path}: it gave the rate {rate}")
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _: int) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def _speak_here(self, text: str, voice: str, rate: int, pitch: int) -> bytes:
        self._chunks.clear()
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SpeechError(f"espeak-ng has no voice {voice!r}")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
        for parameter, value in (
            (RATE_PARAMETER, rate), (VOLUME_PARAMETER, VOLUME), (PITCH_PARAMETER, pitch),
        ):  # fmt: skip
            self._lib.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        # position 0 by character (1), no end, UTF-8 (1)
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, 1, None, None)
        return b"".join(self._chunks)

    def speak(
        self, text: str, accent: str, variant: str = "", *, rate: int = 190, pitch: int = 50
    ) -> np.ndarray:
        """Speak a text in a fresh fork, so that nothing of earlier calls is heard.

        Args:
            text: Plain words.
            accent: A key of `VOICES`.
            variant: An espeak-ng voice variant; empty for the accent's own voice.
            rate: Words per minute.
            pitch: 0 to 99.

        Returns:
            int16 (N,) at `NATIVE_RATE`.

        Raises:
            SpeechError: Unknown accent or variant, or espeak-ng failed.
        """
        if accent not in VOICES:
            raise SpeechError(f"accent {accent!r} is unknown (known: {', '.join(VOICES)})")
        variants = self.data / "voices" / "!v"
        # espeak-ng itself falls back to the plain voice without a word
        if variant and not (variants / variant).is_file():
            raise SpeechError(f"espeak-ng has no voice variant {variant!r} in {variants}")
        voice = VOICES[accent] + (f"+{variant}" if variant else "")
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns about forks beside numpy's idle threads; the child uses none
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                with os.fdopen(writer, "wb") as pipe:
                    pipe.write(self._speak_here(text, voice, rate, pitch))
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            data = pipe.read()
        status = os.waitpid(child, 0)[1]
        if status or not data:
            raise SpeechError(f"espeak-ng failed on {text!r} (voice {voice}, status {status})")
        return np.frombuffer(data, "<i2")

    def check_variants(
        self, variants: Sequence[str], accents: Sequence[str] = tuple(ACCENTS)
    ) -> None:
        """Raise SpeechError if two of the variants, or one and the plain voice, sound the same."""
        for accent in accents:
            heard = {self.speak("hola", accent).tobytes(): "the plain voice"}
            for variant in variants:
                other = heard.setdefault(self.speak("hola", accent, variant).tobytes(), variant)
                if other != variant:
                    raise SpeechError(f"voice variant {variant!r} sounds exactly like {other}")


@lru_cache(maxsize=1)
def resampler() -> np.ndarray:
    """Return the filter of a whole period, integers (`DOWN` + `TAPS`, `UP`): a column per output.

    A Kaiser-windowed sinc, scaled by 2**20: flat to 7 kHz, zero from 8.5 kHz.
    """
    columns = np.zeros((DOWN + TAPS, UP))
    for phase in range(UP):
        start, rest = divmod(phase * DOWN, UP)
        time = np.arange(TAPS) - (TAPS // 2 - 1) - rest / UP  # input samples from the output
        window = np.i0(6.0 * np.sqrt(np.clip(1 - (2 * time / TAPS) ** 2, 0, 1))) / np.i0(6.0)
        h = np.sinc(CUTOFF * time) * window
        columns[start : start + TAPS, phase] = np.rint(h / h.sum() * 2**20)
    return columns


def to_16k(x: np.ndarray) -> np.ndarray:
    """Resample int16 (N,) at 22,050 Hz to int16 (M,) at 16 kHz, the same bits everywhere.

    The products are integers below 2**53, so their float64 sums are exact in any order,
    whatever the processor.
    """
    periods = -(-len(x) // DOWN)
    left = TAPS // 2 - 1
    padded = np.zeros(periods * DOWN + TAPS)
    padded[left : left + len(x)] = x
    frames = np.lib.stride_tricks.sliding_window_view(padded, DOWN + TAPS)[::DOWN]
    # path.sh gives BLAS one thread: those of several processes would slow each other down
    total = (np.ascontiguousarray(frames) @ resampler()).reshape(-1)[: -(-len(x) * UP // DOWN)]
    rounded = (total.astype(np.int64) + 2**19) >> 20
    return np.asarray(np.clip(rounded, -32768, 32767), "<i2")


def trim(x: np.ndarray) -> np.ndarray:
    """Cut leading and trailing silence (below 1 % of the peak) down to `EDGE_SECONDS`."""
    level = np.abs(x.astype(np.int32))
    loud = np.flatnonzero(level * 100 > level.max())
    if not len(loud):
        raise SpeechError("silence")
    edge = int(EDGE_SECONDS * RATE)
    return x[max(0, loud[0] - edge) : loud[-1] + 1 + edge]


def write_wav(path: Path, x: np.ndarray) -> None:
    """Write 16-bit mono at 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(x.tobytes())
