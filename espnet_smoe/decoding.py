"""Stretches of audio through encoder and search, in batches that fit in memory.

Shape letters: N samples, B rows (a stretch and a task), S encoder frames, D model dimension.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_smoe.beam_search import BatchedBeamSearch, Hypothesis
from espnet_smoe.compat import TooShortUttError
from espnet_smoe.inference_options import Options
from espnet_smoe.locator import AudioError
from espnet_smoe.recordings import Piece

# What a RuntimeError says where memory lacks; the last, that of cuBLAS and cuDNN
NO_ROOM = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
# Samples up to which a stretch is encoded by itself: the encoder says of the longest of a batch
# only that it is too short.
SHORT = 4800


class TooShort(AudioError):
    """A stretch has fewer frames than the encoder needs."""


class OutOfMemory(MemoryError):
    """One stretch alone does not fit in memory; the message names its recording."""


@dataclass(frozen=True)
class Prompt:
    """A task of a stretch.

    Attributes:
        ids: What its hypotheses start with.
        transcribes: CTC, if it has a weight, scores it.
    """

    ids: tuple[int, ...]
    transcribes: bool


@dataclass
class Job:
    """A stretch of audio and the tasks wanted of it.

    Attributes:
        name: The recording's, for errors.
        piece: The stretch.
        prompts: One per task.
        route: The encoder's expert, or shares of several; None: the model has, or finds, its own.
        found: The hypotheses of each task, once decoded.
        encoder_expert: The encoder's expert in fact; None for an encoder without.
        error: What stood in the way instead.
    """

    name: str
    piece: Piece
    prompts: Sequence[Prompt]
    route: str | Mapping[str, float] | None = None
    found: list[list[Hypothesis]] = field(default_factory=list)
    encoder_expert: str | None = None
    error: Exception | None = None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.piece.start:.2f} to {self.piece.end:.2f} s)"


class BatchDecoder:
    """Decodes batches of jobs with one model.

    Args:
        model: An S2T model in eval mode.
        options: See `Options`.
        pad_to: Samples to which each stretch is padded; None: not at all.
    """

    def __init__(self, model: Any, options: Options, pad_to: int | None) -> None:
        self.model, self.options, self.pad_to = model, options, pad_to
        self.search = BatchedBeamSearch(model, options)
        self.device = next(model.parameters()).device
        self.least_samples = _least_samples(model)

    def decode(self, jobs: Sequence[Job]) -> None:
        """Fill in each job's `found` and `encoder_expert`, or its `error`; let its samples go."""
        for group in self._groups(sorted(jobs, key=lambda job: len(job.piece.x))):
            self._decode(group)
            for job in group:  # a long recording's samples would pile up
                job.piece = replace(job.piece, x=job.piece.x[:0].copy())

    def _groups(self, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs of neighbouring length, with up to `batch_size` rows."""
        group: list[Job] = []
        rows = 0
        for job in jobs:
            if group and rows + len(job.prompts) > self.options.batch_size:
                yield group
                group, rows = [], 0
            group.append(job)
            rows += len(job.prompts)
        if group:
            yield group

    def _decode(self, jobs: list[Job]) -> None:
        """Decode jobs at once, or, where memory lacks, halves of them."""
        try:
            self._decode_at_once(jobs)
            return
        except (RuntimeError, MemoryError) as error:
            if not _lacks_memory(error):
                raise
            reason = str(error).split("\n")[0]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(jobs) > 1:
            middle = len(jobs) // 2
            self._decode(jobs[:middle])
            self._decode(jobs[middle:])
        elif len(jobs[0].prompts) > 1:  # its tasks one by one
            (job,) = jobs
            parts = [Job(job.name, job.piece, [p], job.route) for p in job.prompts]
            for part in parts:
                self._decode([part])
                job.encoder_expert, job.error = part.encoder_expert, job.error or part.error
            job.found = [found for part in parts for found in part.found]
        else:
            jobs[0].error = OutOfMemory(
                f"audio {jobs[0]} does not fit in memory, not even alone ({reason}); accepted is a "
                "smaller beam_size or max_length"
            )

    @torch.inference_mode()
    def _decode_at_once(self, jobs: Sequence[Job]) -> None:
        heard: list[tuple[Job, torch.Tensor]] = []
        n = self.options.encoder_batch or (1 if self.pad_to is None else self._padded_batch())
        for first in range(0, len(jobs), n):
            heard += self._encode(jobs[first : first + n])
        rows = [(job, memory_SD, prompt) for job, memory_SD in heard for prompt in job.prompts]
        if not rows:
            return
        found = self.search.search(
            pad_sequence([memory_SD for _, memory_SD, _ in rows], batch_first=True),
            [len(memory_SD) for _, memory_SD, _ in rows],
            [prompt.ids for _, _, prompt in rows],
            [prompt.transcribes for _, _, prompt in rows],
        )
        for job, _ in heard:
            job.found = []
        for (job, _, _), hypotheses in zip(rows, found, strict=True):
            job.found.append(hypotheses)

    def _padded_batch(self) -> int:
        """How many padded stretches are encoded together; on a CPU more are no quicker."""
        return self.options.batch_size if self.device.type != "cpu" else 1

    def _encode(self, jobs: Sequence[Job]) -> list[tuple[Job, torch.Tensor]]:
        """Encoder outputs (S, D) of the jobs that are long enough; the others get their error."""
        several = len(jobs) > 1
        speech = [torch.from_numpy(job.piece.x) for job in jobs]
        lengths = [len(x_N) for x_N in speech]
        least = self.least_samples if self.pad_to is None else self.pad_to
        lengths = [max(n, least) for n in lengths]
        x_BN = torch.zeros(len(jobs), max(lengths))
        for row, x_N in enumerate(speech):
            x_BN[row, : len(x_N)] = x_N
        routes = [job.route for job in jobs]
        # the model finds a route for all, or for none
        if several and (min(lengths) <= SHORT or (None in routes and any(routes))):
            return [pair for job in jobs for pair in self._encode([job])]
        keywords = {} if routes[0] is None else {"route": routes}
        try:
            memory, memory_lengths = self.model.encode(
                speech=x_BN.to(self.device),
                speech_lengths=torch.tensor(lengths, device=self.device),
                **keywords,
            )
        except TooShortUttError as error:
            if several:
                return [pair for job in jobs for pair in self._encode([job])]
            jobs[0].error = TooShort(
                f"audio {jobs[0]} is too short for the encoder: it has {error.actual_size} frames; "
                f"accepted are {error.limit} or more"
            )
            jobs[0].found = [[] for _ in jobs[0].prompts]
            return []
        if isinstance(memory, tuple):  # outputs of intermediate CTC layers beside it
            memory = memory[0]
        for job, name in zip(jobs, getattr(self.model, "last_route", None) or [], strict=False):
            job.encoder_expert = name
        return [
            (job, memory[row, :frames])
            for row, (job, frames) in enumerate(zip(jobs, memory_lengths.tolist(), strict=True))
        ]


def _least_samples(model: Any) -> int:
    """The samples that the model's STFT needs, which reflects half a window at both ends; or 0."""
    stft = getattr(getattr(model, "frontend", None), "stft", None)
    if stft is None:
        return 0
    return int(stft.n_fft // 2 + 1 if getattr(stft, "center", True) else stft.n_fft)


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in NO_ROOM)
