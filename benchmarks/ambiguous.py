#!/usr/bin/env python3
"""What to do with audio of uncertain bandwidth: the rules of `Speech2Text(ambiguous=...)` compared.

    python ../../../benchmarks/ambiguous.py --model exp/mini/s2t_train_mini \\
        --sets dump/mini/s2t/test_wb dump/mini/s2t/test_nb --json ambiguous.json

Run in the recipe directory after stage 11. Noise is added to the test sets, whose true bandwidths
are known, so that the meter often says "ambiguous". The rules differ on those utterances only:
``measured`` takes the likelier expert, ``wb`` that one, ``blend`` mixes both by the meter's
probability. Beside them stand two that know the truth: ``right`` forces the true route and
``wrong`` the other one, on every utterance.

Each utterance is decoded through each expert once, and through the blend where it is ambiguous;
the rules choose among those texts. Twins (the same id in several sets) get the same noise, scaled
to the power of each, and count as one sentence in what is pooled over sets and conditions.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from espnet_smoe import Speech, Speech2Text
from espnet_smoe.audio import read_audio
from espnet_smoe.bandwidth import AMBIGUOUS, BandwidthEstimate
from espnet_smoe.blends import BLEND
from espnet_smoe.datadir import read_table
from espnet_smoe.scoring import (
    RESAMPLES,
    SEED,
    corpus_value,
    metrics_for,
    paired_difference,
    prepared,
    resampled_sums,
    score,
    utterance_counts,
)

CLEAN = "clean"
COLOURS = ("white", "pink")
CONDITIONS = [CLEAN, *(f"{colour}:{snr}" for colour in COLOURS for snr in (25, 20, 15, 10, 5, 0))]
OTHER = {"wb": "nb", "nb": "wb"}
BASELINE = "measured"
RULES = (BASELINE, "wb", "blend", "right", "wrong")


def noisy(x: np.ndarray, condition: str, utt: str, seed: int) -> np.ndarray:
    """Add noise; the same utterance gets the same noise at every SNR.

    Args:
        x: Samples (N,).
        condition: ``clean``, or ``<colour>:<SNR in dB>``, over the mean power of the whole file.
        utt: Its id, which with the seed fixes the noise.
        seed: Of the run.

    Returns:
        float32 (N,).

    Raises:
        ValueError: The condition is none of these.
    """
    if condition == CLEAN:
        return x.astype(np.float32)
    colour, _, snr = condition.partition(":")
    if colour not in COLOURS or not re.fullmatch(r"-?\d+(\.\d+)?", snr):
        raise ValueError(
            f"condition {condition!r}; accepted: {CLEAN}, or {' or '.join(COLOURS)}:<SNR in dB>"
        )
    noise = np.random.default_rng([seed, zlib.crc32(utt.encode())]).standard_normal(len(x))
    if colour == "pink":  # power falls with 1 / frequency
        hz = np.fft.rfftfreq(len(x))
        hz[0] = hz[1]
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(hz), len(x))
    speech = x.astype(np.float64)
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-float(snr) / 20)
    return (speech + gain * noise).astype(np.float32)


def route_of(rule: str, found: BandwidthEstimate, truth: str) -> str:
    """The route that a rule takes: ``wb``, ``nb`` or ``blend``."""
    if rule in ("right", "wrong"):
        return truth if rule == "right" else OTHER[truth]
    if found.label != AMBIGUOUS or rule == BASELINE:
        return found.likelier
    return BLEND if rule == "blend" else rule


@dataclass(frozen=True)
class Decoded:
    """An utterance in one condition: what the meter said, and a text per route and task."""

    utt: str
    truth: str
    found: BandwidthEstimate
    texts: Mapping[str, Mapping[str, str]]  # by route and task

    def text(self, rule: str, task: str) -> str:
        return self.texts[route_of(rule, self.found, self.truth)][task]


def decode(s2t: Any, items: Sequence[Speech], truth: str, tasks: Sequence[str]) -> list[Decoded]:
    """Decode through both experts, and where the bandwidth is ambiguous through the blend.

    Args:
        s2t: `Speech2Text`.
        items: Named recordings.
        truth: Their true bandwidth.
        tasks: What to decode them for.

    Raises:
        ValueError: A recording so long that it is cut, and then may have several routes.
    """
    texts: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    found = {}

    def through(route: str, some: Sequence[Speech], **keywords: Any) -> None:
        for results in s2t(list(some), tasks=list(tasks), **keywords):
            first = results[tasks[0]]
            if first.duration > s2t.speech_length:
                raise ValueError(
                    f"{first.name} has {first.duration:.1f} s; accepted: up to what the model "
                    f"hears at once, {s2t.speech_length:g} s"
                )
            heard_by = {r.route.split("/")[0] for r in results.values()}
            assert heard_by == {route}, f"{first.name}: {heard_by} instead of {route}"
            texts[first.name][route] = {task: r.text for task, r in results.items()}
            found[first.name] = first.bandwidth

    for route in OTHER:
        through(route, items, bandwidth=route)
    names = [str(x.name) for x in items]
    in_doubt = [x for x, n in zip(items, names, strict=True) if found[n].label == AMBIGUOUS]
    through(BLEND, in_doubt, bandwidth="auto", ambiguous="blend")
    return [Decoded(name, truth, found[name], texts[name]) for name in names]


def shares(decoded: Sequence[Decoded]) -> dict[str, Any]:
    """How often the meter is in doubt or wrong."""
    doubtful = [d for d in decoded if d.found.label == AMBIGUOUS]
    wrong = {
        rule: sum(route_of(rule, d.found, d.truth) == OTHER[d.truth] for d in decoded)
        for rule in (BASELINE, "wb", "blend")
    }
    return {
        "utts": len(decoded),
        "ambiguous": len(doubtful),
        "ambiguous_likelier_wrong": sum(d.found.likelier != d.truth for d in doubtful),
        "decided_wrong": sum(d.found.label == OTHER[d.truth] for d in decoded),
        "routed_wrong": wrong,
    }


def pooled_difference(
    rows: Iterable[tuple[str, str, str, str]],
    metric: str,
    *,
    normalisation: str = "nfc_ws",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float, float]:
    """How much B differs from A where a sentence occurs several times: ``(B - A, low, high)``.

    As `espnet_smoe.scoring.paired_difference`, but the bootstrap draws sentences.

    Args:
        rows: ``(sentence, reference, text of A, text of B)``.
        metric: One of `espnet_smoe.scoring.METRICS`.
        normalisation: Of the texts.
        resamples: Bootstrap samples.
        seed: Of the bootstrap.
    """
    numbered = {f"{i:09d}": row for i, row in enumerate(rows)}
    references = {key: row[1] for key, row in numbered.items()}
    groups = [row[0] for row in numbered.values()]
    place = {group: i for i, group in enumerate(sorted(set(groups)))}
    values = []
    for column in (2, 3):
        texts = {key: row[column] for key, row in numbered.items()}
        _, refs, hyps = prepared(references, texts, normalisation)
        counts = utterance_counts(metric, refs, hyps)
        grouped = np.zeros((len(place), counts.shape[1]))
        np.add.at(grouped, [place[group] for group in groups], counts)
        whole = corpus_value(metric, grouped.sum(axis=0, keepdims=True))[0]
        sums = resampled_sums(grouped, resamples=resamples, seed=seed)
        values.append((whole, corpus_value(metric, sums)))
    (whole_a, a_R), (whole_b, b_R) = values
    low, high = np.percentile(b_R - a_R, [2.5, 97.5])
    return float(whole_b - whole_a), float(low), float(high)


def _difference(
    references: Mapping[str, str], a: Mapping[str, str], b: Mapping[str, str], metric: str
) -> dict[str, Any]:
    diff, low, high = paired_difference(references, a, b, metric)
    changed = sum(a[utt] != b[utt] for utt in references)
    return {"difference": diff, "ci95": [low, high], "texts_changed": changed}


def compare(
    decoded: Sequence[Decoded], references: Mapping[str, Mapping[str, str]], task: str
) -> dict[str, Any]:
    """Scores of all rules, and their differences from the baseline on what is ambiguous.

    What the wrong routes cost on all utterances says how much a rule could matter at most.

    Args:
        decoded: Of one condition and one true bandwidth, each utterance once.
        references: By task and utterance.
        task: ``asr`` or ``st_*``.
    """
    metric = metrics_for(task)[0]
    texts = {rule: {d.utt: d.text(rule, task) for d in decoded} for rule in RULES}
    wanted = {d.utt: references[task][d.utt] for d in decoded}
    scores = {rule: score(wanted, texts[rule], metric) for rule in RULES}
    doubtful = {d.utt for d in decoded if d.found.label == AMBIGUOUS}
    baseline, ref = ({u: table[u] for u in doubtful} for table in (texts[BASELINE], wanted))
    differences = {}
    for rule in RULES[1:-1] if doubtful else ():
        other = {utt: texts[rule][utt] for utt in doubtful}
        differences[rule] = _difference(ref, baseline, other, metric)
    return {
        "metric": metric,
        "scores": {rule: {"value": s.value, "ci95": list(s.ci95)} for rule, s in scores.items()},
        "wrong_minus_right": _difference(wanted, texts["right"], texts["wrong"], metric),
        "on_ambiguous": {"utts": len(doubtful), **differences},
    }


def pool(
    decoded: Sequence[Decoded], references: Mapping[str, Mapping[str, str]], task: str
) -> dict[str, Any]:
    """Differences on all ambiguous utterances of many conditions; a sentence counts once."""
    metric = metrics_for(task)[0]
    doubtful = [d for d in decoded if d.found.label == AMBIGUOUS]
    found: dict[str, Any] = {
        "metric": metric,
        "utts": len(doubtful),
        "sentences": len({d.utt for d in doubtful}),
    }
    for rule in RULES[1:] if doubtful else ():
        rows = [
            (d.utt, references[task][d.utt], d.text(BASELINE, task), d.text(rule, task))
            for d in doubtful
        ]
        diff, low, high = pooled_difference(rows, metric)
        found[rule] = {
            "difference": diff,
            "ci95": [low, high],
            "texts_changed": sum(a != b for _, _, a, b in rows),
        }
    return found


def _shown(d: Mapping[str, Any]) -> str:
    low, high = d["ci95"]
    return f"{d['difference']:+.2f} [{low:+.2f}, {high:+.2f}], {d['texts_changed']} texts changed"


def is_usable(condition: str, least_snr: float) -> bool:
    """Whether the noise is at most so loud; clean speech is."""
    return condition == CLEAN or float(condition.partition(":")[2]) >= least_snr


def report(condition: str, truth: str, found: Mapping[str, Any]) -> None:
    """Print a condition."""
    meter = found["meter"]
    print(
        f"{condition} {truth}: {meter['utts']} utterances, {meter['ambiguous']} ambiguous, routed "
        f"wrongly {meter['routed_wrong'][BASELINE]} (measured), {meter['routed_wrong']['wb']} (wb)"
    )
    for task, compared in found["tasks"].items():
        values = ", ".join(
            f"{rule} {s['value']:.2f} [{s['ci95'][0]:.2f}, {s['ci95'][1]:.2f}]"
            for rule, s in compared["scores"].items()
        )
        print(f"  {task} {compared['metric']}: {values}")
        print(f"    wrong - right on all: {_shown(compared['wrong_minus_right'])}", flush=True)
        on_ambiguous = dict(compared["on_ambiguous"])
        utts = on_ambiguous.pop("utts")
        for rule, d in on_ambiguous.items():
            print(f"    {rule} - {BASELINE} on {utts} ambiguous: {_shown(d)}", flush=True)


class TestSets:
    """Sets of stage 4, in memory.

    Args:
        directories: Each with ``wav.scp``, ``utt2bw``, ``utt2lang``, ``text`` or ``text.<task>``.
        tasks: Whose references are read.

    Raises:
        ValueError: An id occurs twice with the same bandwidth, or with different texts.
    """

    def __init__(self, directories: Iterable[Path], tasks: Sequence[str]) -> None:
        self.references: dict[str, dict[str, str]] = {task: {} for task in tasks}
        self.recordings: dict[str, dict[str, Speech]] = {"wb": {}, "nb": {}}  # by true bandwidth
        for directory in directories:
            for task, known in self.references.items():
                table = read_table(directory / ("text" if task == "asr" else f"text.{task}"))
                for utt, text in table.items():
                    if known.setdefault(utt, text) != text:
                        raise ValueError(f"{directory}: {utt!r} has another {task} text elsewhere")
            truths, languages = (read_table(directory / n) for n in ("utt2bw", "utt2lang"))
            for utt, wav in read_table(directory / "wav.scp").items():
                same = self.recordings[truths[utt]]
                if utt in same:
                    raise ValueError(f"{directory}: {utt!r} is {truths[utt]} elsewhere, too")
                same[utt] = Speech(read_audio(wav, utt=utt), name=utt, language=languages[utt])

    def noisy(self, truth: str, condition: str, seed: int) -> list[Speech]:
        """The recordings of a true bandwidth with noise; see `noisy`."""
        return [
            replace(x, audio=(noisy(x.audio[0], condition, utt, seed), x.audio[1]))
            for utt, x in self.recordings[truth].items()
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="stage 4's directories")
    parser.add_argument("--tasks", nargs="+", default=["asr", "st_eng"])
    parser.add_argument("--conditions", nargs="+", default=CONDITIONS)
    parser.add_argument("--config", type=Path, default=Path("conf/decode.yaml"))
    parser.add_argument("--seed", type=int, default=1, help="of the noise")
    parser.add_argument(
        "--usable_snr", type=float, default=15, help="dB from which on conditions are pooled too"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    options = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    s2t = Speech2Text.from_pretrained(args.model, **options)
    sets = TestSets(args.sets, args.tasks)
    begin = time.perf_counter()
    summary: dict[str, Any] = {"model": str(args.model), "seed": args.seed, "options": options}
    summary |= {"conditions": [], "pooled": [], "utterances": []}
    everything: list[tuple[str, Decoded]] = []
    for condition in args.conditions:
        for truth in sets.recordings:
            decoded = decode(s2t, sets.noisy(truth, condition, args.seed), truth, args.tasks)
            if not decoded:
                continue
            compared = {task: compare(decoded, sets.references, task) for task in args.tasks}
            found = {"meter": shares(decoded), "tasks": compared}
            report(condition, truth, found)
            summary["conditions"].append({"condition": condition, "truth": truth, **found})
            everything += [(condition, d) for d in decoded]
            summary["utterances"] += [{"condition": condition, **asdict(d)} for d in decoded]
    for least, truths in product((-np.inf, args.usable_snr), ("wb", "nb", "wb nb")):
        chosen = [d for c, d in everything if d.truth in truths.split() and is_usable(c, least)]
        for task in args.tasks:
            found = pool(chosen, sets.references, task)
            summary["pooled"].append({"snr": str(least), "truth": truths, "task": task, **found})
            shown = "; ".join(f"{rule} {_shown(found[rule])}" for rule in RULES if rule in found)
            print(f"SNR >= {least}, {truths}, {task}, {found['utts']} ambiguous: {shown}")
    summary["seconds"] = time.perf_counter() - begin
    if args.json:
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
