"""Run by test_export.py in a process of its own, in which importing espnet_smoe fails.

Usage: python stock_process.py REQUESTS ANSWERS

REQUESTS (written by `torch.save`) is a list of ``config``, ``weights`` (files), ``speech`` (N,),
``ys`` (B, T) and ``tasks``; ANSWERS has for each the encoder's output, the decoder's scores of the
prefixes, the number of parameters, the class names, and ESPnet's `Speech2Text`'s tokens per task.
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any

BEAM, MAXLEN = 2, -6.0


class Blocker(importlib.abc.MetaPathFinder):
    """No plugin here."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.split(".")[0] == "espnet_smoe":
            raise ImportError("espnet_smoe is not installed")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What stock ESPnet computes."""
    import torch
    from espnet2.bin.s2t_inference import Speech2Text

    s2t = Speech2Text(
        request["config"], request["weights"], beam_size=BEAM, maxlenratio=MAXLEN, lang_sym="<spa>"
    )
    model, x, ys = s2t.s2t_model, request["speech"], request["ys"]
    with torch.inference_mode():
        memory, _ = model.encode(speech=x[None], speech_lengths=torch.tensor([len(x)]))
        scores, _ = model.decoder.batch_score(
            ys, [None] * len(ys), memory.expand(len(ys), *memory.shape[1:])
        )
    return {
        "memory": memory,
        "scores": scores,
        "parameters": sum(p.numel() for p in model.parameters()),
        "classes": [type(part).__name__ for part in (model, model.encoder, model.decoder)],
        "tokens": [s2t(x, task_sym=task)[0][2] for task in request["tasks"]],
    }


def main() -> None:
    sys.meta_path.insert(0, Blocker())
    try:
        import espnet_smoe  # noqa: F401
    except ImportError:
        pass
    else:
        raise SystemExit("espnet_smoe can be imported")
    import torch

    requests = torch.load(sys.argv[1], weights_only=True)
    torch.set_num_threads(1)
    torch.save([answer(request) for request in requests], sys.argv[2])


if __name__ == "__main__":
    main()
