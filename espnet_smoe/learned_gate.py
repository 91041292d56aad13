"""A bank of feed-forward experts whose gate is learned: it picks an expert for each token.

The alternative that S-MoE is compared with: the Switch Transformer's top-1 softmax gate
(arXiv:2101.03961) over the same experts in the same places.

Shape letters: B utterances, T frames or tokens, N = B x T of them, n those of one expert, D model
dimension, E experts, L keys of an attention mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from espnet_smoe.compat import PositionwiseFeedForward
from espnet_smoe.experts import ExpertBank

GATE_SCALES = ("one", "switch")
INIT_SCALE = 0.1  # s of section 2.4, arXiv:2101.03961: gate weights have a variance of s / D
LEARNED = ("learned",)  # the axis of these banks in a route's name


class GatedFeedForward(ExpertBank):
    """A feed-forward network per expert; a gate picks one for each token by its content.

    Takes the place of ``feed_forward`` (or ``feed_forward_macaron``) in an ESPnet block and is
    called as it is, ``y_BTD = bank(x_BTD)``. Each token goes through the expert that the gate finds
    likeliest (Eqs. 1 and 2, arXiv:2101.03961, k = 1) and through no other, with no limit on how
    many tokens an expert gets (no capacity factor: none is dropped). Padding goes through too, so
    that with equal experts a block equals the dense one, BatchNorm's statistics included, but it
    takes no part in the loss. On a GPU a call waits for the device once, for the number of tokens
    per expert.

    In training each call keeps its load-balance loss for `balance_loss`. It works with
    ESPnet's gradient checkpointing: the block's second run during the backward pass leaves a loss
    behind that `forget_balance` drops before the next step.

    Which tokens are real the bank learns from `hand_mask`, a hook of the block that it is in.

    Args:
        expert: A network that works on each token by itself, such as ESPnet's
            ``PositionwiseFeedForward``. Each expert starts as a copy of it, as in S-MoE; the gate's
            random weights tell them apart.
        size: The model dimension, D.
        experts: How many.
        balance_weight: Weight of the load-balance loss, alpha of Eq. 4.
        gate_scale: ``switch``: the expert's output times its gate probability p, as the paper has
            it. ``one``: times p / p, of which the divisor has no gradient: the gate learns from the
            same output, but the factor is 1. The default, since a bank then computes what S-MoE's
            and a dense feed-forward compute if the experts are equal; p, about 1 / E at first,
            would make every residual branch smaller than theirs.
        gate_jitter: In training, the gate's input is multiplied by random factors from 1 - jitter
            to 1 + jitter.

    Raises:
        RoutingError: No experts.
        ValueError: A value that is not accepted.
    """

    beside = ("gate_weight",)

    def __init__(
        self,
        expert: nn.Module,
        size: int,
        *,
        experts: int = 2,
        balance_weight: float = 0.01,
        gate_scale: str = "one",
        gate_jitter: float = 0.0,
    ) -> None:
        if isinstance(experts, bool) or not isinstance(experts, int) or experts < 1:
            raise ValueError(f"experts is {experts!r}; accepted: a number of experts, from 1 on")
        if gate_scale not in GATE_SCALES:
            raise ValueError(f"gate_scale {gate_scale!r}; accepted: {', '.join(GATE_SCALES)}")
        if not 0.0 <= gate_jitter < 1.0:
            raise ValueError(f"gate_jitter is {gate_jitter}; accepted: 0 to below 1")
        if not balance_weight >= 0.0:
            raise ValueError(f"balance_weight is {balance_weight}; accepted: 0 or more")
        super().__init__(expert, names=[f"e{index}" for index in range(experts)])
        # no nn.Linear, which int8 quantization would take: choices need full precision
        self.gate_weight = nn.Parameter(torch.empty(experts, size))
        nn.init.trunc_normal_(self.gate_weight, std=(INIT_SCALE / size) ** 0.5)
        self.balance_weight = balance_weight
        self.gate_scale = gate_scale
        self.gate_jitter = gate_jitter
        self.mask_BT: torch.Tensor | None = None  # of the next call
        self.balance: torch.Tensor | None = None  # of the last call in training
        self.recording: list[tuple[torch.Tensor, torch.Tensor]] | None = None  # see GateRecord

    @property
    def axis(self) -> tuple[str, ...]:
        """``learned``: the utterance picks nothing."""
        return LEARNED

    def idle(self, choice: str) -> int:
        """All experts but one: what a token leaves out. The experts are of one size."""
        sizes = [sum(p.numel() for p in expert.parameters()) for expert in self.experts.values()]
        return sum(sizes) - max(sizes)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Run each token through the expert of its choice.

        Args:
            x_BTD: float (B, T, D).

        Returns:
            float (B, T, D).
        """
        mask_BT, self.mask_BT = self._real(x_BTD), None
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        prob_NE = self._probabilities(x_ND)
        chance_N, choice_N = prob_NE.max(dim=-1)
        if self.training and len(self.experts) > 1:
            load = load_balance(prob_NE, choice_N, mask_BT.reshape(-1))
            self.balance = self.balance_weight * load
        if self.recording is not None:
            choice_BT = choice_N.view(x_BTD.shape[:-1])
            self.recording.append((choice_BT.detach().cpu(), mask_BT.cpu()))
        y_ND = self._dispatch(x_ND, choice_N)
        scale_N = chance_N if self.gate_scale == "switch" else chance_N / chance_N.detach()
        return (y_ND * scale_N[:, None].to(y_ND.dtype)).view(*x_BTD.shape[:-1], -1)

    def _real(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Which tokens are no padding, bool (B, T); without a mask, all."""
        if self.mask_BT is None:
            return x_BTD.new_ones(x_BTD.shape[:-1], dtype=torch.bool)
        # a search's mask is for one row, and its blocks compute the last token only
        return self.mask_BT[:, -x_BTD.shape[1] :].expand(x_BTD.shape[:-1])

    def _probabilities(self, x_ND: torch.Tensor) -> torch.Tensor:
        """The gate's, float32 (N, E), under autocast too (section 2.4, arXiv:2101.03961)."""
        with torch.autocast(x_ND.device.type, enabled=False):
            x_ND = x_ND.float()
            if self.training and self.gate_jitter > 0.0:
                low, high = 1.0 - self.gate_jitter, 1.0 + self.gate_jitter
                x_ND = x_ND * torch.empty_like(x_ND).uniform_(low, high)
            return functional.linear(x_ND, self.gate_weight.float()).softmax(dim=-1)

    def _dispatch(self, x_ND: torch.Tensor, choice_N: torch.Tensor) -> torch.Tensor:
        """Each token's output of its expert, (N, D)."""
        counts = choice_N.bincount(minlength=len(self.experts)).tolist()
        if max(counts) == len(x_ND):
            return self.experts[self.names[counts.index(max(counts))]](x_ND)
        order_N = choice_N.argsort(stable=True)
        parts = x_ND.index_select(0, order_N).split(counts)
        outputs = [
            expert(x_nD)
            for expert, x_nD in zip(self.experts.values(), parts, strict=True)
            if len(x_nD)
        ]
        return torch.cat(outputs).index_select(0, order_N.argsort())


def load_balance(
    prob_NE: torch.Tensor, choice_N: torch.Tensor, real_N: torch.Tensor
) -> torch.Tensor:
    """``E * sum_i f_i P_i`` of Eqs. 4 to 6, arXiv:2101.03961: 1 if all experts have equal shares.

    Args:
        prob_NE: The gate's probabilities, float32 (N, E).
        choice_N: The expert of each token, int64 (N,).
        real_N: Which tokens count, bool (N,); at least one.

    Returns:
        A scalar, with a gradient through P.
    """
    n_experts = prob_NE.shape[1]
    weight_N = real_N.to(prob_NE.dtype)
    weight_N = weight_N / weight_N.sum()
    share_E = weight_N @ functional.one_hot(choice_N, n_experts).to(prob_NE.dtype)  # f, Eq. 5
    mean_E = (weight_N[:, None] * prob_NE).sum(dim=0)  # P, Eq. 6
    return n_experts * (share_E * mean_E).sum()


def gated_banks(module: nn.Module) -> dict[str, GatedFeedForward]:
    """The banks below a module by name, found anew so that DataParallel's replicas find theirs."""
    return {n: m for n, m in module.named_modules() if isinstance(m, GatedFeedForward)}


def forget_balance(module: nn.Module) -> None:
    """Drop the losses that the banks have kept, before a training step."""
    for bank in gated_banks(module).values():
        bank.balance = None


def balance_loss(module: nn.Module) -> torch.Tensor | None:
    """The load-balance loss of a training step, averaged over the banks that were called.

    Returns:
        A scalar, each bank's with its weight; 0 if no bank was called (or all have one expert), and
        None for a model without such banks.
    """
    banks = gated_banks(module)
    if not banks:
        return None
    terms = [bank.balance for bank in banks.values() if bank.balance is not None]
    if not terms:
        return next(iter(banks.values())).gate_weight.new_zeros(())
    return torch.stack(terms).mean()


def give_gates(block: nn.Module, layers: Sequence[str], **options: Any) -> None:
    """Put banks in the place of a block's feed-forward networks.

    Args:
        block: A layer of ESPnet's encoders or decoders.
        layers: Attributes of it; those that are None are left alone.
        **options: Of `GatedFeedForward`.

    Raises:
        ValueError: A feed-forward that mixes neighbouring tokens.
    """
    for layer in layers:
        dense = getattr(block, layer, None)
        if dense is None:
            continue
        if not isinstance(dense, PositionwiseFeedForward):
            raise ValueError(
                f"{layer} is a {type(dense).__name__}, which mixes neighbouring frames; a gate "
                "picks an expert for each by itself: accepted is positionwise_layer_type: linear"
            )
        setattr(block, layer, GatedFeedForward(dense, dense.w_1.in_features, **options))
    block.register_forward_pre_hook(hand_mask)


def hand_mask(block: nn.Module, args: tuple[Any, ...]) -> None:
    """A forward pre-hook of a block: tells its banks which tokens are real.

    ESPnet calls an encoder's and a decoder's blocks with ``(x, mask, ...)``, and a feed-forward in
    them with x alone. The hook reads the mask where it passes by, so that subsampling, CTC trimming
    and gradient checkpointing, which runs hooks again, need no care of ours. The mask is bool
    (B, 1, T) in an encoder and (B, T, L) or (1, T, L) in a decoder, causal: its last row is the
    padding mask of all. A bank uses a mask once: where ESPnet or our search calls
    ``feed_forward`` without the block, all tokens are real.
    """
    mask = args[1] if len(args) > 1 else None
    for bank in gated_banks(block).values():
        bank.mask_BT = None if mask is None else mask[:, -1].bool()


class GateRecord:
    """What the gates of a model choose, from `record_gates` until `stop` (or the ``with`` ends).

    It is for calls of the encoder, or of the whole model (teacher forcing), without gradient
    checkpointing. In a search the rows are hypotheses and not utterances.
    """

    def __init__(self, model: nn.Module) -> None:
        self._banks = gated_banks(model)
        if not self._banks:
            raise ValueError("the model has no learned gates to record")
        self._calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for name, bank in self._banks.items():
            self._calls[name] = bank.recording = []

    @property
    def experts(self) -> dict[str, int]:
        """Per bank how many experts it has."""
        return {name: len(bank.experts) for name, bank in self._banks.items()}

    @property
    def choices(self) -> dict[str, list[torch.Tensor]]:
        """Per bank one tensor int64 (T,) per utterance, padding left out, in the order of calls.

        A bank is named as in the model: ``encoder.encoders.0.feed_forward``.
        """
        return {
            name: [
                choice_T[mask_T]
                for choice_BT, mask_BT in calls
                for choice_T, mask_T in zip(choice_BT, mask_BT, strict=True)
            ]
            for name, calls in self._calls.items()
        }

    def shares(self) -> dict[str, torch.Tensor]:
        """Per bank the share of all tokens that each expert got, float64 (E,)."""
        return {
            name: torch.cat(rows).bincount(minlength=self.experts[name]).double()
            / sum(len(row) for row in rows)
            for name, rows in self.choices.items()
            if rows
        }

    def stop(self) -> None:
        """Record no more; what is recorded stays."""
        for bank in self._banks.values():
            bank.recording = None

    def __enter__(self) -> GateRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def record_gates(model: nn.Module) -> GateRecord:
    """Begin to record what the gates of a model choose.

    Example:
        >>> with record_gates(model) as record:
        ...     model(**batch)
        >>> record.choices["encoder.encoders.0.feed_forward"]  # a tensor (T,) per utterance

    Raises:
        ValueError: It has no learned gates.
    """
    return GateRecord(model)
