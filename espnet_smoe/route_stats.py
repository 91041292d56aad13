"""Loss, accuracy and number of utterances per route, logged during training; who starves.

Shape letters: B utterances, T tokens, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
import torch.distributed
from torch import nn

LOSS, CORRECT, TOKENS, UTTERANCES = range(4)  # columns of a score table
WATCHED_STEPS = 1000  # of the window over which shares are taken


class ObservedLoss(nn.Module):
    """An attention loss that also remembers each utterance's share of it.

    ESPnet's model hands its criterion the decoder's output and then drops it; wrapping the
    criterion gives figures per utterance without a second pass through the decoder.

    Args:
        criterion: ESPnet's ``LabelSmoothingLoss``.
    """

    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion
        self._scores_B4: torch.Tensor | None = None

    def forward(self, x_BTV: torch.Tensor, target_BT: torch.Tensor) -> torch.Tensor:
        """The criterion's loss; keeps the scores for `take`."""
        with torch.no_grad():
            self._scores_B4 = self._score(x_BTV.detach(), target_BT)
        return self.criterion(x_BTV, target_BT)

    def take(self) -> torch.Tensor:
        """The last batch's scores (B, 4): loss, correct tokens, tokens, 1; forgets them."""
        scores = self._scores_B4
        if scores is None:
            raise RuntimeError("take() comes after a forward pass, once")
        self._scores_B4 = None
        return scores

    def _score(self, x_BTV: torch.Tensor, target_BT: torch.Tensor) -> torch.Tensor:
        """Label-smoothed KL divergence per utterance, in closed form.

        With confidence c on the target and s/(V-1) on every other token, the divergence is the
        constant sum(p log p) minus sum(p log q), and log q is x minus its log-sum-exp.
        """
        c, s = self.criterion.confidence, self.criterion.smoothing
        rest = s / (self.criterion.size - 1)
        valid_BT = target_BT != self.criterion.padding_idx
        target = target_BT.masked_fill(~valid_BT, 0).unsqueeze(-1)
        norm_BT = torch.logsumexp(x_BTV, dim=-1).float()
        hit_BT = x_BTV.gather(-1, target).squeeze(-1).float() - norm_BT
        all_BT = x_BTV.sum(dim=-1, dtype=torch.float32) - self.criterion.size * norm_BT
        constant = sum(p * torch.log(torch.tensor(p)).item() for p in [c] if p > 0)
        if rest > 0:
            constant += s * torch.log(torch.tensor(rest)).item()
        loss_BT = constant - c * hit_BT - rest * (all_BT - hit_BT)
        correct_BT = (x_BTV.argmax(dim=-1) == target_BT) & valid_BT
        tokens_B = valid_BT.sum(dim=1).float()
        return torch.stack(
            [
                loss_BT.masked_fill(~valid_BT, 0.0).sum(dim=1),
                correct_BT.sum(dim=1).float(),
                tokens_B,
                torch.ones_like(tokens_B),
            ],
            dim=1,
        )


class RouteStats:
    """Turns scores per utterance into ``loss_att_<route>``, ``acc_<route>`` and ``n_<route>``.

    A route is ``<decoder expert>_<encoder expert>``, such as ``asr_nb``; a dense side has no part
    in the name. The keys and their order are the same at every step and on every rank: ESPnet's
    DDP average matches them by position. An absent route is NaN, which its averages ignore, and
    its ``n`` is 0.

    Args:
        decoder_axis: The decoder's expert names; empty: dense.
        encoder_axis: The encoder's.
        per_token: Losses per token, as with ESPnet's ``length_normalized_loss: true``, rather
            than per utterance.
        floor: Least share of the utterances of `WATCHED_STEPS` training steps that a route may
            have without a warning; 0: no warning.
    """

    def __init__(
        self,
        decoder_axis: Sequence[str],
        encoder_axis: Sequence[str],
        *,
        per_token: bool = False,
        floor: float = 0.0,
    ) -> None:
        self.loss_unit = TOKENS if per_token else UTTERANCES
        self.routes = [
            tuple(name for name in (d, e) if name)
            for d in list(decoder_axis) or [""]
            for e in list(encoder_axis) or [""]
        ]
        self.watch = RouteWatch(["_".join(route) for route in self.routes], floor)

    def __call__(
        self,
        scores_B4: torch.Tensor,
        decoder_names: Sequence[str] | None,
        encoder_names: Sequence[str] | None,
        training: bool,
    ) -> dict[str, torch.Tensor]:
        """Figures per route of one batch; none for a model without routes.

        Args:
            scores_B4: As `ObservedLoss.take` gives them.
            decoder_names: The decoder's expert of each utterance; None: dense.
            encoder_names: The encoder's; None: dense.
            training: Under distributed training the figures are those of the whole step, all
                ranks together. (Not outside training, where ESPnet runs some batches on rank 0
                alone: there each rank has its own figures.)

        Returns:
            Tensors of shape (1,), in a fixed order.
        """
        if self.routes == [()]:
            return {}
        sides = [names for names in (decoder_names, encoder_names) if names is not None]
        row_routes = list(zip(*sides, strict=True))
        index = {route: i for i, route in enumerate(self.routes)}
        which_B = torch.tensor([index[r] for r in row_routes], device=scores_B4.device)
        sums = scores_B4.new_zeros(len(self.routes), scores_B4.shape[1])
        sums.index_add_(0, which_B, scores_B4)
        if training and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        if training:
            self.watch.add(sums[:, UTTERANCES])
        stats: dict[str, torch.Tensor] = {}
        for route, row in zip(self.routes, sums, strict=True):
            name = "_".join(route)
            # 0 / 0 is NaN: an absent route
            stats[f"loss_att_{name}"] = (row[LOSS] / row[self.loss_unit])[None]
            stats[f"acc_{name}"] = (row[CORRECT] / row[TOKENS])[None]
            stats[f"n_{name}"] = row[UTTERANCES][None]
        return stats


class RouteWatch:
    """Warns of routes that training hardly hears.

    Counts stay on the device; they are read once per window, so that no step waits for the GPU.
    Under distributed training rank 0 warns. (Where ESPnet replicates the model in one process,
    one replica's share is watched.)

    Args:
        names: Name per route.
        floor: Least share without a warning; 0: none is given.
        window: Steps between two looks.
    """

    def __init__(self, names: Sequence[str], floor: float, *, window: int = WATCHED_STEPS) -> None:
        self.names = list(names)
        self.floor = floor
        self.window = window
        self.steps = 0
        self._counts_R: torch.Tensor | None = None

    def add(self, utterances_R: torch.Tensor) -> None:
        """Count one step's utterances per route, float (R,), of all ranks together."""
        if self.floor <= 0.0:
            return
        if self._counts_R is None:
            self._counts_R = torch.zeros_like(utterances_R, dtype=torch.float64)
        if self._counts_R.device != utterances_R.device:
            return
        self._counts_R += utterances_R.detach()
        self.steps += 1
        if self.steps == self.window:
            self._look(self._counts_R.tolist())
            self.steps, self._counts_R = 0, None

    def _look(self, counts: list[float]) -> None:
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        total = sum(counts)
        if not total or (distributed and torch.distributed.get_rank() != 0):
            return
        for name, count in zip(self.names, counts, strict=True):
            if count / total < self.floor:
                logging.warning(
                    f"route {name} had {count / total:.2%} of the utterances of the last "
                    f"{self.window} steps, below model_conf.route_floor {self.floor}: its experts "
                    "hardly train (stage 6's --route_temperature raises small routes)"
                )
