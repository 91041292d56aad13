#!/usr/bin/env python3
"""Exported routes against the S-MoE model and against the dense base.

    python benchmarks/export.py same [--kinds conformer transformer e_branchformer]
    python benchmarks/export.py same --model DIR [--audio wav.scp]
    python benchmarks/export.py speed [--rounds 24]
    python benchmarks/export.py memory [--repeats 3]

`same`: largest differences of encoder outputs and decoder scores between each exported route, run
by ESPnet in a process in which this package cannot be imported, and the S-MoE model on its route;
and parameters against the dense model's. Random models of the paper's size (40k tokens), or a
trained one. `speed`: whole calls of `espnet_smoe.Speech2Text` on 10 s, 40 tokens, the cases in a
random order in each round: medians of the rounds' ratios to the base, with bootstrap intervals, of
wall and of processor time (which another program's work disturbs less). Four processes load them
in another order each, since where in memory a model lies is worth a percent by itself. `memory`:
peak resident memory of loading and decoding, a process for each case. The cases: the dense
``base`` of the same shape, the ``exported`` route, the ``smoe`` model on that route, with all of
its experts or loaded with those of the route only.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from memory import MIB, forget_peak, resident
from paper_size import FS, LANGUAGE, token_list
from stock_process import ask

from espnet_smoe import Speech2Text
from espnet_smoe.audio import read_audio, resample
from espnet_smoe.dense_routes import Experts, every_route
from espnet_smoe.export import Exporter, encoded
from espnet_smoe.inputs import find_recordings
from espnet_smoe.model_files import write_model
from espnet_smoe.pretrained import find_model, load

CONF = Path(__file__).parents[1] / "egs2/smoe_asr_st/s2t1/conf"
SECONDS, TOKENS = 10.0, 40
ROUTE = Experts("nb", "asr")
CASES = ("base", "exported", "smoe", "smoe, route only")
CLOCKS = ("wall", "cpu")
Row = dict[str, Any]


def training_config(kind: str, *, dense: bool) -> dict[str, Any]:
    """The recipe's config of the paper's size with another encoder; ESPnet's own, if dense."""
    name = "train_encdec_smoe" + ("" if kind == "transformer" else "_conformer")
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    encoder = config["encoder_conf"]
    if kind == "e_branchformer":
        for option in ("normalize_before", "macaron_style", "activation_type", "use_cnn_module"):
            del encoder[option]
        del encoder["selfattention_layer_type"], encoder["cnn_module_kernel"]
        encoder |= {"use_ffn": True, "macaron_ffn": True, "attention_layer_type": "rel_selfattn"}
        encoder |= {"cgmlp_linear_units": 2048, "cgmlp_conv_kernel": 31}
    config["encoder"] = f"smoe_{kind}"
    config.update(token_list=token_list(40000), token_type="word", bpemodel=None, normalize=None)
    if dense:
        config.update(encoder=kind, decoder="transformer", model="espnet", preprocessor="s2t")
        for option in ("experts", "expert_blocks", "macaron_experts"):
            encoder.pop(option, None)
        for option in ("experts", "expert_blocks", "default_expert"):
            del config["decoder_conf"][option]
        for option in ("trim_padding", "speech_length", "fs"):
            del config["model_conf"][option]
        del config["preprocessor_conf"]["pad_prob"]
    return dict(config)


def build(kind: str, directory: Path, *, dense: bool = False) -> Path:
    """Write a random model."""
    from espnet2.tasks.s2t import S2TTask

    options = vars(S2TTask.get_parser().parse_args([])) | training_config(kind, dense=dense)
    torch.manual_seed(0)
    model = S2TTask.build_model(argparse.Namespace(**options))
    with torch.no_grad():
        for parameter in model.parameters():  # or all experts were alike
            parameter.add_(torch.randn_like(parameter) * 0.02)
    write_model(directory, options, model.state_dict())
    return directory


def parameters(kind: str) -> int:
    """Of the dense model."""
    from espnet2.tasks.s2t import S2TTask

    options = vars(S2TTask.get_parser().parse_args([])) | training_config(kind, dense=True)
    with torch.device("meta"):
        model = S2TTask.build_model(argparse.Namespace(**options))
    return sum(p.numel() for p in model.parameters())


def noises(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(int(SECONDS * FS), generator=generator) * 0.1 for _ in range(count)]


@torch.inference_mode()
def compare(
    exporter: Exporter, directory: Path, speech: list[torch.Tensor], case: str, base: int
) -> Iterator[Row]:
    """Each route of a model, S-MoE and exported (into `directory`)."""
    model = exporter.smoe
    index = {token: i for i, token in enumerate(model.token_list)}
    words = [i for i, token in enumerate(model.token_list) if not token.startswith("<")]
    routes = every_route(model)
    prefixes, requests = [], []
    for experts in routes:
        prompts = [
            [model.sos, index[LANGUAGE], index[guide], index["<notimestamps>"]]
            for guide in exporter.serves(experts) or ["<asr>"]
        ]
        prefixes.append(torch.tensor([[*p, *words[row::997][:6]] for row, p in enumerate(prompts)]))
        out = exporter.write(experts, directory / experts.name)
        files = {"config": str(out / "config.yaml"), "weights": str(out / "model.pth")}
        requests.append({**files, "speech": speech, "ys": prefixes[-1]})
    for experts, ys, stock in zip(routes, prefixes, ask(requests), strict=True):
        worst = [0.0, 0.0]
        for x, theirs, their_scores in zip(speech, stock["memory"], stock["scores"], strict=True):
            batch = {"speech": x[None], "speech_lengths": torch.tensor([len(x)])}
            ours = encoded(model, experts, batch)
            memories = ours.expand(len(ys), *ours.shape[1:])
            scores, _ = model.decoder.batch_score(ys, [None] * len(ys), memories)
            pairs = ((ours, theirs), (scores, their_scores))
            gaps = [float((a - b).abs().max()) for a, b in pairs]
            worst = [max(pair) for pair in zip(worst, gaps, strict=True)]
        yield {
            "case": case,
            "route": experts.name,
            "classes": stock["classes"],
            "inputs": len(speech),
            "encoder": worst[0],
            "decoder": worst[1],
            "parameters": stock["parameters"],
            "base_parameters": base or None,
            "smoe_parameters": sum(p.numel() for p in model.parameters()),
        }


def same(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []

    def add(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            base = f", base {row['base_parameters']:,}" if row["base_parameters"] else ""
            print(
                f"{row['case']:15s} {row['route']:7s} largest difference: encoder "
                f"{row['encoder']:.1e}, decoder {row['decoder']:.1e} ({row['inputs']} inputs); "
                f"parameters {row['parameters']:,}{base} (S-MoE {row['smoe_parameters']:,}); "
                f"{', '.join(row['classes'])}",
                flush=True,
            )

    if args.model:
        speech = noises(1)
        if args.audio:
            found = find_recordings([args.audio])[: args.utts]
            audio = (read_audio(recording.source) for recording in found)
            speech = [torch.from_numpy(resample(x, rate, FS)) for x, rate in audio]
        exporter = Exporter(load(find_model(args.model)))
        with tempfile.TemporaryDirectory() as directory:
            add(compare(exporter, Path(directory), speech, args.model.name, 0))
        return rows
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as directory:
            exporter = Exporter(load(find_model(build(kind, Path(directory) / "smoe"))))
            add(compare(exporter, Path(directory), noises(1), kind, parameters(kind)))
    return rows


def search(case: str) -> dict[str, Any]:
    """Options of a decode; both ratios make every hypothesis as long."""
    options: dict[str, Any] = {"lang_sym": LANGUAGE, "task_sym": "<asr>", "pad": False}
    options |= {"maxlenratio": -float(TOKENS), "minlenratio": -float(TOKENS - 1)}
    options["max_length"] = 30.0  # seconds; in noise there is no pause to cut at
    if case.startswith("smoe"):
        options["bandwidth"] = ROUTE.encoder
    if case.endswith("route only"):
        options["experts"] = [ROUTE.encoder, ROUTE.decoder]
    return options


def models(kind: str, directory: Path) -> dict[str, Path]:
    """Write the cases."""
    smoe = build(kind, directory / "smoe")
    exported = Exporter(load(find_model(smoe))).write(ROUTE, directory / "exported")
    base = build(kind, directory / "base", dense=True)
    return dict(zip(CASES, (base, exported, smoe, smoe), strict=True))


def interval(values: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, size=(4000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return statistics.median(values), float(low), float(high)


def seconds(found: dict[str, Path], first: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each call, by case and clock; the cases are loaded in turn from the `first` on."""
    (x,) = noises(1)
    order = CASES[first:] + CASES[:first]
    loaded = {case: Speech2Text.from_pretrained(found[case], **search(case)) for case in order}
    clocks = dict(zip(CLOCKS, (time.perf_counter, time.process_time), strict=True))
    spent: dict[str, dict[str, list[float]]] = {c: {k: [] for k in clocks} for c in CASES}
    for s2t in loaded.values():
        s2t(x)  # warm up
    rng = np.random.default_rng(first)
    for _ in range(rounds):
        for case in rng.permutation(CASES):
            start = {name: clock() for name, clock in clocks.items()}
            loaded[case](x)
            for name, clock in clocks.items():
                spent[case][name].append(clock() - start[name])
    return spent


def speed(args: argparse.Namespace) -> list[Row]:
    spent: dict[tuple[str, str], list[float]] = {(c, k): [] for c in CASES for k in CLOCKS}
    each = -(-args.rounds // len(CASES))
    with tempfile.TemporaryDirectory() as directory:
        found = {case: str(path) for case, path in models(args.kind, Path(directory)).items()}
        for first in range(len(CASES)):
            asked = json.dumps({"found": found, "first": first, "rounds": each})
            command = [sys.executable, __file__, "seconds", asked]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            for case, clocks in json.loads(done.stdout.splitlines()[-1]).items():
                for name, values in clocks.items():
                    spent[case, name] += values
    rows = []
    for case in CASES:
        row: Row = {"case": case, "rounds": each * len(CASES)}
        row["threads"] = torch.get_num_threads()
        for name in CLOCKS:
            pairs = zip(spent[case, name], spent["base", name], strict=True)
            ratios = [a / b for a, b in pairs]
            ratio, low, high = interval(ratios)
            row[name] = statistics.median(spent[case, name])
            row |= {f"{name}_ratio": ratio, f"{name}_ci95": [low, high]}
            parts = (ratios[i : i + each] for i in range(0, len(ratios), each))
            row[f"{name}_processes"] = [statistics.median(part) for part in parts]
        rows.append(row)
        figures = (
            f"{name} {row[name]:.3f} s, {row[f'{name}_ratio']:.3f} "
            f"[{row[f'{name}_ci95'][0]:.3f}, {row[f'{name}_ci95'][1]:.3f}] x base (by process "
            f"{', '.join(f'{x:.3f}' for x in row[f'{name}_processes'])})"
            for name in CLOCKS
        )
        print(f"{case:16s} {'; '.join(figures)} ({row['rounds']} rounds)", flush=True)
    return rows


def measure(model: Path, case: str) -> Row:
    """Peaks of this process above what it had with everything imported, in bytes."""
    from espnet2.tasks.s2t import S2TTask  # noqa: F401  (imported before the count begins)

    (x,) = noises(1)
    torch.nn.Linear(8, 8)(torch.zeros(1, 8))  # the libraries' own buffers
    before = resident("VmRSS")
    forget_peak()
    s2t = Speech2Text.from_pretrained(model, **search(case))
    loading = resident("VmHWM") - before
    forget_peak()
    s2t(x)
    return {"loading": loading, "decoding": resident("VmHWM") - before, "before": before}


def memory(args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        found = models(args.kind, Path(directory))
        peaks: dict[str, list[Row]] = {case: [] for case in CASES}
        for _ in range(args.repeats):
            for case in CASES:
                command = [sys.executable, __file__, "measure", str(found[case]), "--case", case]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                peaks[case].append(json.loads(done.stdout.splitlines()[-1]))
    for case in CASES:
        row: Row = {"case": case}
        for key in ("loading", "decoding"):
            row[key] = statistics.median(peak[key] for peak in peaks[case]) / MIB
            row[f"{key}_ratio"] = row[key] / (rows[0][key] if rows else row[key])
        whole = [p["before"] + max(p["loading"], p["decoding"]) for p in peaks[case]]
        row["process"] = statistics.median(whole) / MIB
        row["process_ratio"] = row["process"] / (rows[0]["process"] if rows else row["process"])
        rows.append(row)
        print(
            f"{case:16s} peak of decoding {row['decoding']:.0f} MiB ({row['decoding_ratio']:.3f} x "
            f"base), of loading {row['loading']:.0f} ({row['loading_ratio']:.3f}), of the process "
            f"{row['process']:.0f} ({row['process_ratio']:.3f})",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["same", "speed", "memory", "measure", "seconds"])
    parser.add_argument(
        "model_directory", nargs="?", help="of measure, seconds (memory's, speed's)"
    )
    parser.add_argument("--case", default="base", help="of measure")
    kinds = ["conformer", "transformer", "e_branchformer"]
    parser.add_argument("--kinds", nargs="+", default=kinds, help="of same")
    parser.add_argument("--kind", default="transformer", help="of speed and memory")
    parser.add_argument("--model", type=Path, help="a trained S-MoE model")
    parser.add_argument("--audio", help="what it hears: a file, directory or wav.scp")
    parser.add_argument("--utts", type=int, default=10, help="of --audio, at most")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.what == "measure":
        print(json.dumps(measure(Path(args.model_directory), args.case)))
        return
    if args.what == "seconds":
        asked = json.loads(args.model_directory)
        found = {case: Path(path) for case, path in asked["found"].items()}
        print(json.dumps(seconds(found, asked["first"], asked["rounds"])))
        return
    rows = {"same": same, "speed": speed, "memory": memory}[args.what](args)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
