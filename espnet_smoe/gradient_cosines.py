"""Do two kinds of batches pull a model's parts the same way? Cosines between their gradients.

Gradients are compared per part: a kind of module in a layer. All inner products of the batches'
gradients are kept (a Gram matrix per part), from which the gradient of a union of batches, that of
several layers together, and every cosine follow.

Shape letters: N batches, M combinations of batches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

BLOCK = re.compile(r"(encoder|decoder)\.(?:encoders|decoders)\.(\d+)\.(.+)")
# The kind of module by the beginning of a parameter's name within its block; the first that fits.
IN_BLOCK = (
    ("feed_forward_macaron", "macaron FFN"),
    ("feed_forward", "FFN"),
    ("self_attn", "self-attention"),
    ("attn", "self-attention"),  # e-branchformer's name
    ("src_attn", "cross-attention"),
    ("conv_module.norm", "norms"),
    ("conv_module", "convolution"),
    ("cgmlp", "convolution"),
    ("norm", "norms"),
)
OUTSIDE = (
    ("encoder.embed", "subsampling"),
    ("decoder.embed", "embedding"),
    ("encoder.after_norm", "norms"),
    ("decoder.after_norm", "norms"),
    ("decoder.output_layer", "output layer"),
    ("ctc.", "CTC"),
)
OTHER = "other"
LOSSES = ("total", "attention")


@dataclass(frozen=True)
class Part:
    """A kind of module in a layer.

    Attributes:
        side: ``encoder``, ``decoder`` or ``ctc``; ``model`` for what is in none of them.
        module: Such as ``FFN``.
        layer: From 0; None: outside the blocks.
    """

    side: str
    module: str
    layer: int | None = None


def part_of(name: str) -> Part:
    """The part that a parameter belongs to, by its name."""
    block = BLOCK.fullmatch(name)
    if block:
        side, layer, rest = block.groups()
        kind = next((kind for start, kind in IN_BLOCK if rest.startswith(start)), OTHER)
        return Part(side, kind, int(layer))
    side = name.partition(".")[0]
    kind = next((kind for start, kind in OUTSIDE if name.startswith(start)), OTHER)
    return Part(side if side in ("encoder", "decoder", "ctc") else "model", kind)


@contextmanager
def _attention_loss(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collects the attention loss of each forward pass, with its graph."""
    seen: list[torch.Tensor] = []
    hook = model.criterion_att.register_forward_hook(lambda *call: seen.append(call[2]))
    try:
        yield seen
    finally:
        hook.remove()


def loss_gradients(
    model: Any, batch: Mapping[str, Any], *, seed: int = 0
) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of one batch's losses; the model's own ``grad`` fields stay as they are.

    Args:
        model: Of ESPnet's S2T task. Its mode is the caller's choice; in eval mode the loss of a
            batch is a mean over its utterances (no dropout, no statistics of the batch).
        batch: What its ``forward`` takes.
        seed: Of what is still random.

    Returns:
        Per loss (`LOSSES`: ``total`` is what training minimises, ``attention`` the decoder's part
        alone) the gradient of each parameter that takes part in it, by name.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    torch.manual_seed(seed)
    with _attention_loss(model) as seen:
        total, _, _ = model(**batch)
    found = {}
    for kind, loss in zip(LOSSES, (total.sum(), seen[0].sum()), strict=True):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        found[kind] = {
            name: gradient.detach()
            for (name, _), gradient in zip(named, gradients, strict=True)
            if gradient is not None
        }
    return found


def gram(gradients: Sequence[Mapping[str, torch.Tensor]]) -> dict[Part, np.ndarray]:
    """Inner products of N gradients per part, float64 (N, N); a lacking parameter counts as 0."""
    names = list(dict.fromkeys(name for gradient in gradients for name in gradient))
    found: dict[Part, np.ndarray] = {}
    for name in names:
        have = [i for i, gradient in enumerate(gradients) if name in gradient]
        rows = torch.stack([gradients[i][name].flatten().double() for i in have])
        products = found.setdefault(part_of(name), np.zeros((len(gradients),) * 2))
        products[np.ix_(have, have)] += (rows @ rows.T).cpu().numpy()
    return found


def together(grams: Iterable[np.ndarray]) -> np.ndarray:
    """The Gram matrix of several parts taken as one."""
    return np.sum(list(grams), axis=0)


def cosines(gram_NN: np.ndarray, weights_MN: np.ndarray) -> np.ndarray:
    """Cosines between combinations of batches.

    Args:
        gram_NN: Inner products of N gradients.
        weights_MN: What each of M combinations takes of each batch.

    Returns:
        (M, M); NaN where a combination's gradient is 0.
    """
    products_MM = weights_MN @ gram_NN @ weights_MN.T
    norms_M = np.sqrt(np.maximum(np.diag(products_MM), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return products_MM / np.outer(norms_M, norms_M)


@dataclass(frozen=True)
class Pull:
    """How two kinds of batches pull a part, from one round of four batches: A1, A2, B1, B2.

    Attributes:
        across: Mean cosine of an A with a B (four pairs).
        within_a: Cosine of A1 and A2: what the noise of a batch leaves of a perfect agreement.
        within_b: Likewise B1 and B2.
    """

    across: float
    within_a: float
    within_b: float

    @classmethod
    def of(cls, gram_NN: np.ndarray, a1: Sequence[float], a2: Sequence[float],
           b1: Sequence[float], b2: Sequence[float]) -> Pull:  # fmt: skip
        """From the Gram matrix of a round and the weights of the four combinations, each (N,)."""
        found = cosines(gram_NN, np.array([a1, a2, b1, b2], dtype=np.float64))
        return cls(float(found[:2, 2:].mean()), float(found[0, 1]), float(found[2, 3]))

    @property
    def within(self) -> float:
        """Mean of both."""
        return (self.within_a + self.within_b) / 2


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of independent rounds and its 95 % interval (Student's t); NaN bounds for one."""
    from scipy import stats

    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return mean, mean - half, mean + half
