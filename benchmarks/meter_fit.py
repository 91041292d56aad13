#!/usr/bin/env python3
"""Fit the bandwidth meter's coefficients, `INTERCEPT` and `WEIGHTS` in espnet_smoe/bandwidth.py.

    python benchmarks/meter_fit.py DIR [--folds 6] [--json FILE]

DIR holds recordings whose true bandwidth is known, one folder per source (a speaker, a corpus, a
line): ``DIR/wb/<source>/*`` and ``DIR/nb/<source>/*``, at more than 10 kHz, in any format that
libsndfile reads. Logistic regression with equal weight for both bandwidths and an L2 penalty on
standardised terms. Prints what cross-validation over the sources says (no source is judged by
coefficients fitted on it), how well probabilities agree with counts, and the constants to paste.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from espnet_smoe.audio import read_audio
from espnet_smoe.bandwidth import SURE, analyse, evidence
from espnet_smoe.bandwidth_features import features

PENALTY = 1.0
STEPS = 50  # of Newton's method
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 1.0)


def fit(terms_NK: np.ndarray, wide_N: np.ndarray) -> tuple[float, np.ndarray]:
    """Intercept and weights (K,) for terms (N, K) and truths (N,), 1 for wideband."""
    mean, spread = terms_NK.mean(axis=0), terms_NK.std(axis=0) + 1e-9
    x = np.column_stack([np.ones(len(terms_NK)), (terms_NK - mean) / spread])
    share = wide_N.mean()
    weight_N = np.where(wide_N > 0.5, 0.5 / share, 0.5 / (1 - share))
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 0.0
    beta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (weight_N * (wide_N - p)) - penalty * beta
        hessian = (x * (weight_N * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(beta)), gradient)
        beta += step
        if np.abs(step).max() < 1e-8:
            break
    weights = beta[1:] / spread
    return float(beta[0] - weights @ mean), weights


def main() -> None:
    """Read, cross-validate, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--folds", type=int, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, truths, sources = [], [], []
    files = [f for label in ("wb", "nb") for f in sorted(args.dir.glob(f"{label}/*/*"))]
    for path in tqdm(files, desc="measure", mininterval=1.0):
        found = features(analyse(*read_audio(path)))
        if found.n_active:
            rows.append(evidence(found))
            truths.append(float(path.parts[-3] == "wb"))
            sources.append(path.parts[-2])
    names = list(rows[0])
    terms_NK = np.array([[row[name] for name in names] for row in rows])
    wide_N, source_N = np.array(truths), np.array(sources)
    fold_of = {source: i % args.folds for i, source in enumerate(sorted(set(sources)))}
    fold_N = np.array([fold_of[source] for source in source_N])
    p_N = np.zeros(len(wide_N))
    for fold in range(args.folds):
        held = fold_N == fold
        intercept, weights = fit(terms_NK[~held], wide_N[~held])
        p_N[held] = 1 / (1 + np.exp(-(intercept + terms_NK[held] @ weights)))
    truth_N = np.where(wide_N > 0.5, p_N, 1 - p_N)
    report = {}
    for name, rows_N in (("wb", wide_N > 0.5), ("nb", wide_N < 0.5)):
        p = truth_N[rows_N]
        report[name] = {
            "recordings": int(rows_N.sum()),
            "right": float((p >= SURE).mean()),
            "ambiguous": float(((p < SURE) & (p > 1 - SURE)).mean()),
            "likelier_right": float((p >= 0.5).mean()),
        }
        print(name, report[name])
    confidence_N = np.maximum(p_N, 1 - p_N)
    for low, high in zip(CONFIDENCES, CONFIDENCES[1:], strict=False):
        some = (confidence_N >= low) & ((confidence_N < high) | (high == 1))
        if some.any():
            print(
                f"confidence {low:.2f} to {high:.2f}: {some.sum()} recordings, "
                f"mean {confidence_N[some].mean():.3f}, right {(truth_N[some] > 0.5).mean():.3f}"
            )
    intercept, weights = fit(terms_NK, wide_N)
    print(f"sources: {len(fold_of)}; recordings: {len(wide_N)}\n\nINTERCEPT = {intercept:.3f}")
    print("WEIGHTS = {")
    for name, weight in zip(names, weights, strict=True):
        print(f'    "{name}": {weight:.4f},')
    print("}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
