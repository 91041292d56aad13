"""Where somebody speaks: Silero's voice activity detector on a stream of any length.

Its network comes with the wheel ``silero-vad`` (MIT licence; nothing is downloaded) and is run by
onnxruntime, many frames a call. The state is carried over, so that a stream in blocks gives the
same as the whole. Now and then that state stays deaf for seconds, mostly after a change of line;
so a second run begins afresh with every call, and the higher probability counts. On an hour of
read Mboshi in pauses of half a second to 8 s, half of it narrowband, this and the lower
thresholds cut the loud frames that would be left out from 0.8 % to 0.1 % (narrowband).

Shapes: N samples, T frames, S samples of a frame with its context.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

State: TypeAlias = tuple[np.ndarray, np.ndarray]  # of the LSTM, each (1, 1, 128)

RATE = 16000  # Hz, the network's
FRAME = 512  # samples
CONTEXT = 64  # samples of the frame before, which the network sees too
FRAME_SECONDS = FRAME / RATE  # 32 ms
CALL_FRAMES = 256  # frames a call, 8.2 s; the same calls whatever blocks the samples come in
WARM_FRAMES = 32  # heard before those of a call by the run that begins afresh
STATE = (1, 1, 128)
SPEECH, PAUSE = 0.3, 0.2  # probability at which speech begins, and below which it ends
LOUD_PERCENTILE = 95  # of the frames' levels: that of the loud frames
LEAST_LEVEL = 0.03  # RMS of loud frames; quieter audio is amplified, since Silero misses it
MOST_GAIN = 300.0
FADE = 0.8  # of the level remembered, per call


@lru_cache(maxsize=1)
def _session() -> Any:
    """The network, on one thread; it keeps no state itself."""
    import onnxruntime

    # found without importing silero_vad, which would set the number of PyTorch's threads to 1
    package = importlib.util.find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("recordings are cut at pauses by silero-vad: pip install it")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    model = Path(package.origin).parent / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(
        str(model), sess_options=options, providers=["CPUExecutionProvider"]
    )


def _run(frames_TS: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    """Probability of speech (T,), and the state behind the last frame."""
    given = {"input": frames_TS, "h": state[0], "c": state[1]}
    probability_T, hidden, cell = _session().run(["speech_probs", "hn", "cn"], given)
    return probability_T.reshape(-1), (hidden, cell)


class SpeechFrames:
    """Tells speech from pauses, frame by frame."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)
        self._context = np.zeros(CONTEXT, np.float32)
        self._state = self._fresh = (np.zeros(STATE, np.float32), np.zeros(STATE, np.float32))
        self._warm_TS = np.zeros((0, CONTEXT + FRAME), np.float32)
        self._level = 0.0
        self._speaking = False

    def push(self, x: np.ndarray) -> np.ndarray:
        """Take samples at `RATE`, float32 (N,).

        Returns:
            Speech or not, bool (T,), of the next frames that are decided by now.
        """
        self._rest = np.concatenate([self._rest, x])
        size = CALL_FRAMES * FRAME
        whole = len(self._rest) // size * size
        calls = [self._call(self._rest[i : i + size]) for i in range(0, whole, size)]
        self._rest = self._rest[whole:]
        return np.concatenate(calls) if calls else np.zeros(0, bool)

    def finish(self) -> np.ndarray:
        """The frames that are left, bool (T,); the last may reach beyond the stream's end."""
        found = self.push(np.zeros(0, np.float32))
        if len(self._rest):
            padded = np.pad(self._rest, (0, -len(self._rest) % FRAME))
            found = np.concatenate([found, self._call(padded)])
            self._rest = self._rest[:0]
        return found

    def _call(self, x: np.ndarray) -> np.ndarray:
        frames_TN = x.reshape(-1, FRAME)
        rms_T = np.sqrt(np.square(frames_TN).mean(axis=1))
        level = float(np.percentile(rms_T, LOUD_PERCENTILE))
        self._level = max(level, FADE * self._level)
        gain = min(max(LEAST_LEVEL / max(self._level, 1e-9), 1.0), MOST_GAIN)
        before_TN = np.concatenate([self._context[None], frames_TN[:-1, -CONTEXT:]])
        self._context = frames_TN[-1, -CONTEXT:]
        frames_TS = np.concatenate([before_TN, frames_TN], axis=1) * np.float32(gain)
        carried_T, self._state = _run(frames_TS, self._state)
        afresh_T, _ = _run(np.concatenate([self._warm_TS, frames_TS]), self._fresh)
        probability_T = np.maximum(carried_T, afresh_T[len(self._warm_TS) :])
        self._warm_TS = frames_TS[-WARM_FRAMES:]
        speech = []
        for probability in probability_T.tolist():
            self._speaking = probability >= (PAUSE if self._speaking else SPEECH)
            speech.append(self._speaking)
        return np.array(speech, dtype=bool)
