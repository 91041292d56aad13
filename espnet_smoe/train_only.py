"""Train some parameters of a model and leave every other value exactly as it is.

Parameters that do not train have ``requires_grad`` false, so no optimizer of PyTorch touches them,
weight decay included. That alone is not enough:

- A BatchNorm updates its running statistics whenever it is in training mode: `keep_statistics`.
- A row of an embedding cannot train alone: gradients of zero still leave weight decay and momentum
  to move the other rows. `train_rows` keeps the matrix frozen and trains copies of its rows, which
  are put back before the matrix is read as a whole: in evaluation mode and in a ``state_dict``,
  which is thus that of the plain module.

Averaging checkpoints is not exact: (x + x + x) / 3 is not always x in floating point, (x + x) / 2
is. So set ``keep_nbest_models`` to 1 or 2 where the other values must stay bit by bit.

Shape letters: N rows that train, V vocabulary, D model dimension, B and T of a batch of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding, linear

ROWS = "trained_rows_of_"  # and the parameter's name


def freeze_all_but(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze every parameter whose name no pattern matches.

    Args:
        model: Is changed in place.
        patterns: Names of parameters, or shell patterns such as
            ``decoder.decoders.*.feed_forward.experts.deu.*``.

    Raises:
        ValueError: A pattern matches no parameter.
    """
    if isinstance(patterns, str):
        raise ValueError(f"model_conf.train_only is the string {patterns!r}; it takes a list")
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"model_conf.train_only: {pattern!r} matches no parameter (there are "
                f"{names[0]} to {names[-1]})"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in patterns))


def keep_statistics(model: nn.Module) -> None:
    """Put every BatchNorm without a parameter that trains into evaluation mode."""
    for module in model.modules():
        trains = any(p.requires_grad for p in module.parameters())
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not trains:
            module.eval()


def train_rows(module: nn.Embedding | nn.Linear, ids: Sequence[int]) -> None:
    """Train some rows of an embedding or of a linear layer's weight and bias, and no others.

    Args:
        module: Is changed in place; its parameters are frozen.
        ids: The rows.

    Raises:
        ValueError: No row, one twice, or one that is not there.
    """
    ids = tuple(ids)
    if not ids or len(set(ids)) < len(ids) or not 0 <= min(ids) <= max(ids) < len(module.weight):
        raise ValueError(f"rows {list(ids)}; accepted are different ones of {len(module.weight)}")
    for name, parameter in list(module.named_parameters(recurse=False)):
        parameter.requires_grad_(False)
        module.register_parameter(ROWS + name, nn.Parameter(parameter.detach()[list(ids)].clone()))
    module.rows_that_train = ids  # type: ignore[assignment]
    module.register_forward_hook(_with_trained_rows)
    module.register_state_dict_pre_hook(_put_back)
    module.register_state_dict_post_hook(_leave_rows_out)
    module.register_load_state_dict_pre_hook(_take_rows)


def put_rows_back(model: nn.Module) -> None:
    """Make the matrices below a module hold their rows as trained; evaluation reads them whole."""
    for module in model.modules():
        if hasattr(module, "rows_that_train"):
            _put_back(module)


def _own_rows(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The rows that train and the name of the parameter that they are of."""
    own = module.named_parameters(recurse=False)
    return [(name[len(ROWS) :], rows) for name, rows in own if name.startswith(ROWS)]


def _with_trained_rows(module: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """Forward hook: in training, what the rows that train say in the place of the frozen ones."""
    if not module.training:
        return output
    x = args[0]
    ids_N = torch.tensor(module.rows_that_train, device=output.device)
    weight_ND = getattr(module, ROWS + "weight")
    if isinstance(module, nn.Embedding):
        is_row_BTN = x[..., None] == ids_N
        trained_BTD = embedding(is_row_BTN.long().argmax(dim=-1), weight_ND)
        return torch.where(is_row_BTN.any(dim=-1, keepdim=True), trained_BTD, output)
    trained_BTN = linear(x, weight_ND, getattr(module, ROWS + "bias", None))
    output = output.index_copy(-1, ids_N, trained_BTN.to(output.dtype))
    # private tokens (`espnet_smoe.private_tokens`) stay hidden
    return module.hide(output) if hasattr(module, "hide") else output


@torch.no_grad()
def _put_back(module: Any, *args: Any) -> None:
    """Before a ``state_dict`` is made: write the trained rows into the frozen matrix."""
    for name, rows in _own_rows(module):
        getattr(module, name)[list(module.rows_that_train)] = rows.detach()


def _leave_rows_out(module: Any, state: dict[str, Any], prefix: str, *args: Any) -> None:
    """A ``state_dict`` is that of the plain module."""
    for name, _ in _own_rows(module):
        del state[f"{prefix}{ROWS}{name}"]


def _take_rows(module: Any, state: dict[str, Any], prefix: str, *args: Any) -> None:
    """Loading a plain ``state_dict`` sets the rows that train, too."""
    for name, _ in _own_rows(module):
        whole = state.get(f"{prefix}{name}")
        if whole is not None and len(whole) == len(getattr(module, name)):
            state[f"{prefix}{ROWS}{name}"] = whole[list(module.rows_that_train)]
