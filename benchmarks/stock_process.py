"""ESPnet in a process of its own, in which importing espnet_smoe fails.

    python benchmarks/stock_process.py REQUESTS ANSWERS

REQUESTS (written by `torch.save`) is a list of dicts: ``config`` and ``weights`` are files,
``speech`` is a list of waveforms (N,). With ``ys`` (B, T), the answer has for each waveform the
encoder's output and the decoder's scores of these prefixes. With ``decode``, a list of options of
ESPnet's `Speech2Text`, it has the tokens and the texts of each waveform for each of those. Used by
`export.py`, `export_texts.py` and the tests.
"""

from __future__ import annotations

import importlib.abc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Blocker(importlib.abc.MetaPathFinder):
    """No plugin here."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.split(".")[0] == "espnet_smoe":
            raise ImportError("espnet_smoe is not installed")


def ask(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have a new process answer."""
    import torch

    with tempfile.TemporaryDirectory() as directory:
        files = [str(Path(directory) / name) for name in ("requests", "answers")]
        torch.save(requests, files[0])
        command = [sys.executable, str(Path(__file__).absolute()), *files]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        answers: list[dict[str, Any]] = torch.load(files[1], weights_only=True)
    return answers


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What stock ESPnet computes and writes."""
    from espnet2.tasks.s2t import S2TTask

    model, _ = S2TTask.build_model_from_file(request["config"], request["weights"])
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "classes": [type(part).__name__ for part in (model, model.encoder, model.decoder)],
    }
    if "ys" in request:
        pairs = [computed(model.eval(), x, request["ys"]) for x in request["speech"]]
        found["memory"], found["scores"] = map(list, zip(*pairs, strict=True))
    del model
    found["decoded"] = [decoded(request, options) for options in request.get("decode", [])]
    return found


def computed(model: Any, x: Any, ys: Any) -> tuple[Any, Any]:
    """Encoder output of a waveform, and the decoder's scores of prefixes."""
    import torch

    with torch.inference_mode():
        memory, _ = model.encode(speech=x[None], speech_lengths=torch.tensor([len(x)]))
        memories = memory.expand(len(ys), *memory.shape[1:])
        scores, _ = model.decoder.batch_score(ys, [None] * len(ys), memories)
    return memory, scores


def decoded(request: dict[str, Any], options: dict[str, Any]) -> list[tuple[list[int] | None, str]]:
    """The best hypothesis of each waveform: tokens, and text without special tokens.

    None and no text where ESPnet's CTC scorer fails: a hypothesis that outgrows the frames.
    """
    from espnet2.bin.s2t_inference import Speech2Text

    s2t = Speech2Text(request["config"], request["weights"], **options)
    found: list[tuple[list[int] | None, str]] = []
    for x in request["speech"]:
        try:
            _, _, tokens, text, _ = s2t(x)[0]
            found.append((tokens, text or ""))
        except IndexError:
            found.append((None, ""))
    return found


def main() -> None:
    sys.meta_path.insert(0, Blocker())
    try:
        import espnet_smoe  # noqa: F401
    except ImportError:
        pass
    else:
        raise SystemExit("espnet_smoe can be imported")
    import torch

    torch.set_num_threads(1)
    requests = torch.load(sys.argv[1], weights_only=True)
    torch.save([answer(request) for request in requests], sys.argv[2])


if __name__ == "__main__":
    main()
