"""Write a dense S2T model as ONNX: a directory that `espnet_smoe.onnx_decode` decodes with.

It holds ``encoder.onnx`` and ``decoder.onnx`` (`espnet_smoe.onnx_modules` says what goes in and
comes out), ``tokens.txt``, the BPE model, and ``model.json`` with what else a decoder must know.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from espnet_smoe.checkpoints import ModelError
from espnet_smoe.compat import check_short_utt
from espnet_smoe.model_files import BPE_MODEL, new_directory
from espnet_smoe.onnx_modules import (
    MOST_TOKENS,
    DecoderStep,
    EncoderBlocks,
    WaveformInput,
    check_exportable,
)
from espnet_smoe.pretrained import Pretrained
from espnet_smoe.routing import TIMESTAMP
from espnet_smoe.vocabulary import Vocabulary

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
TOKENS, DESCRIPTION = "tokens.txt", "model.json"
FORMAT = 1  # of the description
OPSET = 18
TOKEN_TYPES = ("bpe", "word", "char")
# Weights of one file beyond this go into a second one beside it: protobuf ends at 2 GiB.
MOST_BYTES = 1_800_000_000
TOLERANCE = 1e-3  # largest difference that the check after writing accepts


def export_onnx(loaded: Pretrained, directory: str | Path) -> float:
    """Write a model's ONNX directory, whole or not at all.

    Args:
        loaded: A dense model: ESPnet's encoder ``conformer``, ``transformer`` or
            ``e_branchformer``, decoder ``transformer``.
        directory: Does not exist, or is empty.

    Returns:
        The largest absolute difference between onnxruntime and PyTorch, memory and
        log-probabilities, on noise of other lengths and another batch than those traced.

    Raises:
        ModelError: A part that ONNX cannot hold here, a package that is lacking, a directory that
            holds something, or a difference above `TOLERANCE`.
    """
    model = loaded.model
    check_exportable(model)
    description = describe(loaded)
    for module in model.modules():
        if hasattr(module, "use_flash_attn"):
            module.use_flash_attn = False
    front, blocks = WaveformInput(model).eval(), EncoderBlocks(model).eval()
    step = DecoderStep(model.decoder).eval()
    samples = max(description["min_samples"], description["sampling_rate"] // 2)
    with new_directory(Path(directory).absolute()) as partial:
        speech, lengths = _noise([samples + 1600, samples])
        with torch.no_grad():
            embedded, inside = front(speech, lengths)
            _, memory_lengths, memory_cache = blocks(embedded, inside)
        traced_front = _trace(
            front,
            {"speech": speech, "lengths": lengths},
            {"speech": (0, 1), "lengths": (0,)},
            ["embedded", "inside"],
        )
        traced_blocks = _trace(
            blocks,
            {"embedded": embedded, "inside": inside},
            {"embedded": (0, 1), "inside": (0, 2)},
            ["memory", "memory_lengths", "memory_cache"],
        )
        _save(_joined(traced_front, traced_blocks), partial / ENCODER)
        shape = [*memory_cache.shape[:3], 3, memory_cache.shape[3], 4, memory_cache.shape[5]]
        traced_step = _trace(
            step,
            {
                "tokens": torch.ones(2, 3, 2, dtype=torch.int64),
                "cache": torch.zeros(shape),
                "memory_cache": memory_cache,
                "memory_lengths": memory_lengths,
            },
            {
                "tokens": (0, 1, 2),
                "cache": (2, 3, 5),
                "memory_cache": (2, 4),
                "memory_lengths": (0,),
            },
            ["log_probs", "next_cache"],
        )
        _save(traced_step, partial / DECODER)
        tokens = "".join(f"{token}\n" for token in model.token_list)
        (partial / TOKENS).write_text(tokens, encoding="utf-8")
        if description["token_type"] == "bpe":
            shutil.copy(loaded.args.bpemodel, partial / BPE_MODEL)
        text = json.dumps(description, indent=2, ensure_ascii=False)
        (partial / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        difference = _difference(partial, model, step, [samples, samples + 4321, samples + 777])
        if not difference <= TOLERANCE:
            raise ModelError(
                f"onnxruntime differs from PyTorch by {difference:.2g}; accepted: {TOLERANCE}"
            )
    return difference


def describe(loaded: Pretrained) -> dict[str, Any]:
    """What ``model.json`` holds.

    Raises:
        ModelError: A kind of token that the decoder does not know.
    """
    model, conf = loaded.model, loaded.preprocessor_conf
    if loaded.args.token_type == "bpe" and loaded.tokenizer is None:
        raise ModelError("token_type is bpe, but the config names no bpemodel")
    vocabulary = Vocabulary(model.token_list, loaded.tokenizer, conf)
    if loaded.args.token_type not in TOKEN_TYPES:
        raise ModelError(
            f"token_type is {loaded.args.token_type!r}; accepted: {', '.join(TOKEN_TYPES)}"
        )
    ids = vocabulary.ids
    times = [i for token, i in ids.items() if TIMESTAMP.fullmatch(token)]
    ends = [ids.get(str(conf.get(f"{end}_time_symbol"))) for end in ("first", "last")]
    if times and None in ends:
        ends = [times[0], times[-1]]
    if vocabulary.notime not in ids:
        raise ModelError(f"the token list has no {vocabulary.notime!r}, which prompts need")
    fs = int(conf.get("fs", 16000))
    padded = int(loaded.speech_length * fs)
    block = model.decoder.decoders[0].self_attn
    return {
        "format": FORMAT,
        "sampling_rate": fs,
        "min_samples": _least_samples(model),
        "pad_to_samples": padded if loaded.trained_padded else None,
        "sos": model.sos,
        "eos": model.eos,
        "languages": {token.strip("<>"): ids[token] for token in vocabulary.languages},
        "tasks": {token.strip("<>"): ids[token] for token in vocabulary.tasks},
        "notimestamps": ids[vocabulary.notime],
        "timestamps": ends if times else None,  # the first and the last
        "not_text": sorted(ids[token] for token in vocabulary.special if token in ids),
        "token_type": loaded.args.token_type,
        "byte_level": vocabulary.byte_level,
        "layers": len(model.decoder.decoders),
        "heads": block.h,
        "head_size": block.d_k,
        "max_tokens": MOST_TOKENS,
    }


def _least_samples(model: Any) -> int:
    """The shortest waveform that the encoder takes."""
    short, frames = check_short_utt(model.encoder.embed, 0)
    stft = model.frontend.stft
    margin = stft.n_fft // 2 if stft.center else 0
    samples = ((frames if short else 1) - 1) * stft.hop_length + stft.n_fft - 2 * margin
    return max(samples, margin + 1)  # what is reflected must be there


def _trace(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    dynamic: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
) -> Any:
    """A module as an ONNX model in memory; the dimensions in `dynamic` may be others later."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "writing ONNX needs onnxscript: pip install 'espnet-smoe[onnx]'"
        ) from error
    shapes = {name: dict.fromkeys(axes, Dim.DYNAMIC) for name, axes in dynamic.items()}
    with _quiet(), torch.no_grad():
        traced = torch.export.export(
            module,
            tuple(value.contiguous() for value in inputs.values()),
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _joined(first: Any, second: Any) -> Any:
    """Two ONNX models as one: the second's inputs are the first's outputs of the same names."""
    from onnx import compose

    names = [value.name for value in second.graph.input]
    first = compose.add_prefix(first, "front/", rename_inputs=False, rename_outputs=False)
    second = compose.add_prefix(second, "blocks/", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(first, second, io_map=[(name, name) for name in names])


def _save(proto: Any, path: Path) -> None:
    import onnx

    if proto.ByteSize() < MOST_BYTES:
        onnx.save_model(proto, path)
    else:
        onnx.save_model(
            proto,
            path,
            save_as_external_data=True,
            location=f"{path.name}.data",
            size_threshold=1024,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter says about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _noise(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    speech = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
    for row, length in enumerate(lengths):
        speech[row, length:] = 0.0
    return speech, torch.tensor(lengths)


def _difference(directory: Path, model: Any, step: nn.Module, lengths: list[int]) -> float:
    """Largest absolute difference of onnxruntime and PyTorch, two steps of two beams each."""
    from espnet_smoe.onnx_decode import run_session, session

    runs = {name: session(directory / name) for name in (ENCODER, DECODER)}
    speech, length_B = _noise(lengths)
    heard = run_session(runs[ENCODER], speech=speech.numpy(), lengths=length_B.numpy())
    with torch.no_grad():
        memory, memory_lengths = model.encode(speech, length_B)
        if isinstance(memory, tuple):  # outputs of intermediate CTC layers beside it
            memory = memory[0]
        _, _, memory_cache = EncoderBlocks(model)(*WaveformInput(model)(speech, length_B))
        found = [_gap(heard["memory"], memory), _gap(heard["memory_lengths"], memory_lengths)]
        layers, _, batch, heads, _, size = memory_cache.shape
        cache = torch.zeros(layers, 2, batch, 2, heads, 0, size)
        own = cache.numpy()
        for tokens in (torch.arange(6 * batch).reshape(batch, 2, 3) % 5, torch.ones(batch, 2, 1)):
            log_probs, cache = step(tokens.long(), cache, memory_cache, memory_lengths)
            written = run_session(
                runs[DECODER],
                tokens=tokens.long().numpy(),
                cache=own,
                memory_cache=heard["memory_cache"],
                memory_lengths=heard["memory_lengths"],
            )
            own = written["next_cache"]
            found.append(_gap(written["log_probs"], log_probs))
    return max(found)


def _gap(ours: np.ndarray, theirs: torch.Tensor) -> float:
    if ours.shape != tuple(theirs.shape):
        return float("inf")
    return float(np.abs(ours - theirs.numpy()).max())
