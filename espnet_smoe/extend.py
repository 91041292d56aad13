"""Add an expert to a trained model: a new task, language or channel, and nothing forgotten.

The new expert of each bank starts as a copy of a chosen one. Everything else of the model stays:
the old patterns of guiding tokens are narrowed to what they matched before, new tokens are hidden
from the old experts and from CTC, and the config trains the new expert alone.

What the new expert writes goes through the shared output layer, which is frozen: it should be of
pieces that the model writes already. Pieces that it never wrote (capitals, say) are not learned in
a few hundred steps (benchmarks/add_task.py); new tokens have rows of their own, which can train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import ExpertEncoder
from espnet_smoe.model import SMoES2TModel
from espnet_smoe.model_files import write_model
from espnet_smoe.new_tokens import extend_bpe, extend_rows, extend_tokens, vocabulary_tensors
from espnet_smoe.pretrained import ModelFiles, Pretrained, find_model, load
from espnet_smoe.private_tokens import CTC, hide_by_bias
from espnet_smoe.routing import GuideTable, RoutingError, check_expert_names, matching

DECODER, ENCODER = "decoder", "encoder"


@dataclass(frozen=True)
class NewExpert:
    """What to add.

    Attributes:
        side: ``decoder`` or ``encoder``.
        name: The expert's.
        source: The expert whose weights it starts with.
        patterns: The guiding tokens that it serves (decoder); shell patterns allowed.
        new_tokens: ``{new token: the old token that it is initialised from}`` (decoder).
        train_embedding: Train the new tokens' rows of embedding and output layer too.
    """

    side: str
    name: str
    source: str
    patterns: tuple[str, ...] = ()
    new_tokens: Mapping[str, str] = field(default_factory=dict)
    train_embedding: bool = False


def extend(
    model: str | Path,
    out: str | Path,
    expert: NewExpert,
    *,
    model_file: str | None = None,
    safe: bool = False,
) -> ModelFiles:
    """Write a model with one expert more.

    Its ``config.yaml`` is one for ESPnet's training program too, with ``--init_param`` of its
    ``model.pth``: with that, the new expert trains and nothing else does.

    Args:
        model: See `pretrained.find_model`.
        out: A directory that does not exist or is empty; gets what `model_files.write_model`
            writes.
        expert: What to add.
        model_file: The checkpoint's name in the directory of the model.
        safe: Write ``model.safetensors`` beside ``model.pth``.

    Raises:
        ModelError: The model has no experts on that side, has the expert already, or not the
            source; a new token cannot be added; `out` holds something.
        RoutingError: Patterns that match no token, or one that another expert serves.
    """
    old = load(find_model(model, model_file=model_file))
    config, weights = vars(old.args).copy(), dict(old.model.state_dict())
    _check(old.model, expert)
    trained: dict[str, Any] = {"train_only": [f"{expert.side}.*.experts.{expert.name}.*"]}
    with tempfile.TemporaryDirectory() as directory:
        if expert.side == DECODER:
            _extend_decoder(old, expert, config, weights, Path(directory))
            if expert.train_embedding:
                trained["train_rows"] = list(expert.new_tokens)
        else:
            _extend_encoder(old, expert, config)
        config["model_conf"] = {**config["model_conf"], **trained}
        config["keep_nbest_models"] = 1  # averages of three are inexact (`train_only`)
        return write_model(out, config, weights | _copies(weights, expert), safe=safe)


def _check(model: Any, expert: NewExpert) -> None:
    side = getattr(model, expert.side, None)
    if not isinstance(model, SMoES2TModel) or not isinstance(
        side, ExpertEncoder | SMoETransformerDecoder
    ):
        raise ModelError(
            f"the model's {expert.side} ({type(side).__name__}) has no experts to add one to; "
            "'espnet-smoe upcycle' makes them"
        )
    check_expert_names([expert.name], option=f"the new expert of the {expert.side}")
    names = side.expert_names
    if expert.name in names:
        raise ModelError(
            f"the model's {expert.side} has an expert {expert.name!r} already (its experts: "
            f"{', '.join(names)}); choose another name"
        )
    if expert.source not in names:
        raise ModelError(
            f"the model's {expert.side} has no expert {expert.source!r} to copy; accepted: "
            f"{', '.join(names)}"
        )
    for option in ("patterns", "new_tokens"):
        if expert.side == ENCODER and getattr(expert, option):
            raise ModelError(f"{option} of an encoder's expert: only the decoder's has tokens")
    if expert.train_embedding and not expert.new_tokens:
        raise ModelError("train_embedding trains the rows of new tokens, and there are none")


def _copies(weights: Mapping[str, torch.Tensor], expert: NewExpert) -> dict[str, torch.Tensor]:
    """The new expert's weights by name."""
    mark = f".experts.{expert.source}."
    return {
        name.replace(mark, f".experts.{expert.name}."): value.clone()
        for name, value in weights.items()
        if name.startswith(f"{expert.side}.") and mark in name
    }


def _extend_encoder(old: Pretrained, expert: NewExpert, config: dict[str, Any]) -> None:
    names = [*old.model.encoder.expert_names, expert.name]
    config["encoder_conf"] = {**config["encoder_conf"], "experts": names}
    channels = [*config["model_conf"].get("channels", ()), expert.name]
    config["model_conf"] = {**config["model_conf"], "channels": channels}


def _extend_decoder(
    old: Pretrained,
    expert: NewExpert,
    config: dict[str, Any],
    weights: dict[str, torch.Tensor],
    directory: Path,
) -> None:
    """Tokens, patterns and what is hidden; a new BPE model is written to `directory`."""
    plan = extend_tokens(old.model.token_list, expert.new_tokens)
    config["decoder_conf"] = {
        **config["decoder_conf"],
        "experts": _table(old.model.decoder, expert, plan.token_list),
    }
    if not expert.new_tokens:
        return
    weights |= extend_rows(weights, vocabulary_tensors(weights), plan)
    if f"{CTC}.bias" in weights:
        weights |= hide_by_bias(weights, plan.new_ids, layer=CTC)
    config["token_list"] = list(plan.token_list)
    if config.get("bpemodel"):
        extend_bpe(config["bpemodel"], plan.new, directory / "bpe.model")
        config["bpemodel"] = str(directory / "bpe.model")
    private = dict(config["model_conf"].get("private_tokens") or {})
    private |= {token: [expert.name] for token in plan.new}
    config["model_conf"] = {**config["model_conf"], "private_tokens": private}


def _table(
    decoder: SMoETransformerDecoder, expert: NewExpert, token_list: Sequence[str]
) -> dict[str, list[str]]:
    """The routing table with the new expert; the old ones serve what they served.

    Raises:
        RoutingError: The new expert's patterns match nothing, or what another expert serves.
    """
    table = decoder.guide_table
    experts = {name: list(patterns) for name, patterns in table.patterns.items()}
    mine = matching(expert.patterns, token_list)
    for name in table.names:
        taken = [token for token in table.tokens_of(name) if token in mine]
        if taken:
            raise RoutingError(
                f"{', '.join(map(repr, expert.patterns))} of the new expert {expert.name!r} match "
                f"{', '.join(taken)}, which expert {name!r} serves; an old route cannot be given "
                "away: make its patterns narrower"
            )
        served = set(matching(experts[name], token_list))
        if served != set(table.tokens_of(name)):  # it would serve new tokens
            experts[name] = list(table.tokens_of(name))
    experts[expert.name] = list(expert.patterns)
    GuideTable(experts).bind(token_list)  # raises where a pattern matches nothing
    return experts
