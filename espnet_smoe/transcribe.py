"""Transcribe many recordings: in one stream, with progress, going on after a fault or a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import sys
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    closing,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from espnet_smoe.inputs import Recording, find_recordings
from espnet_smoe.outputs import Folder, Output, Printer
from espnet_smoe.results import Failure, Result

# Options that the results do not depend on, rounding aside.
FREE = ("device", "batch_size", "compile", "use_flash_attn")
BLOCK = 1 << 20  # bytes read at once
Key = TypeVar("Key")


class TranscriptionError(ValueError):
    """Some recordings could not be transcribed; the others were."""


class Progress(AbstractContextManager["Progress"]):
    """A bar over recordings on stderr, with the audio done and how fast that was.

    Args:
        total: Recordings.
        done: Of them done by an earlier run.
        title: The bar's title.
        unit: What is counted.
    """

    def __init__(
        self, total: int, *, done: int = 0, title: str = "transcribe", unit: str = "rec"
    ) -> None:
        self.bar = tqdm(total=total, initial=done, desc=title, unit=unit, mininterval=1)
        self.began = time.monotonic()
        self.seconds = 0.0  # of audio

    def add(self, seconds: float) -> None:
        """Count a recording of so many seconds."""
        self.seconds += seconds
        self.bar.set_postfix_str(self.speed, refresh=False)
        self.bar.update()

    @property
    def speed(self) -> str:
        """Seconds of audio done, and how many of them per second of waiting."""
        wall = max(time.monotonic() - self.began, 1e-6)
        return f"{self.seconds:.0f} s of audio, {self.seconds / wall:.1f} x real time"

    def __exit__(self, *error: object) -> None:
        self.bar.close()


def outcomes(
    speech2text: Any, work: Iterable[tuple[Key, Any]], progress: Progress, **options: Any
) -> Iterator[tuple[Key, dict[str, Result] | Failure]]:
    """Decode a stream of recordings, each with a key of the caller's.

    Args:
        speech2text: A `Speech2Text`.
        work: Keys and what `Speech2Text.stream` takes, with lists of tasks; read as needed.
        progress: Counts what comes out.
        **options: Of the stream.

    Yields:
        The key, and the results by task or why there are none; in order.
    """
    keys: deque[Key] = deque()

    def items() -> Iterator[Any]:
        for key, item in work:
            keys.append(key)
            yield item

    for outcome in speech2text.stream(items(), on_error="return", **options):
        first: Result | None = None
        if not isinstance(outcome, Failure):
            first = next(iter(outcome.values()))
        progress.add(first.duration if first is not None else 0.0)
        yield keys.popleft(), outcome


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what ESPnet and others print while they are imported and a model is built.

    Some of it goes to stdout. It is shown on stderr if that fails otherwise than by a user's
    mistake.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")  # or it would be held back for good
    warnings.filterwarnings("ignore", category=FutureWarning, module="espnet2")
    held = io.StringIO()
    try:
        with redirect_stdout(held), redirect_stderr(held):
            yield
    except (ValueError, OSError):
        raise
    except Exception:
        print(held.getvalue(), file=sys.stderr)
        raise


def transcribe(
    inputs: Sequence[str | Path],
    *,
    model: str,
    tasks: Sequence[str] = ("asr",),
    kind: str = "txt",
    out: str | Path | None = None,
    overwrite: bool = False,
    model_file: str | None = None,
    **options: Any,
) -> None:
    """The command ``espnet-smoe transcribe``.

    Args:
        inputs: As `find_recordings` takes them.
        model: As `Speech2Text.from_pretrained` takes it.
        tasks: Tasks, such as ``asr`` and ``st_eng``; they share the encoder's work.
        kind: The format, of `espnet_smoe.transcripts.FORMATS`.
        out: The directory to write into; None: stdout.
        overwrite: Replace what was made with other settings, and whatever else is in the way.
        model_file: The checkpoint's name in the model's directory.
        **options: Of `Speech2Text`; None: its default.

    Raises:
        TranscriptionError: Names every recording that failed, after the others are done.
        ValueError, OSError: Before any work: the model, a task or an option is not known, or the
            output cannot be where it should.
    """
    from espnet_smoe.inference_options import Options

    tasks = [task.strip("<>") for task in dict.fromkeys(tasks)]
    recordings = find_recordings(inputs)
    given = {name: value for name, value in options.items() if value is not None}
    settings = settings_of(Options.of(given))
    with quietly():
        from espnet_smoe.inference import Speech2Text
        from espnet_smoe.pretrained import find_model

        files = find_model(model, model_file=model_file)
    output: Output
    if out is None:
        output = Printer(kind, tasks, recordings)
    else:
        settings["model"] = digest(filter(None, (files.config, files.weights)))
        output = Folder(out, kind, tasks, recordings, settings, overwrite=overwrite)
    failures = []
    with closing(output):
        if output.missing(recordings):
            with quietly():
                speech2text = Speech2Text(files.config, files.weights, **given)
            speech2text.vocabulary.language(
                speech2text.options.lang_sym
            )  # or says what is accepted
            failures = run(speech2text, recordings, tasks, output)
        else:
            print(f"all {len(recordings)} recordings are done already", file=sys.stderr)
            output.finish(recordings)
    if failures:
        head = f"{len(failures)} of {len(recordings)} recordings could not be transcribed:"
        lines = [
            str(f.error) if r.name in str(f.error) else f"{r.name}: {f.error}" for r, f in failures
        ]
        raise TranscriptionError("\n  ".join([head, *lines]))


def run(
    speech2text: Any, recordings: Sequence[Recording], tasks: Sequence[str], output: Output
) -> list[tuple[Recording, Failure]]:
    """Transcribe what is missing.

    Args:
        speech2text: A `Speech2Text`.
        recordings: All of them.
        tasks: The tasks.
        output: Takes the results, and knows what is there already.

    Returns:
        The recordings that failed, and why.

    Raises:
        ValueError: A task is not known (before any work).
    """
    from espnet_smoe.inference import Speech

    missing = output.missing(recordings)
    failures = []
    done = len(recordings) - len(missing)
    with Progress(len(recordings), done=done) as progress:
        work = ((r, Speech(r.source, name=r.name)) for r in missing)
        for recording, outcome in outcomes(speech2text, work, progress, tasks=tasks):
            if isinstance(outcome, Failure):
                failures.append((recording, outcome))
            else:
                output.add(recording, outcome)
    output.finish(recordings)
    return failures


def settings_of(options: Any) -> dict[str, Any]:
    """The options that results depend on, in JSON's types.

    Args:
        options: A dataclass.
    """
    known = dataclasses.asdict(options)
    return json.loads(json.dumps({n: v for n, v in known.items() if n not in FREE}))


def digest(files: Iterable[Path], *more: str) -> str:
    """A hash of files' contents and of further texts."""
    found = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                found.update(block)
    for text in more:
        found.update(text.encode("utf-8"))
    return found.hexdigest()
