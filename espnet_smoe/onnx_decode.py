"""Decode with the files that ``espnet-smoe onnx`` writes: onnxruntime, numpy and sentencepiece.

PyTorch and ESPnet are not imported, and need not be there. An example to build on, for stretches
of up to some 30 s; `espnet_smoe.Speech2Text` also cuts long recordings, resamples, and searches
many at once.

    decoder = OnnxSpeech2Text("onnx/nb_asr")
    print(decoder(samples, task="asr", beam_size=5).text)

Shape letters: N samples, S encoder frames, K beams, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
# ESPnet's end detection: the best hypotheses of three lengths in a row are this much worse.
END_LENGTHS, END_MARGIN = 3, -10.0


@dataclass(frozen=True)
class Decoded:
    """What was found.

    Attributes:
        text: Without special tokens.
        tokens: Ids behind the prompt.
        score: Sum of their log-probabilities, that of ``<eos>`` included.
    """

    text: str
    tokens: list[int]
    score: float


@dataclass(frozen=True)
class Memory:
    """An encoded stretch: the encoder's outputs by name, of one utterance."""

    outputs: dict[str, np.ndarray]
    frames: int


def session(path: str | Path, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; `threads` 0: as many as there are."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_session(session: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Run a session; its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


class OnnxSpeech2Text:
    """Transcribes and translates with a model in ONNX.

    Args:
        directory: What ``espnet-smoe onnx`` wrote.
        threads: Of onnxruntime; 0: as many as there are.

    Raises:
        ValueError: The directory is of another format.
    """

    def __init__(self, directory: str | Path, *, threads: int = 0) -> None:
        directory = Path(directory)
        self.about = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        if self.about.get("format") != FORMAT:
            raise ValueError(
                f"{directory / 'model.json'}: format is {self.about.get('format')!r}; accepted: "
                f"{FORMAT}"
            )
        tokens = (directory / "tokens.txt").read_text(encoding="utf-8")
        self.tokens = tokens.removesuffix("\n").split("\n")
        self.encoder = session(directory / "encoder.onnx", threads)
        self.decoder = session(directory / "decoder.onnx", threads)
        self.pieces: Any = None
        if self.about["token_type"] == "bpe":
            import sentencepiece

            model = str(directory / "bpe.model")
            self.pieces = sentencepiece.SentencePieceProcessor(model_file=model)
        first, last = self.about["timestamps"] or (0, -1)
        self._times = range(first, last + 1)
        self._not_text = frozenset([*self.about["not_text"], *self._times])

    def __call__(
        self,
        speech_N: np.ndarray,
        *,
        task: str = "asr",
        language: str | None = None,
        beam_size: int = 1,
    ) -> Decoded:
        """Decode one stretch.

        Args:
            speech_N: Samples in -1 to 1 at the model's rate (``about["sampling_rate"]``).
            task: ``asr``, ``st_eng``, ...
            language: That is spoken, such as ``spa``; None: the model's only one.
            beam_size: 1 is greedy search.

        Raises:
            ValueError: A task or language that the model does not know, too few samples.
        """
        return self.search(self.encode([speech_N])[0], self.prompt(task, language), beam_size)

    def prompt(self, task: str, language: str | None = None) -> list[int]:
        """The token ids that a hypothesis starts with.

        Raises:
            ValueError: The model does not know the task or language.
        """
        languages, tasks = self.about["languages"], self.about["tasks"]
        if language is None and len(languages) == 1:
            language = next(iter(languages))
        for kind, name, known in (("language", language, languages), ("task", task, tasks)):
            if name not in known:
                raise ValueError(f"{kind} is {name!r}; accepted: {', '.join(known)}")
        return [self.about["sos"], languages[language], tasks[task], self.about["notimestamps"]]

    def encode(self, speech: Sequence[np.ndarray]) -> list[Memory]:
        """Encode stretches in one batch; the shorter ones' last frames see a little padding.

        Raises:
            ValueError: One is no float array (N,) of ``about["min_samples"]`` or more.
        """
        least, pad_to = self.about["min_samples"], self.about["pad_to_samples"] or 0
        lengths = [max(len(x_N), pad_to) for x_N in speech]
        x_BN = np.zeros((len(speech), max(lengths)), np.float32)
        for row, x_N in enumerate(speech):
            if x_N.ndim != 1 or x_N.dtype.kind != "f" or len(x_N) < least:
                raise ValueError(
                    f"speech {row} is {x_N.dtype} of shape {x_N.shape}; accepted: floats (N,), "
                    f"{least} samples or more"
                )
            x_BN[row, : len(x_N)] = x_N
        found = run_session(self.encoder, speech=x_BN, lengths=np.array(lengths, np.int64))
        memories = []
        for row, frames in enumerate(found["memory_lengths"].tolist()):
            outputs = {
                "memory_cache": found["memory_cache"][:, :, row : row + 1, :, :frames],
                "memory_lengths": found["memory_lengths"][row : row + 1],
            }
            memories.append(Memory(outputs, frames))
        return memories

    def search(self, memory: Memory, prompt: Sequence[int], beam_size: int = 1) -> Decoded:
        """Find the best hypothesis: ESPnet's beam search with the decoder alone.

        Args:
            memory: Of one stretch.
            prompt: Its token ids.
            beam_size: 1 or more.
        """
        eos = self.about["eos"]
        shape = (self.about["layers"], 2, 1, 1, self.about["heads"], 0, self.about["head_size"])
        cache, step_tokens = np.zeros(shape, np.float32), np.array([[prompt]], np.int64)
        beams, scores = [list(prompt)], np.zeros(1)
        ended: list[tuple[float, list[int]]] = []
        best_of: dict[int, float] = {}  # the best score of each length
        longest = min(memory.frames, self.about["max_tokens"] - len(prompt))
        for step in range(longest):
            found = run_session(self.decoder, tokens=step_tokens, cache=cache, **memory.outputs)
            log_probs_KV = found["log_probs"][0].astype(np.float64)
            log_probs_KV[:, self._times] = -np.inf  # the prompt asks for none
            parents, tokens, scores = _best(scores[:, None] + log_probs_KV, beam_size)
            beams = [[*beams[parent], token] for parent, token in zip(parents, tokens, strict=True)]
            stays = []
            for place, (beam, score) in enumerate(zip(beams, scores.tolist(), strict=True)):
                last = step == longest - 1
                if beam[-1] != eos and not last:
                    stays.append(place)
                    continue
                beam = [*beam, eos] if last else beam
                ended.append((score, beam))
                best_of[len(beam)] = max(score, best_of.get(len(beam), -np.inf))
            if not stays or _gets_worse(best_of, step):
                break
            beams, scores = [beams[place] for place in stays], scores[stays]
            cache = found["next_cache"][:, :, :, [parents[place] for place in stays]]
            step_tokens = np.array([[[beam[-1]] for beam in beams]], np.int64)
        score, best = max(ended, key=lambda end: end[0])
        text = best[len(prompt) :]
        while text and text[-1] == eos:
            text = text[:-1]
        return Decoded(self.text(text), text, score)

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, without special tokens."""
        tokens = [self.tokens[i] for i in ids if i not in self._not_text]
        if self.about["byte_level"]:
            from espnet_smoe import bbpe  # repairs what is not UTF-8

            return bbpe.decode(tokens)
        if self.pieces is not None:
            return str(self.pieces.decode_pieces(tokens)).strip()
        if self.about["token_type"] == "char":
            return "".join(tokens).replace("<space>", " ").strip()
        return " ".join(tokens)


def _best(scores_KV: np.ndarray, count: int) -> tuple[list[int], list[int], np.ndarray]:
    """The best extensions of all beams: beams, tokens and scores, best first."""
    flat = scores_KV.reshape(-1)
    count = min(count, flat.size)
    places = np.argpartition(-flat, count - 1)[:count]
    places = places[np.argsort(-flat[places], kind="stable")]
    places = places[np.isfinite(flat[places])]
    parents, tokens = np.divmod(places, scores_KV.shape[1])
    return parents.tolist(), tokens.tolist(), flat[places]


def _gets_worse(best_of: dict[int, float], step: int) -> bool:
    """ESPnet's `end_detect`, which counts the prompt as part of a length."""
    best = max(best_of.values(), default=0.0)
    lengths = range(step - END_LENGTHS + 1, step + 1)
    return all(n in best_of and best_of[n] - best < END_MARGIN for n in lengths)
