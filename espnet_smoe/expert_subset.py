"""Loading some experts of a model only: those of the routes that a program will use."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Sequence

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.decoder import SMoETransformerDecoder
from espnet_smoe.encoder import ExpertEncoder

EXPERT = re.compile(r"(encoder|decoder)\..+?\.experts\.([A-Za-z0-9_]+)\.")


def keep_experts(args: argparse.Namespace, experts: Sequence[str]) -> Callable[[str], bool]:
    """Take the other experts out of a training config.

    Args:
        args: The config; its ``encoder_conf``, ``decoder_conf`` and ``model_conf`` are replaced.
        experts: Names; a side of which none is named keeps all of its.

    Returns:
        Whether a weight of the whole model, by its name, is one of the model that is left.

    Raises:
        ModelError: A name that is no expert of the model.
    """
    from espnet2.tasks import s2t  # slow, so only where it is needed

    if isinstance(experts, str):
        raise ModelError(f"experts is the string {experts!r}; accepted: a list of names")
    kept: dict[str, list[str]] = {}
    known: list[str] = []
    for side, choices, base in (
        ("encoder", s2t.encoder_choices, ExpertEncoder),
        ("decoder", s2t.decoder_choices, SMoETransformerDecoder),
    ):
        cls = choices.get_class(getattr(args, side))
        if cls is None or not issubclass(cls, base):
            continue
        conf = dict(getattr(args, f"{side}_conf"))
        own = conf.get("experts", inspect.signature(cls).parameters["experts"].default)
        kept[side] = [name for name in own if name in experts] or list(own)
        conf["experts"] = (
            {name: own[name] for name in kept[side]} if isinstance(own, dict) else kept[side]
        )
        if conf.get("default_expert") not in kept[side]:
            conf.pop("default_expert", None)
        setattr(args, f"{side}_conf", conf)
        known += own
    unknown = [name for name in experts if name not in known]
    if unknown:
        raise ModelError(
            f"experts: the model has no {', '.join(map(repr, unknown))}; accepted: "
            f"{', '.join(known) or 'none, for it has no experts'}"
        )

    private = dict((args.model_conf or {}).get("private_tokens") or {})
    if private and "decoder" in kept:  # a token whose experts are gone stays hidden from the others
        private = {t: [n for n in names if n in kept["decoder"]] for t, names in private.items()}
        args.model_conf = {**args.model_conf, "private_tokens": private}

    def is_kept(weight: str) -> bool:
        found = EXPERT.match(weight)
        return found is None or found[2] in kept.get(found[1], [found[2]])

    return is_kept
