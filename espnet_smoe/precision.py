"""A model that decodes in bfloat16, float16 or int8, or compiled.

`prepare` changes an ESPnet S2T model (ours or ESPnet's own) in place, for inference alone. It is
then used as before: ``model.encode`` and `espnet_smoe.beam_search.BatchedBeamSearch`.

Where it differs from ESPnet's ``dtype`` and ``quantize_s2t_model``: features are computed in
float32 (in ESPnet, half precision on a CPU fails in the STFT), scores are summed in float32 and
float64, and the int8 output layer only finds the candidates, which are then scored in float32
(`espnet_smoe.token_scores`). What each option gains and costs: ``benchmarks/precision.py``.

On a CPU, int8 pays most in the search (half of a step is the output layer), bfloat16 most in the
encoder (whose convolutions int8 leaves alone). `torch.compile` gains nothing there that can be told
from noise, and takes most of a minute to warm up; it is meant for GPUs, where it is not measured.

Shape letters: B utterances, T frames, D model dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from espnet_smoe.encoder import RoutedEncoder
from espnet_smoe.experts import ExpertBank
from espnet_smoe.token_scores import QuantizedOutput

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZE_DTYPES = ("qint8", "float16")
QUANTIZE_MODULES = ("Linear", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")
FLOAT32_PARTS = ("frontend", "specaug", "normalize")  # a spectrum needs float32


def prepare(
    model: Any,
    *,
    dtype: str = "float32",
    quantize: bool = False,
    quantize_modules: Sequence[str] = ("Linear",),
    quantize_dtype: str = "qint8",
    compile: bool = False,
    backend: str = "inductor",
) -> Any:
    """Make a model decode in another precision, or compiled.

    Args:
        model: An ESPnet S2T model in eval mode, on the device where it will run.
        dtype: Of weights and activations from the encoder on. ``float16`` needs a GPU.
        quantize: Multiply in int8 by dynamic quantization, experts included; on CPUs only. Not
            the CTC layer, of which the search reads single rows.
        quantize_modules: Classes of `torch.nn` to quantize.
        quantize_dtype: ``qint8`` (a scale per output channel), or ``float16``: weights alone.
        compile: Compile the encoder's blocks with `torch.compile`, for any length. Not the
            decoder, whose caches change their shape at every step. No gain on a CPU.
        backend: Of `torch.compile`.

    Returns:
        The same model.

    Raises:
        ValueError: A value that is not accepted, options that exclude each other, a model in
            training mode or already prepared.
        RuntimeError: `torch.compile` is wanted and fails; says why.
    """
    _check(dtype=(dtype, DTYPES), quantize_dtype=(quantize_dtype, QUANTIZE_DTYPES))
    if isinstance(quantize_modules, str) or not isinstance(quantize_modules, Iterable):
        raise ValueError(f"quantize_modules is {quantize_modules!r}; accepted: a list of names")
    for name in quantize_modules:
        _check(quantize_modules=(name, QUANTIZE_MODULES))
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    if getattr(model, "is_prepared", False):
        raise ValueError("the model was prepared already; load it again for other options")
    device = next(model.parameters()).device
    if dtype == "float16" and device.type == "cpu":
        raise ValueError(
            "dtype 'float16' on a CPU gains no speed and overflows beyond 65504; accepted there: "
            "float32, bfloat16"
        )
    if quantize and dtype != "float32":
        raise ValueError(f"quantize with dtype {dtype!r}; accepted: dtype 'float32'")
    if quantize and device.type != "cpu":
        raise ValueError(f"quantize on {device}; accepted: the CPU (on a GPU, use dtype)")
    if dtype != "float32":
        _convert(model, getattr(torch, dtype))
    if quantize:
        _quantize(model, quantize_modules, quantize_dtype)
    if compile:
        _compile(model, backend)
    model.is_prepared = dtype != "float32" or quantize or compile
    return model


def _check(**options: tuple[Any, Sequence[str]]) -> None:
    for option, (value, accepted) in options.items():
        if value not in accepted:
            raise ValueError(f"{option} {value!r}; accepted: {', '.join(accepted)}")


def _convert(model: Any, dtype: torch.dtype) -> None:
    """All parts behind the features to another dtype, and the features when they come there."""
    for name, part in model.named_children():
        if name not in FLOAT32_PARTS:
            part.to(dtype)
    first = model.encoder if model.preencoder is None else model.preencoder
    first.register_forward_pre_hook(_CastFeatures(dtype))


class _CastFeatures:
    """Casts the first argument, features float (B, T, D). A class: a model can be pickled."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].to(self.dtype), *args[1:])


def _quantize(model: Any, modules: Sequence[str], dtype: str) -> None:
    from torch.ao.quantization import (
        float16_dynamic_qconfig,
        per_channel_dynamic_qconfig,
        quantize_dynamic,
    )

    config = per_channel_dynamic_qconfig if dtype == "qint8" else float16_dynamic_qconfig
    wanted: dict[Any, Any] = {getattr(nn, name): config for name in modules}
    wanted["ctc.ctc_lo"] = None
    output = getattr(model.decoder, "output_layer", None)
    if output is not None:
        wanted["decoder.output_layer"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its deprecation; the tested torch has it
        quantize_dynamic(model, wanted, dtype=getattr(torch, dtype), inplace=True)
        if type(output) is nn.Linear and "Linear" in modules and dtype == "qint8":
            model.decoder.output_layer = QuantizedOutput(output)


def _compile(model: Any, backend: str) -> None:
    """Compile each block of the encoder and each expert, and run them once: failures show here."""
    blocks = getattr(model.encoder, "encoders", None)
    if blocks is None:
        raise ValueError(f"compile: the encoder {type(model.encoder).__name__} has no blocks")
    for bank in [m for m in model.encoder.modules() if isinstance(m, ExpertBank)]:
        # which experts run is decided outside of what is compiled, or each mix would compile anew
        bank.forward = torch.compiler.disable(bank.forward, recursive=False)  # type: ignore[method-assign]
        for expert in bank.experts.values():
            expert.compile(dynamic=True, backend=backend)
    for block in blocks:
        block.compile(dynamic=True, backend=backend)
    try:
        _run_encoder(model)
    except Exception as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise RuntimeError(
            f"torch.compile of the encoder failed ({type(error).__name__}: {reason}); on a CPU it "
            "needs a C++ compiler (g++, or CXX=...), on a GPU Triton; compile=False does without"
        ) from error


@torch.inference_mode()
def _run_encoder(model: Any) -> None:
    """One second of noise through the encoder."""
    if model.frontend is None:  # then what features it takes is not known
        return
    device = next(model.parameters()).device
    lengths = torch.tensor([16000], device=device)
    feats, lengths = model._extract_feats(torch.randn(1, 16000, device=device), lengths)
    for part in (model.normalize, model.preencoder):
        if part is not None:
            feats, lengths = part(feats, lengths)
    if isinstance(model.encoder, RoutedEncoder):
        model.encoder.set_route(model.encoder.expert_names[:1])
    conditioned = model.encoder.interctc_use_conditioning
    model.encoder(feats, lengths, **({"ctc": model.ctc} if conditioned else {}))
