"""ESPnet's data type ``audio``: any locator of a ``wav.scp``, read and resampled when it is needed.

With ``--audio_format none`` the recipe copies no audio. Training, statistics and decoding then
read the original recordings, whatever their rates: files, archive entries, commands, and parts
and channels of them (`espnet_smoe.locator`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from espnet_smoe.audio import TARGET_RATE, read_at, to_int16

DATA_TYPE = "audio"
HELP = (
    f"Audio at any rate, resampled to {TARGET_RATE} Hz when it is read: a file, an entry of an "
    "archive, a command, or a part or one channel of those."
    "\n\n"
    "   utterance_id_a a.wav\n"
    "   utterance_id_b b.ark:1234\n"
    "   utterance_id_c sph2pipe -f wav c.sph |#t=12.5,17.25&channel=2\n"
    "   ..."
)
BLOCK = 1 << 26  # bytes looked through at once for line ends


def read_value(locator: str, utt: str | None = None) -> np.ndarray:
    """The samples behind one locator, float32 (N,) at 16 kHz, rounded to 16 bit.

    Rounded, so that they are bit for bit those of the files that stage 3 would have written: in the
    empty upper band of telephone speech the rounding noise is all that there is to hear.
    """
    return to_int16(read_at(locator, TARGET_RATE, utt=utt)).astype(np.float32) / 32768


class AudioReader(Mapping[str, np.ndarray]):
    """The samples behind a ``wav.scp``: ``{utterance id: float (N,)}`` at 16 kHz.

    In memory are eight bytes per utterance; the table itself stays on disk, mapped, and is shared
    by all processes of the machine.

    Args:
        path: A table sorted by utterance id, as the recipe's are.
        float_dtype: The samples' type.
    """

    def __init__(self, path: str | Path, float_dtype: str = "float32") -> None:
        self.path = str(path)
        self.float_dtype = float_dtype
        size = Path(path).stat().st_size
        self._bytes = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
        ends = [
            start + np.flatnonzero(self._bytes[start : start + BLOCK] == ord("\n"))
            for start in range(0, size, BLOCK)
        ]
        starts = np.concatenate([np.zeros(1, np.int64), *(end + 1 for end in ends)])
        self._starts = starts if starts[-1] == size else np.append(starts, size)

    def __reduce__(self) -> tuple[Any, ...]:
        return AudioReader, (self.path, self.float_dtype)

    def _line(self, index: int) -> list[bytes]:
        """Utterance id and locator, or less where the line lacks them."""
        start, end = self._starts[index : index + 2]
        return bytes(self._bytes[start:end]).split(None, 1)

    def _utt(self, index: int) -> bytes:
        return (self._line(index) or [b""])[0]

    def locator(self, utt: str) -> str:
        """Where an utterance's audio lies.

        Raises:
            KeyError: The table has no such utterance.
        """
        wanted = utt.encode()  # UTF-8 sorts as its code points do
        index = bisect_left(range(len(self)), wanted, key=self._utt)
        line = self._line(index) if index < len(self) else []
        if len(line) < 2 or line[0] != wanted:
            raise KeyError(f"{self.path} (or it is not sorted by id) has no utterance {utt!r}")
        return line[1].decode().strip()

    def __getitem__(self, utt: str) -> np.ndarray:
        return read_value(self.locator(utt), utt).astype(self.float_dtype)

    def __contains__(self, utt: object) -> bool:
        try:
            self.locator(str(utt))
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (self._utt(index).decode() for index in range(len(self)))

    def __len__(self) -> int:
        return len(self._starts) - 1
