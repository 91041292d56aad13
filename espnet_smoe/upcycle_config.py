"""The config of the S-MoE model that a dense one becomes.

It is the dense model's own config with experts, and with what a training YAML says of training.
What decides what the model computes comes from the dense model; a YAML that says otherwise is
refused, since the weights would then mean something else.
"""

from __future__ import annotations

import filecmp
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.new_tokens import TokenPlan

SMOE = "smoe_"
PADDED = "s2t"  # the preprocessor that pads every utterance to speech_length
# Options of this package's classes, which a dense config has not.
EXPERT_OPTIONS = {
    "encoder": ("experts", "expert_blocks", "macaron_experts"),
    "decoder": ("experts", "expert_blocks", "default_expert"),
}
# Options that change training only, or the way to the same result: a YAML may choose them.
FREE_ENDINGS = ("dropout_rate", "_drop_rate", "stochastic_depth_rate", "_weight")
FREE_OPTIONS = frozenset(
    (
        *("use_flash_attn", "gradient_checkpoint_layers", "ctc_trim", "route_floor"),
        *("ctc_type", "reduce", "ignore_nan_grad", "zero_infinity", "length_normalized_loss"),
        *("brctc_risk_strategy", "brctc_group_strategy", "brctc_risk_factor"),
        *("report_cer", "report_wer", "extract_feats_in_collect_stats"),
        *("speech_init_silence", "text_prev_apply_prob", "time_apply_prob", "pad_prob"),
        *("narrowband_prob", "narrowband_codecs", "narrowband_level", "narrowband_noise_prob"),
    )
)
# Parts that are the dense model's, with their options.
PARTS = ("frontend", "normalize", "preencoder", "postencoder", "preprocessor")
VALUES = ("input_size", "token_type", "cleaner", "g2p", "speech_volume_normalize", "use_adapter")
CTC_WEIGHT = 0.5  # default of ESPnet's S2T model
DROPPED = ("required", "version", "distributed", "freeze_param")  # of the dense model's training


class _Conflicts:
    """What a YAML says against the dense model, gathered to be told at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, option: str, value: Any, dense: Any) -> None:
        self.lines.append(f"{option} is {value!r}, the dense model's is {dense!r}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A training YAML.

    Raises:
        ModelError: It cannot be read, or is no mapping.
    """
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"config {str(path)!r} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ModelError(
            f"config {str(path)!r} holds a {type(given).__name__}; accepted: a training YAML"
        )
    return given


def default_yaml(dense: Mapping[str, Any]) -> dict[str, Any]:
    """Experts on both sides, with the default names: what no YAML stands for."""
    return {
        "encoder": SMOE + str(dense["encoder"]),
        "decoder": SMOE + str(dense["decoder"]),
        "model": "smoe",
        "unused_parameters": True,  # DDP: a batch may lack a route
    }


def smoe_config(
    dense: Mapping[str, Any], given: Mapping[str, Any], tokens: TokenPlan, *, origin: str
) -> dict[str, Any]:
    """The S-MoE model's whole config.

    Args:
        dense: The dense model's whole config, as `pretrained.load` gives it.
        given: A training YAML; an option that it does not name is the dense model's.
        tokens: The new token list.
        origin: Where `given` comes from, for messages.

    Raises:
        ModelError: The dense model cannot be given experts; the YAML contradicts it (all that does
            is named, with both values), has an option that does not exist, or asks for no experts.
    """
    for part in EXPERT_OPTIONS:
        _check_dense(part, dense.get(part))
    if dense.get("input_size") is not None:
        raise ModelError(
            f"the model takes features of size {dense['input_size']}; accepted is one that takes "
            "audio, whose bandwidth can be told"
        )
    known = _known_options()
    unknown = sorted(set(given) - known)
    if unknown:
        raise ModelError(f"{origin}: {', '.join(unknown)}: no such option of ESPnet's S2T task")
    conflicts = _Conflicts()
    config = {key: value for key, value in dense.items() if key in known and key not in DROPPED}
    config.update(given)
    for option in set(given) - set(EXPERT_OPTIONS):  # another class, whose options are others
        if f"{option}_conf" in config and given[option] != dense.get(option):
            config[f"{option}_conf"] = given.get(f"{option}_conf") or {}
    for part in EXPERT_OPTIONS:
        config |= _routed_part(part, dense, given, conflicts, origin)
    if not any(str(config[part]).startswith(SMOE) for part in EXPERT_OPTIONS):
        raise ModelError(
            f"{origin} has encoder {config['encoder']!r} and decoder {config['decoder']!r}: no "
            f"experts; accepted is {SMOE}{dense['encoder']}, {SMOE}{dense['decoder']}, or both"
        )
    for part in PARTS:
        config |= _same_part(part, dense, given, conflicts, origin)
    for option in VALUES:
        if option in given and given[option] != dense.get(option):
            conflicts.add(option, given[option], dense.get(option))
        config[option] = dense.get(option)
    config["ctc_conf"] = _conf("ctc", "ctc", dense, given, conflicts, origin)
    _files(config, dense, given, tokens, conflicts)
    config["model"], config["model_conf"] = _model(dense, given, config, conflicts, origin)
    if conflicts.lines:
        raise ModelError(
            f"{origin} does not describe the dense model: {'; '.join(conflicts.lines)}. What it "
            "leaves out is taken from the dense model"
        )
    config["token_list"] = list(tokens.token_list)
    config["init"] = None
    return config


def _check_dense(part: str, name: Any) -> None:
    from espnet_smoe.registry import DECODERS, ENCODERS

    ours = list(ENCODERS if part == "encoder" else DECODERS)
    if name in ours:
        raise ModelError(
            f"the model is an S-MoE model already ({part}: {name}); accepted is a dense one"
        )
    accepted = [smoe.removeprefix(SMOE) for smoe in ours]
    if name not in accepted:
        raise ModelError(
            f"the model's {part} is {name!r}, which cannot be given experts; accepted: "
            f"{', '.join(accepted)}"
        )


def _known_options() -> set[str]:
    from espnet2.tasks.s2t import S2TTask

    return set(vars(S2TTask.get_parser().parse_args([]))) - {"required"}


def _class(part: str, name: Any) -> Any:
    """ESPnet's class of that name; None if there is none of that part."""
    from espnet2.asr.ctc import CTC
    from espnet2.tasks import s2t

    if part == "ctc":
        return CTC
    return None if name is None else getattr(s2t, f"{part}_choices").get_class(name)


def _defaults(part: str, name: Any) -> dict[str, Any]:
    """The options of a class and their defaults."""
    cls = _class(part, name)
    if cls is None:
        return {}
    return {
        p.name: p.default
        for p in inspect.signature(cls).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _mapping(options: Mapping[str, Any], key: str, origin: str) -> dict[str, Any]:
    value = options.get(key) or {}
    if not isinstance(value, Mapping):
        raise ModelError(f"{origin}: {key} is {value!r}; accepted: a mapping")
    return dict(value)


def _is_free(option: str) -> bool:
    return option in FREE_OPTIONS or option.endswith(FREE_ENDINGS)


def _conf(
    part: str,
    name: Any,
    dense: Mapping[str, Any],
    given: Mapping[str, Any],
    conflicts: _Conflicts,
    origin: str,
    *,
    own: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The options of a part: the dense model's, and what the YAML may choose.

    Args:
        part: ``encoder``, ...
        name: The class's name that is used from now on.
        dense: The dense config.
        given: The YAML.
        conflicts: What differs is added here.
        origin: For messages.
        own: Options that only the new class has.
        skip: Options that the caller looks after.
    """
    key = f"{part}_conf"
    conf, wanted = dict(dense.get(key) or {}), _mapping(given, key, origin)
    defaults = _defaults(part, name)
    for option, value in wanted.items():
        if defaults and option not in defaults:
            raise ModelError(f"{origin}: {key}.{option}: {name} has no such option")
        if option in own or option in skip:
            conf[option] = value
            continue
        before = conf.get(option, defaults.get(option))
        if _is_free(option):
            conf[option] = value
        elif _plain(value) != _plain(before):
            conflicts.add(f"{key}.{option}", value, before)
    return conf


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _routed_part(
    part: str,
    dense: Mapping[str, Any],
    given: Mapping[str, Any],
    conflicts: _Conflicts,
    origin: str,
) -> dict[str, Any]:
    """Encoder or decoder: the dense one, or the one with experts."""
    name = given.get(part, dense[part])
    if name not in (dense[part], SMOE + dense[part]):
        conflicts.add(part, name, dense[part])
        return {}
    own = EXPERT_OPTIONS[part] if name != dense[part] else ()
    conf = _conf(part, name, dense, given, conflicts, origin, own=own)
    if name == f"{SMOE}e_branchformer" and not conf.get("use_ffn", False):
        raise ModelError(
            "the dense model's e_branchformer has no feed-forward to make experts of "
            "(encoder_conf.use_ffn is false); accepted is experts in the decoder alone: a "
            "--config with encoder: e_branchformer and decoder: smoe_transformer"
        )
    return {part: name, f"{part}_conf": conf}


def _same_part(
    part: str,
    dense: Mapping[str, Any],
    given: Mapping[str, Any],
    conflicts: _Conflicts,
    origin: str,
) -> dict[str, Any]:
    """A part that has to stay the dense model's."""
    name = dense.get(part)
    if part in given and given[part] != name:
        conflicts.add(part, given[part], name)
        return {part: name, f"{part}_conf": dense.get(f"{part}_conf")}
    skip = ("stats_file",) if part == "normalize" else ()
    return {
        part: name,
        f"{part}_conf": _conf(part, name, dense, given, conflicts, origin, skip=skip),
    }


def _files(
    config: dict[str, Any],
    dense: Mapping[str, Any],
    given: Mapping[str, Any],
    tokens: TokenPlan,
    conflicts: _Conflicts,
) -> None:
    """BPE model, statistics and tokens: the dense model's; a YAML may name copies of them."""
    normalize_conf = config["normalize_conf"] or {}
    before = (dense.get("normalize_conf") or {}).get("stats_file")
    if normalize_conf.get("stats_file") != before:
        if not _same_content(normalize_conf.get("stats_file"), before):
            conflicts.add("normalize_conf.stats_file", normalize_conf["stats_file"], before)
        normalize_conf["stats_file"] = before
    for option in ("bpemodel", "non_linguistic_symbols"):
        if option in given and not _same_content(given[option], dense.get(option)):
            conflicts.add(option, given[option], dense.get(option))
        config[option] = dense.get(option)
    names = given.get("token_list")
    if isinstance(names, str) and Path(names).is_file():
        with Path(names).open(encoding="utf-8") as file:
            names = [line.rstrip() for line in file]  # as ESPnet reads them
    if names is not None and names not in (list(dense["token_list"]), list(tokens.token_list)):
        size = f"{len(names)} tokens" if isinstance(names, list) else repr(names)
        conflicts.lines.append(
            f"token_list is {size}, the dense model's has {len(dense['token_list'])} tokens, "
            "and they differ"
        )


def _same_content(one: Any, other: Any) -> bool:
    if one == other:
        return True
    files = all(isinstance(path, str | Path) and Path(path).is_file() for path in (one, other))
    return files and filecmp.cmp(one, other, shallow=False)


def _model(
    dense: Mapping[str, Any],
    given: Mapping[str, Any],
    config: Mapping[str, Any],
    conflicts: _Conflicts,
    origin: str,
) -> tuple[str, dict[str, Any]]:
    """The model: ``smoe``, which routes, with the options of the dense model.

    Where the dense model was trained padded, so is this one heard: dropping its padding
    (``trim_padding``) would be another computation.
    """
    name = given.get("model", "smoe")
    if name != "smoe":
        raise ModelError(f"{origin}: model is {name!r}; experts need 'model: smoe', which routes")
    heard = _defaults("preprocessor", config["preprocessor"]) | dict(
        config["preprocessor_conf"] or {}
    )
    before = dict(dense.get("model_conf") or {})
    if dense.get("model") != "smoe":
        before |= {option: heard[option] for option in ("speech_length", "fs")}
        before["trim_padding"] = False
    wanted = _mapping(given, "model_conf", origin)
    may_trim = config["preprocessor"] != PADDED and dense.get("model") != "smoe"
    conf = _conf(
        "model",
        "smoe",
        {"model_conf": before},
        {"model_conf": wanted},
        conflicts,
        origin,
        skip=("trim_padding",) if may_trim else (),
    )
    old, now = before.get("ctc_weight", CTC_WEIGHT), conf.get("ctc_weight", CTC_WEIGHT)
    if old == 0.0 and now > 0.0:
        conflicts.add("model_conf.ctc_weight", now, old)  # it has no CTC layer
    if now == 1.0:
        conflicts.add("model_conf.ctc_weight", now, old)  # it would have no decoder
    return name, conf
