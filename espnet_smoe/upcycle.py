"""A dense ESPnet S2T model becomes an S-MoE model whose every route computes what it did.

The plan says from which dense tensor each tensor of the S-MoE model comes. It is made of names and
shapes alone, and nothing may be left over on either side.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from espnet_smoe.checkpoints import ModelError, fit_weights, read_weights
from espnet_smoe.model_files import require_new, write_model
from espnet_smoe.new_tokens import (
    VOCABULARY_TENSORS,
    TokenPlan,
    extend_bpe,
    extend_rows,
    extend_tokens,
)
from espnet_smoe.pretrained import ModelFiles, Pretrained, build, find_model, load
from espnet_smoe.route_differences import Difference, route_differences
from espnet_smoe.upcycle_config import default_yaml, read_yaml, smoe_config

EXPERT = re.compile(r"(\bfeed_forward(?:_macaron)?)\.experts\.[^.]+\.")
WHOLE_TOKEN_TYPES = ("bpe", "word")  # under which new tokens can stay whole in training
TOKENS = "tokens.txt"
TOLERANCE = 1e-5  # relative: new rows make float32 sums run in another order
Shape = tuple[int, ...]


@dataclass(frozen=True)
class UpcyclePlan:
    """Where every tensor comes from, and goes.

    Attributes:
        source_of: Per tensor of the S-MoE model, the dense model's that it is a copy of.
        extended: Dense tensors that get rows for new tokens.
        dropped: Dense tensors that go nowhere, as was asked for.
    """

    source_of: dict[str, str]
    extended: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """What became of some of a model's parameters and buffers.

    Attributes:
        what: ``copied``, ``replicated x2``, ``new rows``, ``dropped``.
        dense_tensors: How many the dense model has.
        dense_values: Numbers in them.
        smoe_tensors: How many the S-MoE model has. A tensor with new rows is counted once, where
            its old rows are.
        smoe_values: Numbers in them.
    """

    what: str
    dense_tensors: int
    dense_values: int
    smoe_tensors: int
    smoe_values: int


@dataclass(frozen=True)
class Upcycled:
    """What `upcycle` made.

    Attributes:
        files: The S-MoE model.
        shares: What became of the parameters and buffers.
        differences: Per route, how far its outputs are from the dense model's on noise
            (encoder, decoder, CTC).
        tokens: The token list.
    """

    files: ModelFiles
    shares: tuple[Share, ...]
    differences: dict[str, Difference]
    tokens: TokenPlan


def dense_name(name: str) -> str:
    """The dense model's name of an S-MoE model's tensor."""
    return EXPERT.sub(r"\1.", name)


def plan_upcycle(
    dense: Mapping[str, Shape],
    smoe: Mapping[str, Shape],
    *,
    tokens: TokenPlan | None = None,
    drop: Sequence[str] = (),
) -> UpcyclePlan:
    """Find where every tensor comes from, and goes.

    Args:
        dense: Names and shapes of the dense model's parameters and buffers.
        smoe: Those of the S-MoE model.
        tokens: The new token list; None: the old one.
        drop: Shell patterns of dense tensors that may go nowhere.

    Raises:
        ModelError: A tensor that comes from nowhere, goes nowhere, or is of another shape (named);
            or a pattern that no tensor matches.
    """
    useless = [pattern for pattern in drop if not any(fnmatchcase(n, pattern) for n in dense)]
    if useless:
        raise ModelError(f"drop {', '.join(map(repr, useless))}: no tensor is called so")
    source_of: dict[str, str] = {}
    extended: dict[str, None] = {}
    faults: list[str] = []
    for name, shape in smoe.items():
        source = dense_name(name)
        if source not in dense:
            faults.append(f"{name} of the S-MoE model comes from nowhere")
            continue
        expected = dense[source]
        if tokens is not None and tokens.new and source in VOCABULARY_TENSORS:
            extended[source] = None
            expected = (expected[0] + len(tokens.new), *expected[1:])
        if shape != expected:
            faults.append(
                f"{name} is of shape {shape} in the S-MoE model, {source} of shape "
                f"{dense[source]} in the dense one"
            )
        source_of[name] = source
    used = set(source_of.values())
    left = [name for name in dense if name not in used]
    dropped = [name for name in left if any(fnmatchcase(name, pattern) for pattern in drop)]
    faults += [f"{name} of the dense model goes nowhere" for name in left if name not in dropped]
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ModelError(f"the models do not fit each other: {'; '.join(faults[:5])}{more}")
    return UpcyclePlan(source_of, tuple(extended), tuple(dropped))


def apply_plan(
    plan: UpcyclePlan, weights: Mapping[str, torch.Tensor], tokens: TokenPlan | None = None
) -> dict[str, torch.Tensor]:
    """The S-MoE model's tensors, from the dense model's; copies of one share its memory."""
    if plan.extended:
        assert tokens is not None
        weights = extend_rows(weights, plan.extended, tokens)
    return {name: weights[source] for name, source in plan.source_of.items()}


def account(
    plan: UpcyclePlan, dense: Mapping[str, Shape], smoe: Mapping[str, Shape]
) -> tuple[Share, ...]:
    """What became of every parameter and buffer; the columns add up to both models' sizes.

    Args:
        plan: What `plan_upcycle` made of the other two.
        dense: Names and shapes of the dense model's tensors.
        smoe: Those of the S-MoE model.
    """
    copies = Counter(plan.source_of.values())
    experts = {source for name, source in plan.source_of.items() if name != source}
    groups: dict[str, list[str]] = {"copied": [name for name in copies if name not in experts]}
    for name in sorted(experts, key=lambda name: copies[name]):
        groups.setdefault(f"replicated x{copies[name]}", []).append(name)
    shares = []
    for what, names in groups.items():
        values = sum(_numel(dense[name]) for name in names)
        times = copies[names[0]] if names else 1
        shares.append(Share(what, len(names), values, times * len(names), times * values))
    if plan.extended:
        values = sum(_numel(smoe[name]) - _numel(dense[name]) for name in plan.extended)
        shares.append(Share("new rows", 0, 0, 0, values))
    if plan.dropped:
        values = sum(_numel(dense[name]) for name in plan.dropped)
        shares.append(Share("dropped", len(plan.dropped), values, 0, 0))
    return tuple(shares)


def upcycle(
    source: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    new_tokens: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    model_file: str | None = None,
    safe: bool = False,
) -> Upcycled:
    """Make an S-MoE model of a dense one, and check that every route computes the same.

    Args:
        source: The dense model: a directory, packed model or hub tag (`find_model`).
        out: The S-MoE model's directory; does not exist, or is empty. ``tokens.txt`` is written
            beside the model, for training.
        config: A training YAML with experts; what it leaves out is the dense model's. None:
            experts ``wb`` and ``nb`` in the encoder, ``asr`` and ``st`` in the decoder.
        new_tokens: ``{new token: old token that it is initialised from}``.
        drop: Shell patterns of dense tensors that may be left out.
        model_file: The checkpoint's name in a directory.
        safe: Write ``model.safetensors`` too.

    Raises:
        ModelError: The model cannot be read, is no dense model that can be given experts, or does
            not fit the config; a tensor comes from nowhere or goes nowhere; a route computes
            something else; nothing is written then.
        ValueError: Expert names or patterns that the S-MoE classes refuse.
    """
    require_new(out)
    loaded = load(find_model(source, model_file=model_file))
    given = read_yaml(config) if config is not None else default_yaml(vars(loaded.args))
    origin = f"config {str(config)!r}" if config is not None else "the default config"
    tokens = extend_tokens(loaded.args.token_list, new_tokens or {})
    options = smoe_config(vars(loaded.args), given, tokens, origin=origin)
    model = build(argparse.Namespace(**options), origin=origin).eval()
    weights = _all_weights(loaded, drop)
    dense, smoe = shapes_of(weights), shapes_of(model.state_dict())
    if model.ctc is None and loaded.model.ctc is not None:
        drop = [*drop, "ctc.*"]  # asked for by ctc_weight: 0.0
    plan = plan_upcycle(dense, smoe, tokens=tokens, drop=drop)
    applied = apply_plan(plan, weights, tokens)
    fit_weights(model, applied, origin="the dense model")
    differences = route_differences(loaded.model, model, tokens, fs=_rate(loaded))
    wrong = {route: d.relative for route, d in differences.items() if not d.relative <= TOLERANCE}
    if wrong:
        raise ModelError(
            f"route {min(wrong)} computes something else than the dense model: relative "
            f"difference {max(wrong.values()):.1e}"
        )
    with tempfile.TemporaryDirectory() as directory:
        if tokens.new:
            _extend_tokenizer(options, tokens.new, Path(directory) / "bpe.model")
        texts = {TOKENS: "".join(f"{token}\n" for token in tokens.token_list)}
        files = write_model(out, options, applied, safe=safe, texts=texts)
    return Upcycled(files, account(plan, dense, smoe), differences, tokens)


def shapes_of(weights: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Names and shapes."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def _all_weights(loaded: Pretrained, drop: Sequence[str]) -> dict[str, torch.Tensor]:
    """The dense checkpoint; all that it holds is the model's, or may be dropped.

    `load` has seen to it that nothing is missing, but lets further weights pass.
    """
    assert loaded.files.weights is not None
    weights = read_weights(loaded.files.weights)
    own = set(loaded.model.state_dict())
    unknown = _unknown(weights, own, drop)
    if unknown:
        raise ModelError(
            f"checkpoint {str(loaded.files.weights)!r} holds {', '.join(unknown[:5])}"
            f"{' and more' if len(unknown) > 5 else ''}, which its config knows nothing of; "
            "accepted is naming what may be dropped"
        )
    return weights


def _unknown(names: Iterable[str], own: set[str], drop: Sequence[str]) -> list[str]:
    return [n for n in names if n not in own and not any(fnmatchcase(n, p) for p in drop)]


def _rate(loaded: Pretrained) -> int:
    return int(loaded.preprocessor_conf.get("fs", 16000))


def _extend_tokenizer(options: dict[str, Any], new: Sequence[str], path: Path) -> None:
    """See to it that training text's new tokens stay whole."""
    kind = options.get("token_type")
    if kind not in WHOLE_TOKEN_TYPES:
        raise ModelError(
            f"the model's token_type is {kind!r}, which would split new tokens in training; "
            f"accepted with new tokens: {', '.join(WHOLE_TOKEN_TYPES)}"
        )
    if kind == "bpe" and options.get("bpemodel"):
        extend_bpe(options["bpemodel"], new, path)
        options["bpemodel"] = str(path)


def _numel(shape: Shape) -> int:
    return int(torch.Size(shape).numel())
