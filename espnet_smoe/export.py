"""Export: one route of an S-MoE model as a dense model of stock ESPnet.

A route runs one expert of each bank, so what it computes is what the dense model with that expert
in the bank's place computes. The exported model has ESPnet's own classes and the parameters of the
dense model, and needs nothing of this package.

Shape letters: B prompts, T tokens, S encoder frames, D model dimension, V vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from espnet_smoe.checkpoints import ModelError, fit_weights
from espnet_smoe.dense_routes import Experts, every_route, guides, route_weights
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.model_files import pack_model, write_model
from espnet_smoe.pretrained import ARCHIVES, Pretrained
from espnet_smoe.private_tokens import PrivateOutput, hide_by_bias
from espnet_smoe.routing import SPECIAL
from espnet_smoe.stock_config import no_padding, stock_config

NOTES = "README.md"  # of an exported model
TOLERANCE = 1e-5  # by which a route may miss the model's outputs, float32
CHECKED_SECONDS = 1.0  # of noise, on which both are run


class Exporter:
    """Makes stock models of one S-MoE model's routes.

    Args:
        loaded: The S-MoE model, in eval mode.
        speech_length: Seconds to which stock ESPnet shall pad or cut; negative: neither; None: as
            the model was trained (`padding`).

    Raises:
        ModelError: The model has no experts, or a class that extends none of ESPnet's; or a
            length that is none.
    """

    def __init__(self, loaded: Pretrained, *, speech_length: float | None = None) -> None:
        from espnet2.tasks.s2t import S2TTask

        every_route(loaded.model)
        self.smoe, self.tokenizer = loaded.model, loaded.tokenizer
        self.trained_length = float(loaded.preprocessor_conf.get("speech_length", 30.0))
        unpadded = no_padding(int(loaded.preprocessor_conf.get("fs", 16000)))
        if speech_length is None:
            speech_length = unpadded if getattr(self.smoe, "trim_padding", False) else None
        elif not math.isfinite(speech_length) or speech_length == 0.0:
            raise ModelError(
                f"speech_length is {speech_length}; accepted: seconds, or a negative number for no "
                "padding"
            )
        elif speech_length < 0.0:
            speech_length = unpadded
        self.config = stock_config(vars(loaded.args), speech_length=speech_length)
        self.preprocessor_conf: dict[str, Any] = self.config["preprocessor_conf"]
        self.fs = int(self.preprocessor_conf["fs"])
        self.speech_length = float(self.preprocessor_conf["speech_length"])
        args = argparse.Namespace(**copy.deepcopy(self.config))
        self.stock = S2TTask.build_model(args).eval()

    def weights(self, experts: Experts) -> dict[str, torch.Tensor]:
        """The weights of a route by the names of the stock model, which now has them.

        Raises:
            ModelError: A class of the model's computes something else than ESPnet's, or a weight is
            no number.
        """
        weights = route_weights(self.smoe, experts)
        output_layer = getattr(self.smoe.decoder, "output_layer", None)
        if isinstance(output_layer, PrivateOutput):  # tokens that this route may not write
            weights = hide_by_bias(weights, output_layer.hidden[str(experts.decoder)])
        for name, value in weights.items():
            if not bool(torch.isfinite(value).all()):
                raise ModelError(f"weight {name} of route {experts.name} holds NaN or infinity")
        unknown = sorted(weights.keys() - self.stock.state_dict().keys())
        if unknown:
            raise ModelError(
                f"route {experts.name}: stock ESPnet has no place for {', '.join(unknown[:5])}"
                f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}"
            )
        fit_weights(self.stock, weights, origin=f"route {experts.name}")
        difference = self._difference(experts)
        if not difference <= TOLERANCE:
            parts = ", ".join(
                type(part).__name__ for part in (self.smoe, self.smoe.encoder, self.smoe.decoder)
            )
            raise ModelError(
                f"route {experts.name} as a stock model misses the S-MoE model's outputs by "
                f"{difference:.1e} (accepted: {TOLERANCE:.0e}): {parts} compute something else "
                "than the classes of ESPnet that they extend"
            )
        return weights

    def write(self, experts: Experts, out: Path, *, safe: bool = False, measured: str = "") -> Path:
        """Write a route.

        Args:
            experts: The route.
            out: A directory that is not there or is empty; or a packed model's name, such as
                ``model.zip``.
            safe: Write ``model.safetensors`` too (into a directory).
            measured: A sentence for the notes on what padding costs.

        Raises:
            ModelError: It cannot be written, or `weights` has an error.
        """
        texts = {NOTES: self.notes(experts, measured)}
        if out.name.endswith(ARCHIVES):
            if safe:
                raise ModelError(
                    f"{str(out)!r}: a packed model holds one checkpoint; accepted with safetensors "
                    "is a directory"
                )
            return pack_model(out, self.config, self.weights(experts), texts=texts)
        write_model(out, self.config, self.weights(experts), safe=safe, texts=texts)
        return out

    @property
    def padding(self) -> str:
        """What stock ESPnet will do about padding, and why, in a sentence."""
        if self.speech_length < 0:
            return (
                "stock Speech2Text will not pad (speech_length is negative): the model was trained "
                f"on unpadded audio, and zeros up to {self.trained_length:g} s would be strange to "
                "it. One sample is cut from each recording, and ESPnet's decode_long, which needs "
                "a length, would never end"
            )
        pads = f"stock Speech2Text pads or cuts to {self.speech_length:g} s"
        if getattr(self.smoe, "trim_padding", False):
            return f"{pads}, but the model was trained on unpadded audio"
        return pads + ", as in training" * (self.speech_length == self.trained_length)

    @property
    def ctc(self) -> str:
        """What to know of CTC, in a sentence; empty for a model without."""
        if self.stock.ctc is None:
            return ""
        return (
            "decode with ctc_weight 0 in stock ESPnet: its CTC scorer takes the prompt's tokens "
            "for frames and never hears the first of them, which costs the first word of a tightly "
            "cut recording, and fails (IndexError) where a hypothesis outgrows the frames; "
            "espnet_smoe mends that, and no config can"
        )

    def serves(self, experts: Experts) -> list[str]:
        """The guiding tokens of a route; empty for a decoder without experts."""
        return [token for token, name in guides(self.smoe).items() if name == experts.decoder]

    def notes(self, experts: Experts, measured: str = "") -> str:
        """What a user of the exported model must know, as Markdown."""
        prompts = ", ".join(f"`{token}`" for token in self.serves(experts))
        lines = [f"# {experts.name}: one route of an S-MoE model, as a stock ESPnet model", ""]
        lines += [
            "Exported by espnet_smoe (`espnet-smoe export`). ESPnet loads it by itself:",
            "",
            "```python",
            "from espnet2.bin.s2t_inference import Speech2Text",
            "",
            'speech2text = Speech2Text("config.yaml", "model.pth")',
            "```",
            "",
        ]
        if experts.encoder:
            lines.append(f"- The encoder's expert is `{experts.encoder}`; it hears everything.")
        if experts.decoder:
            lines.append(
                f"- The decoder's expert is `{experts.decoder}`. Its prompts have {prompts}; stock "
                "ESPnet accepts others, and the text is then wrong."
            )
        lines.append(f"- Padding: {self.padding}.{f' {measured}' if measured else ''}")
        if self.ctc:
            lines.append(f"- CTC: {self.ctc}.")
        lines.append(
            "- config.yaml names its files by absolute paths, as ESPnet needs them; a packed model "
            "(`--pack`) can be moved."
        )
        return "\n".join(lines) + "\n"

    @torch.no_grad()  # nothing could be loaded over GlobalMVN's statistics after inference mode
    def _difference(self, experts: Experts) -> float:
        """Largest absolute difference of encoder outputs and decoder scores, on noise."""
        generator = torch.Generator().manual_seed(1)
        samples = int(CHECKED_SECONDS * self.fs)
        batch = {
            "speech": torch.randn(1, samples, generator=generator) * 0.1,
            "speech_lengths": torch.tensor([samples]),
        }
        device = next(self.smoe.parameters()).device
        ours = encoded(self.smoe, experts, {k: v.to(device) for k, v in batch.items()}).cpu()
        theirs = encoded(self.stock, Experts(None, None), batch)
        if ours.shape != theirs.shape:
            return float("inf")
        worst = float((ours - theirs).abs().max())
        if self.stock.decoder is None:
            return worst
        ys_BT = example_prompts(self.smoe.token_list, self.smoe.sos, self.serves(experts))
        memory_BSD = theirs.expand(len(ys_BT), -1, -1)
        none = [None] * len(ys_BT)
        theirs, _ = self.stock.decoder.batch_score(ys_BT, none, memory_BSD)
        ours, _ = self.smoe.decoder.batch_score(ys_BT.to(device), none, memory_BSD.to(device))
        return max(worst, float((ours.cpu() - theirs).abs().max()))


def encoded(model: Any, experts: Experts, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Encoder output, float (B, S, D), of a model on a route."""
    keywords: dict[str, Any] = dict(batch)
    if experts.encoder is not None:
        route = [experts.encoder] * len(batch["speech"])
        if isinstance(model, SMoES2TModel):
            keywords["route"] = route
        else:
            model.encoder.set_route(route)
    memory = model.encode(**keywords)[0]
    return memory[0] if isinstance(memory, tuple) else memory


def example_prompts(token_list: Sequence[str], sos: int, guiding: Sequence[str]) -> torch.Tensor:
    """Hypotheses (B, T) of two words behind each guiding token (or behind ``<sos>`` alone)."""
    words = [i for i, token in enumerate(token_list) if not SPECIAL.fullmatch(token)]
    index = {token: i for i, token in enumerate(token_list)}
    tail = [words[len(words) // 2], words[-1]]
    return torch.tensor([[sos, index[g], *tail] for g in guiding] or [[sos, *tail]])
