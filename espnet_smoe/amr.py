"""AMR narrowband, the codec of GSM and UMTS calls, through libopencore-amrnb where it is found.

Shapes: N samples at 8 kHz.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import lru_cache

import numpy as np

FRAME = 160  # samples: 20 ms
MODE_12_2 = 7  # AMR-NB's highest rate, 12.2 kbit/s
MAX_BYTES = 32  # of a coded frame: 1 of header and up to 31 of speech bits
DELAY = 40  # samples: the encoder's 5 ms of look-ahead
LIBRARIES = ("opencore-amrnb", "libopencore-amrnb.so.0")


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    for name in (ctypes.util.find_library(LIBRARIES[0]), LIBRARIES[1]):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            pointer = ctypes.c_void_p
            library.Encoder_Interface_init.restype = pointer
            library.Encoder_Interface_init.argtypes = [ctypes.c_int]
            library.Encoder_Interface_Encode.restype = ctypes.c_int
            library.Encoder_Interface_Encode.argtypes = [
                *(pointer, ctypes.c_int, pointer, pointer, ctypes.c_int)
            ]
            library.Encoder_Interface_exit.argtypes = [pointer]
            library.Decoder_Interface_init.restype = pointer
            library.Decoder_Interface_Decode.argtypes = [pointer, pointer, pointer, ctypes.c_int]
            library.Decoder_Interface_exit.argtypes = [pointer]
            return library
    return None


def is_available() -> bool:
    """Is libopencore-amrnb (Debian: libopencore-amrnb0) installed?"""
    return _library() is not None


def code(x: np.ndarray) -> np.ndarray:
    """Encode at 12.2 kbit/s and decode.

    Args:
        x: int16 (N,) at 8000 Hz.

    Returns:
        int16 (N,), aligned with `x`.

    Raises:
        RuntimeError: The library is not installed; see `is_available`.
    """
    library = _library()
    if library is None:
        raise RuntimeError("libopencore-amrnb is not installed (Debian: libopencore-amrnb0)")
    frames = -(-(len(x) + DELAY) // FRAME)
    speech = np.zeros((frames, FRAME), dtype=np.int16)
    speech.reshape(-1)[: len(x)] = x
    decoded = np.zeros_like(speech)
    coded = (ctypes.c_ubyte * MAX_BYTES)()
    encoder = library.Encoder_Interface_init(0)  # 0: no discontinuous transmission
    decoder = library.Decoder_Interface_init()
    try:
        for source, target in zip(speech, decoded, strict=True):
            library.Encoder_Interface_Encode(encoder, MODE_12_2, source.ctypes.data, coded, 0)
            library.Decoder_Interface_Decode(decoder, coded, target.ctypes.data, 0)
    finally:
        library.Encoder_Interface_exit(encoder)
        library.Decoder_Interface_exit(decoder)
    return decoded.reshape(-1)[DELAY : DELAY + len(x)]
