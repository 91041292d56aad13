"""A `Speech2Text` that loads and hears nothing, for the tests of what is built around it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from espnet_smoe.bandwidth import BandwidthEstimate
from espnet_smoe.hypotheses import SearchOptions
from espnet_smoe.results import Entry, Failure, Result, Segment

WIDE = BandwidthEstimate("wb", 7800.0, 0.98, 0.98)
NARROW = BandwidthEstimate("nb", 3600.0, 1.0, 0.0)


def segment(
    text: str, start: float = 0.0, end: float = 2.0, *, channel: int | None = None, nb: bool = False
) -> Segment:
    """A stretch of a recording."""
    route = "nb/asr" if nb else "wb/asr"
    return Segment(start, end, text, -1.5, channel, route, NARROW if nb else WIDE)


def result(*segments: Segment, name: str = "a.wav", task: str = "asr") -> Result:
    """The result of a recording."""
    text = " ".join(s.text for s in segments)
    hyp = types.SimpleNamespace(score=-1.5)
    best = Entry(f"<spa><{task}>{text}", ["<spa>", f"<{task}>", *text.split()], [5], text, hyp)
    duration = max((s.end for s in segments), default=0.0)
    return Result(name, task, "spa", text, -1.5, (best,), duration, segments)


@dataclass
class FakeSpeech:
    """As `espnet_smoe.inference.Speech`."""

    audio: Any
    name: str | None = None
    tasks: Sequence[str] | None = None
    language: str | None = None


class FakeSpeech2Text:
    """Writes what it hears after the recording's name: ``asr a.wav``.

    Class attributes are set by tests; `heard` lists the names in order.

    Attributes:
        stop_after: Interrupt after so many recordings, as Ctrl-C or a kill does.
        window: Recordings taken in before results come out, as a batch is.
    """

    heard: list[str] = []
    loaded: list[dict[str, Any]] = []
    stop_after = 10**9
    window = 2

    def __init__(self, *files: Any, **keywords: Any) -> None:
        unknown = set(keywords) - {"beam_size", "device", "bandwidth", "ctc_weight"}
        if unknown:
            raise FakeOptionError(f"unknown option {min(unknown)!r}; accepted: beam_size")
        self.options = types.SimpleNamespace(lang_sym=None)
        self.vocabulary = types.SimpleNamespace(language=lambda name: name)
        self.loaded.append(keywords)

    @classmethod
    def from_pretrained(cls, *files: Any, model_file: str, **keywords: Any) -> FakeSpeech2Text:
        return cls(*files, model_file, **keywords)

    def stream(
        self, items: Iterable[FakeSpeech], *, tasks: Sequence[str] | None = None, on_error: str
    ) -> Iterator[dict[str, Result] | Failure]:
        assert on_error == "return"
        if tasks and set(tasks) - {"asr", "st_eng"}:
            raise FakeOptionError(f"the model knows no task {tasks[0]!r}; accepted: asr, st_eng")
        return self._stream(items, tasks)

    def _stream(self, items: Iterable[FakeSpeech], tasks: Any) -> Iterator[Any]:
        waiting: list[FakeSpeech] = []
        for item in items:
            waiting.append(item)
            if len(waiting) == self.window:
                yield from self._decode(waiting, tasks)
        yield from self._decode(waiting, tasks)

    def _decode(self, waiting: list[FakeSpeech], tasks: Any) -> Iterator[Any]:
        while waiting:
            if len(self.heard) >= self.stop_after:
                raise KeyboardInterrupt
            item = waiting.pop(0)
            self.heard.append(str(item.name))
            if isinstance(item.audio, str) and not Path(item.audio).exists():
                yield Failure(str(item.name), ValueError(f"{item.name} does not exist"))
                continue
            yield {
                task: result(segment(f"{task} {item.name}"), name=str(item.name), task=task)
                for task in item.tasks or tasks
            }


class FakeOptionError(ValueError):
    """As `espnet_smoe.inference_options.OptionError`."""


@dataclass(frozen=True)
class FakeOptions(SearchOptions):
    """As `espnet_smoe.inference_options.Options`."""

    device: str = "cpu"

    @classmethod
    def of(cls, keywords: dict[str, Any]) -> FakeOptions:
        return cls(**keywords)


def install(monkeypatch: pytest.MonkeyPatch) -> type[FakeSpeech2Text]:
    """Put the fakes in the place of the modules that load a model."""
    monkeypatch.setattr(FakeSpeech2Text, "heard", [])
    monkeypatch.setattr(FakeSpeech2Text, "loaded", [])
    modules = {
        "inference": {"Speech": FakeSpeech, "Speech2Text": FakeSpeech2Text},
        "inference_options": {"Options": FakeOptions, "OptionError": FakeOptionError},
        "pretrained": {"find_model": find_model},
    }
    for name, content in modules.items():
        module = types.ModuleType(f"espnet_smoe.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return FakeSpeech2Text


def find_model(source: str, *, model_file: str | None = None) -> Any:
    """As `espnet_smoe.pretrained.find_model`, of a directory."""
    config = Path(source) / "config.yaml"
    if not config.exists():
        raise ValueError(f"model {source!r} does not exist")
    return types.SimpleNamespace(config=config, weights=Path(source) / (model_file or "m.pth"))
