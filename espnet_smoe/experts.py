"""A bank of feed-forward experts, one of which runs for an utterance.

Shape letters: B utterances, N of them that blend several experts, T frames or tokens, D model
dimension.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from espnet_smoe.blends import BLEND
from espnet_smoe.routing import Route, RoutingError, check_expert_names

logger = logging.getLogger(__name__)


class ExpertLoadError(ValueError):
    """A checkpoint's experts are not those of the bank."""


class ExpertBank(nn.Module):
    """Experts in the place of a feed-forward network; a subclass says which of them run.

    Args:
        expert: Any module from (B, T, D) to (B, T, D), such as ESPnet's
            ``PositionwiseFeedForward``, ``MultiLayeredConv1d`` and ``Conv1dLinear``. Each expert
            starts as a copy of it.
        names: The experts' names. Parameters are called ``experts.<name>.<parameter>``; their
            order carries no meaning.

    Raises:
        RoutingError: The names are empty, repeated, or no names.
    """

    beside: tuple[str, ...] = ()  # the bank's own parameters, by name

    def __init__(self, expert: nn.Module, *, names: Sequence[str]) -> None:
        super().__init__()
        names = check_expert_names(names, option="experts")
        try:
            self.experts = nn.ModuleDict({name: copy.deepcopy(expert) for name in names})
        except KeyError as error:  # the name of a torch.nn.ModuleDict method
            raise RoutingError(f"experts: {error.args[0]}; choose another name") from error

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names."""
        return tuple(self.experts)

    @property
    def axis(self) -> tuple[str, ...]:
        """What one picks from to name a route; banks with the same axis are picked together."""
        return self.names

    def idle(self, choice: str) -> int:
        """How many parameters a route that picks `choice` of the axis leaves out."""
        return sum(_numel(expert) for name, expert in self.experts.items() if name != choice)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Accept a dense feed-forward's parameters, and no other set of experts than this one.

        ESPnet loads checkpoints with ``strict=False``, which would leave a lacking expert random
        without a word. A dense checkpoint fills every expert; it may stand beside the bank's own
        present values, as ESPnet's ``--init_param`` has it.

        Raises:
            ExpertLoadError: The checkpoint lacks an expert or has one that the bank lacks.
        """
        stem = f"{prefix}experts."
        given = {key: key[len(stem) :].split(".")[0] for key in state_dict if key.startswith(stem)}
        own = {key: value.data_ptr() for key, value in self.state_dict(prefix=prefix).items()}
        fresh = {
            key: name
            for key, name in given.items()
            if key not in own or state_dict[key].data_ptr() != own[key]
        }
        beside = {f"{prefix}{name}" for name in self.beside}
        dense = [
            key
            for key in state_dict
            if key.startswith(prefix) and key not in given and key not in beside
        ]
        have = ", ".join(self.names)
        if dense:
            if fresh:
                raise ExpertLoadError(
                    f"{prefix}* holds both a dense feed-forward and experts "
                    f"({', '.join(sorted(set(fresh.values())))}); the bank has {have}"
                )
            for key in dense:
                value = state_dict.pop(key)
                for name in self.names:
                    state_dict[f"{stem}{name}.{key[len(prefix) :]}"] = value
            for name in self.beside:  # which a dense checkpoint cannot have
                state_dict.setdefault(f"{prefix}{name}", getattr(self, name).detach())
            _log_dense_once(len(self.names))
        elif fresh:
            unknown = sorted(set(fresh.values()) - set(self.names))
            missing = sorted(set(self.names) - set(fresh.values()))
            if unknown or missing:
                raise ExpertLoadError(
                    f"the checkpoint's {stem}* has {', '.join(sorted(set(fresh.values())))}; the "
                    f"bank has {have} (missing: {', '.join(missing) or 'none'}; unknown: "
                    f"{', '.join(unknown) or 'none'})"
                )
        elif not given:
            raise ExpertLoadError(f"the checkpoint has no {prefix}*; the bank has {have}")
        missing_keys = sorted(key for key in own if key not in state_dict)
        if missing_keys:
            raise ExpertLoadError(f"the checkpoint lacks {missing_keys[0]}; the bank has {have}")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class ExpertFeedForward(ExpertBank):
    """A feed-forward network per expert; the route picks one (Eqs. 2 and 3, arXiv:2508.10009).

    Takes the place of ``feed_forward`` (or ``feed_forward_macaron``) in an ESPnet block and is
    called as it is, ``y_BTD = bank(x_BTD)``. The route travels beside the call: `set_route`
    comes first, at every entry to the encoder or decoder. It stays until the next one, so that
    gradient checkpointing, which calls the bank again during the backward pass, finds it.

    Args:
        expert: As `ExpertBank`.
        names: Likewise.

    Raises:
        RoutingError: The names are empty, repeated, or no names.
    """

    def __init__(self, expert: nn.Module, *, names: Sequence[str]) -> None:
        super().__init__(expert, names=names)
        self.route: Route | None = None

    def set_route(self, route: Route) -> None:
        """Say which expert serves which row of the next batch."""
        self.route = route

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Run each row through its expert, or mix the outputs of several by its shares.

        Args:
            x_BTD: float (B, T, D).

        Returns:
            float (B, T, D).

        Raises:
            RoutingError: No route is set, or it is of another batch size.
        """
        route = self.route
        if route is None:
            raise RoutingError(
                f"an expert bank ({', '.join(self.names)}) was called without a route; call "
                "set_route on the encoder, or the decoder's own methods"
            )
        if len(route.names) != x_BTD.shape[0]:
            raise RoutingError(
                f"the route is for {len(route.names)} utterances, the batch holds {x_BTD.shape[0]}"
            )
        if len(route.groups) == 1 and not route.blends:
            return self.experts[route.groups[0][0]](x_BTD)
        parts = [self.experts[name](x_BTD.index_select(0, rows_B)) for name, rows_B in route.groups]
        if route.blends:
            parts.append(self._blended(x_BTD, route))
        y_BTD = torch.cat(parts)
        return y_BTD if route.inverse is None else y_BTD.index_select(0, route.inverse)

    def _blended(self, x_BTD: torch.Tensor, route: Route) -> torch.Tensor:
        """The rows that blend, float (N, T, D): each expert runs on those it has a share in."""
        rows = route.names.count(BLEND)
        total_NTD: torch.Tensor | None = None
        for blend in route.blends:
            y_nTD = self.experts[blend.expert](x_BTD.index_select(0, blend.rows))
            dtype = y_nTD.dtype
            part_nTD = blend.share[:, None, None] * y_nTD  # in float32 at least
            if total_NTD is None:
                total_NTD = part_nTD.new_zeros(rows, *part_nTD.shape[1:])
            total_NTD = total_NTD.index_add(0, blend.places, part_nTD)
        assert total_NTD is not None
        return total_NTD.to(dtype)


_dense_logged: set[int] = set()


def _log_dense_once(n_experts: int) -> None:
    if n_experts not in _dense_logged:
        _dense_logged.add(n_experts)
        logger.warning("dense checkpoint: each feed-forward is copied into %d experts", n_experts)


@dataclass(frozen=True)
class ParamCounts:
    """Numbers of parameters.

    Attributes:
        total: All parameters, each counted once.
        active: Per route, those that one utterance on it uses. A route is named by its experts,
            encoder first, such as ``nb/asr``.
    """

    total: int
    active: dict[str, int]


def param_counts(model: nn.Module) -> ParamCounts:
    """Count a model's parameters, in total and active per route.

    Banks with the same expert names form one axis (all encoder banks, say); a route takes one
    expert of each axis. Banks whose gate picks an expert for each token have the axis ``learned``:
    active are the gate and one expert, though an utterance's tokens may use several in turn.
    """
    banks = [m for m in model.modules() if isinstance(m, ExpertBank)]
    axes = list(dict.fromkeys(bank.axis for bank in banks))
    total = _numel(model)
    active = {}
    for choice in itertools.product(*axes):
        chosen = dict(zip(axes, choice, strict=True))
        idle = sum(bank.idle(chosen[bank.axis]) for bank in banks)
        active["/".join(choice) or "dense"] = total - idle
    return ParamCounts(total, active)


def _numel(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
