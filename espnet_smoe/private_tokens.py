"""Tokens that only some of the decoder's experts may write.

A token that is added to a trained model with an expert of its own must not change what the other
experts write. So its score is `HIDDEN` where they run, in training and in decoding, by ESPnet's
search and by ours: its probability is then exactly 0 in float32, and that of every other token
exactly what it was without the new one.

In ESPnet's label-smoothing loss, which gives each token of the vocabulary a share of the target, a
hidden token adds a constant to the loss of the routes that it is hidden from: about
``smoothing * -HIDDEN / (V - 1)`` for each target token (2.9 at 350 tokens, 0.025 at 40,000). It has
no gradient, and does not order models differently.

Shape letters: B utterances or hypotheses, N rows of any kind, D model dimension, V vocabulary, W a
slice of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from espnet_smoe.routing import Route, RoutingError

HIDDEN = -1e4  # exp() of it is 0 in float32; -inf would make losses infinite
OUTPUT = "decoder.output_layer"
CTC = "ctc.ctc_lo"
OPTION = "model_conf.private_tokens"


def hidden_ids(
    private_tokens: Mapping[str, Sequence[str]], token_list: Sequence[str], experts: Iterable[str]
) -> dict[str, tuple[int, ...]]:
    """The ids that each expert may not write, sorted.

    Args:
        private_tokens: Per token the experts that may write it; none: no expert may.
        token_list: The model's.
        experts: The decoder's.

    Raises:
        RoutingError: A token that the list lacks, or an expert that the decoder lacks.
    """
    experts = tuple(experts)
    if not isinstance(private_tokens, Mapping):
        raise RoutingError(
            f"{OPTION} is {private_tokens!r}; it takes a mapping such as {{<st_deu>: [deu]}}"
        )
    ids = {token: i for i, token in enumerate(token_list)}
    found: dict[str, list[int]] = {name: [] for name in experts}
    for token, owners in private_tokens.items():
        if token not in ids:
            raise RoutingError(f"{OPTION}: {token!r} is not in the token list")
        if isinstance(owners, str):
            raise RoutingError(f"{OPTION}.{token} is {owners!r}; it takes a list of experts")
        unknown = [name for name in owners if name not in experts]
        if unknown:
            raise RoutingError(
                f"{OPTION}.{token} names {', '.join(map(repr, unknown))}; accepted: "
                f"{', '.join(experts) or 'nothing: the decoder has no experts'}"
            )
        for name in set(experts) - set(owners):
            found[name].append(ids[token])
    return {name: tuple(sorted(hidden)) for name, hidden in found.items()}


def hide_by_bias(
    weights: Mapping[str, torch.Tensor], ids: Sequence[int], *, layer: str = OUTPUT
) -> dict[str, torch.Tensor]:
    """Give tokens the constant score `HIDDEN`, for a model that routes nothing.

    Args:
        weights: By name; are not changed.
        ids: The tokens.
        layer: The linear layer's name, with a bias: the decoder's output layer, or `CTC`.

    Returns:
        All of `weights`; of the layer, the rows of `ids` are 0 and their biases `HIDDEN`.

    Raises:
        RoutingError: The layer has no weight or no bias, or not so many tokens.
    """
    changed = dict(weights)
    for name, value in ((f"{layer}.weight", 0.0), (f"{layer}.bias", HIDDEN)):
        if name not in changed:
            raise RoutingError(f"the weights have no {name}; tokens can be hidden by a bias alone")
        tensor = changed[name].clone()
        if ids and not 0 <= min(ids) <= max(ids) < len(tensor):
            raise RoutingError(f"{name} has {len(tensor)} tokens; to be hidden are {list(ids)}")
        tensor[list(ids)] = value
        changed[name] = tensor
    return changed


class PrivateOutput(nn.Linear):
    """The decoder's output layer, which hides from each row what its expert may not write.

    Like an expert bank it is told the route before each call, and its parameters are called as
    before.

    Args:
        layer: The layer whose place it takes, and whose parameters it has.
        hidden: Per expert the ids that it may not write (`hidden_ids`).
    """

    def __init__(self, layer: nn.Linear, hidden: Mapping[str, Sequence[int]]) -> None:
        super().__init__(
            layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.hidden = {name: tuple(ids) for name, ids in hidden.items()}
        self.route: Route | None = None

    def set_route(self, route: Route) -> None:
        """Say which expert serves which row of the next batch."""
        self.route = route

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        """Scores of the vocabulary, float (B, V) or (B, T, V), for x of (B, D) or (B, T, D).

        Raises:
            RoutingError: No route is set, or it is of another batch size.
        """
        return self.hide(super().forward(x_ND))

    def hide(self, score_BW: torch.Tensor, first: int = 0, value: float = HIDDEN) -> torch.Tensor:
        """Scores of a slice of the vocabulary with those of hidden tokens replaced.

        Args:
            score_BW: float (B, W), or with further dimensions between.
            first: The slice's first token.
            value: What stands there instead.

        Raises:
            RoutingError: As `forward`.
        """
        route = self.route
        if route is None:
            raise RoutingError(
                "the output layer was called without a route; call the decoder's own methods"
            )
        if len(route.names) != len(score_BW):
            raise RoutingError(
                f"the route is for {len(route.names)} rows, the batch holds {len(score_BW)}"
            )
        sets = {name: self._within(name, first, score_BW.shape[-1]) for name in set(route.names)}
        if not any(sets.values()):
            return score_BW
        if len(set(sets.values())) == 1:
            ids = torch.tensor(sets[route.names[0]], device=score_BW.device)
            return score_BW.index_fill(-1, ids, value)
        hidden_BW = torch.zeros(len(score_BW), score_BW.shape[-1], dtype=torch.bool)
        for row, name in enumerate(route.names):
            hidden_BW[row, list(sets[name])] = True
        shape = (len(score_BW), *[1] * (score_BW.dim() - 2), score_BW.shape[-1])
        return score_BW.masked_fill(hidden_BW.view(shape).to(score_BW.device), value)

    def _within(self, name: str, first: int, size: int) -> tuple[int, ...]:
        """An expert's hidden tokens by their place in a slice."""
        return tuple(i - first for i in self.hidden.get(name, ()) if first <= i < first + size)
