"""WER, CER, BLEU, chrF and accuracy with bootstrap intervals.

jiwer and sacrebleu count the errors and the matches of each utterance, once. Every
corpus figure, interval and paired difference is then a function of sums of those counts,
so that 1,000 resamples cost one matrix product.

Shape letters: ``U`` utterances (or groups), ``S`` counts per utterance, ``R`` resamples.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from espnet_smoe.datadir import SHOWN, DataError, require_same_keys

METRICS = ("wer", "cer", "bleu", "chrf", "accuracy")
LOWER_IS_BETTER = frozenset({"wer", "cer"})
RESAMPLES = 1000
SEED = 2025
CHUNK = 2_000_000  # bootstrap weights held at once (16 MB)
BLEU_ORDER = 4
CHRF_BETA = 2  # sacrebleu's default

References = Mapping[str, "str | Sequence[str]"]


def _nfc_ws(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _lower_nopunct(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").replace("\u2010", "-")
    kept = []
    for i, char in enumerate(text):
        category = unicodedata.category(char)
        after_letter = i > 0 and unicodedata.category(text[i - 1])[0] in "LNM"
        before_letter = i + 1 < len(text) and unicodedata.category(text[i + 1])[0] in "LNM"
        inside_word = (char == "'" and after_letter) or (
            char == "-" and after_letter and before_letter
        )
        kept.append(" " if category[0] in "PS" and not inside_word else char)
    return _nfc_ws("".join(kept).lower())


NORMALISATIONS: dict[str, tuple[Callable[[str], str], str]] = {
    "none": (lambda text: text, "text as it is"),
    "nfc_ws": (_nfc_ws, "Unicode NFC, runs of white space folded to one space"),
    "lower_nopunct": (
        _lower_nopunct,
        "nfc_ws, lower case, punctuation and symbols replaced by a space; an apostrophe after a "
        "letter and a hyphen between letters stay",
    ),
}


def normalise(text: str, name: str) -> str:
    """Apply a named text normalisation (a key of :data:`NORMALISATIONS`).

    Raises:
        DataError: The name is unknown.
    """
    if name not in NORMALISATIONS:
        known = ", ".join(NORMALISATIONS)
        raise DataError(f"text normalisation {name!r} is unknown (known: {known})")
    return NORMALISATIONS[name][0](text)


def metrics_for(task: str) -> tuple[str, ...]:
    """The metrics of a task: ``asr`` WER and CER, ``st_*`` BLEU and chrF, others accuracy."""
    if task == "asr":
        return ("wer", "cer")
    return ("bleu", "chrf") if task.startswith("st_") else ("accuracy",)


def utterance_counts(
    metric: str, references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> np.ndarray:
    """Count errors or matches of each utterance.

    Args:
        metric: One of :data:`METRICS`.
        references: ``U`` lists of one or more references; WER and CER take exactly one.
        hypotheses: ``U`` texts; an empty one is all deletions.

    Returns:
        ``(U, S)`` float64 counts whose column sums determine the corpus figure:
        WER, CER ``[errors, reference length]``; BLEU ``[hypothesis length, reference length,
        4 matches, 4 totals]``; chrF ``[hypothesis, reference, match] * 6``; accuracy
        ``[exact matches, 1]``.

    Raises:
        DataError: Unknown metric, no utterance, or several references for WER or CER.
    """
    if metric not in METRICS:
        raise DataError(f"metric {metric!r} is unknown (known: {', '.join(METRICS)})")
    if len(references) != len(hypotheses) or not references:
        raise DataError(
            f"{metric}: {len(references)} references and {len(hypotheses)} hypotheses; "
            "the same number, at least one, is needed"
        )
    if metric in ("wer", "cer"):
        if any(len(texts) != 1 for texts in references):
            raise DataError(f"{metric} takes one reference per utterance")
        return _edit_counts(metric, [texts[0] for texts in references], list(hypotheses))
    if metric == "accuracy":
        pairs = zip(references, hypotheses, strict=True)
        return np.array([[float(hyp in texts), 1.0] for texts, hyp in pairs])
    width = max(len(texts) for texts in references)
    # sacrebleu wants one stream per reference number; None marks "this utterance has fewer"
    streams = [[t[i] if i < len(t) else None for t in references] for i in range(width)]
    return np.array(
        _sacrebleu(metric)._extract_corpus_statistics(list(hypotheses), streams), dtype=np.float64
    )


def _edit_counts(metric: str, references: list[str], hypotheses: list[str]) -> np.ndarray:
    import jiwer

    process: Any = jiwer.process_words if metric == "wer" else jiwer.process_characters
    output = process(references, hypotheses)
    rows = []
    for tokens, chunks in zip(output.references, output.alignments, strict=True):
        errors = sum(
            max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
            for c in chunks
            if c.type != "equal"
        )
        rows.append([float(errors), float(len(tokens))])
    return np.array(rows)


def _sacrebleu(metric: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU() if metric == "bleu" else CHRF()


def corpus_value(metric: str, sums_RS: np.ndarray) -> np.ndarray:
    """Corpus figures from summed counts.

    Args:
        metric: One of :data:`METRICS`.
        sums_RS: ``(R, S)`` column sums of :func:`utterance_counts`.

    Returns:
        ``(R,)`` figures: percent, or BLEU and chrF points (0 to 100).
    """
    if metric == "bleu":
        return _bleu(sums_RS)
    if metric == "chrf":
        return _chrf(sums_RS)
    return 100.0 * sums_RS[:, 0] / sums_RS[:, 1]


def _bleu(sums_RS: np.ndarray) -> np.ndarray:
    """sacrebleu's BLEU (exp smoothing, fixed order 4) for many corpora at once."""
    sys_len, ref_len = sums_RS[:, 0], sums_RS[:, 1]
    match = sums_RS[:, 2 : 2 + BLEU_ORDER]
    total = sums_RS[:, 2 + BLEU_ORDER :]
    unmatched = (match == 0) & (total > 0)
    smoothing = 2.0 ** np.cumsum(unmatched, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(unmatched, 1.0 / smoothing, match) / total
        penalty = np.where(sys_len < ref_len, np.exp(1.0 - ref_len / sys_len), 1.0)
        score = 100.0 * penalty * np.exp(np.log(precision).mean(axis=1))
    usable = (total > 0).all(axis=1) & (match > 0).any(axis=1)
    return np.where(usable, score, 0.0)


def _chrf(sums_RS: np.ndarray) -> np.ndarray:
    """sacrebleu's chrF2 (effective order) for many corpora at once."""
    hyp, ref, match = sums_RS[:, 0::3], sums_RS[:, 1::3], sums_RS[:, 2::3]
    both = (hyp > 0) & (ref > 0)
    orders = np.maximum(both.sum(axis=1), 1)
    precision = (match / np.maximum(hyp, 1) * both).sum(axis=1) / orders
    recall = (match / np.maximum(ref, 1) * both).sum(axis=1) / orders
    factor = CHRF_BETA**2
    total = factor * precision + recall
    return 100.0 * (1 + factor) * precision * recall / np.where(total > 0, total, 1.0)


def signature(metric: str, n_references: int = 1) -> str:
    """What exactly the metric is: sacrebleu's signature, or the jiwer version."""
    if metric in ("bleu", "chrf"):
        scorer = _sacrebleu(metric)
        scorer.corpus_score(["a"], [["a"]] * n_references)
        return f"{metric}: {scorer.get_signature()}"
    if metric == "accuracy":
        return "accuracy: exact match with any reference, in percent"
    from importlib.metadata import version

    unit = "words" if metric == "wer" else "characters, spaces included"
    return f"{metric}: edit distance over {unit}, in percent|jiwer:{version('jiwer')}"


def resampled_sums(
    counts_US: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Sums over ``resamples`` bootstrap samples of the rows; returns ``(R, S)``.

    The same seed and number of rows give the same samples, which is what pairs two systems.
    """
    n_utts = len(counts_US)
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // n_utts)
    sums = []
    for start in range(0, resamples, step):
        drawn = rng.integers(n_utts, size=(min(step, resamples - start), n_utts))
        weights_RU = np.stack([np.bincount(row, minlength=n_utts) for row in drawn])
        sums.append(weights_RU.astype(np.float64) @ counts_US)
    return np.concatenate(sums)


def _interval(values_R: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """One line of ``results.json``.

    ``value`` and ``ci95`` are percent, or BLEU and chrF points. ``n_utts`` counts scored
    hypotheses, ``n_ref_words`` white-space separated words of the (first) references.
    """

    test_set: str
    task: str
    bandwidth: str
    metric: str
    value: float
    ci95: tuple[float, float]
    n_utts: int
    n_ref_words: int
    model: str
    commit: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of DESIGN's ``results.json``."""
        return {**asdict(self), "ci95": list(self.ci95)}


def prepared(
    references: References, hypotheses: Mapping[str, str], normalisation: str
) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    """Match hypotheses with references and normalise both.

    Returns:
        Sorted utterance ids, their references, their hypotheses.

    Raises:
        DataError: Hypotheses are missing or of unknown utterances, there is nothing to score,
            or a reference is empty (after normalisation). Names the utterances.
    """
    require_same_keys(references, hypotheses, names=("references", "hypotheses"))
    if not references:
        raise DataError("there is no utterance to score")
    utts = sorted(references)
    refs = []
    for utt in utts:
        value = references[utt]
        texts = (value,) if isinstance(value, str) else tuple(value)
        refs.append(tuple(normalise(text, normalisation) for text in texts))
    empty = [utt for utt, texts in zip(utts, refs, strict=True) if not texts or "" in texts]
    if empty:
        raise DataError(
            f"{len(empty)} reference(s) are empty after text normalisation {normalisation!r}: "
            f"{', '.join(empty[:SHOWN])}{', ...' if len(empty) > SHOWN else ''}"
        )
    return utts, refs, [normalise(hypotheses[utt], normalisation) for utt in utts]


def score(
    references: References,
    hypotheses: Mapping[str, str],
    metric: str,
    *,
    normalisation: str = "nfc_ws",
    groups: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    test_set: str = "",
    task: str = "",
    bandwidth: str = "",
    model: str = "",
    commit: str = "",
) -> Score:
    """Score hypotheses against references.

    Args:
        references: Utterance id to its reference, or to several references.
        hypotheses: Utterance id to text, for exactly the same utterances; ``""`` is allowed.
        metric: One of :data:`METRICS`.
        normalisation: A key of :data:`NORMALISATIONS`, applied to both sides.
        groups: Utterance id to the unit that is resampled, when two utterances are one
            sentence (its narrowband and its wideband copy). Default: every utterance alone.
        resamples: Bootstrap samples behind the 95 % percentile interval.
        seed: Seed of the bootstrap.
        test_set, task, bandwidth, model, commit: Copied into the result.

    Raises:
        DataError: See :func:`prepared` and :func:`utterance_counts`.
    """
    utts, refs, hyps = prepared(references, hypotheses, normalisation)
    counts_US = utterance_counts(metric, refs, hyps)
    value = float(corpus_value(metric, counts_US.sum(axis=0, keepdims=True))[0])
    if groups is not None:
        index = {g: i for i, g in enumerate(sorted({groups[utt] for utt in utts}))}
        grouped = np.zeros((len(index), counts_US.shape[1]))
        np.add.at(grouped, [index[groups[utt]] for utt in utts], counts_US)
        counts_US = grouped
    sums_RS = resampled_sums(counts_US, resamples=resamples, seed=seed)
    return Score(
        test_set=test_set,
        task=task,
        bandwidth=bandwidth,
        metric=metric,
        value=value,
        ci95=_interval(corpus_value(metric, sums_RS)),
        n_utts=len(utts),
        n_ref_words=sum(len(texts[0].split()) for texts in refs),
        model=model,
        commit=commit,
    )


def paired_difference(
    ref: References,
    hyp_a: Mapping[str, str],
    hyp_b: Mapping[str, str],
    metric: str,
    *,
    normalisation: str = "nfc_ws",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float, float]:
    """How much B differs from A on the same utterances: ``(B - A, low, high)``.

    Every bootstrap sample draws the same utterances for both (paired bootstrap), so the
    95 % interval excludes 0 where the difference is systematic, though small.

    Raises:
        DataError: See :func:`prepared` and :func:`utterance_counts`.
    """
    both = []
    for hypotheses in (hyp_a, hyp_b):
        _, refs, hyps = prepared(ref, hypotheses, normalisation)
        both.append(utterance_counts(metric, refs, hyps))
    values_2R = [
        corpus_value(metric, resampled_sums(counts, resamples=resamples, seed=seed))
        for counts in both
    ]
    whole_a, whole_b = (corpus_value(metric, c.sum(axis=0, keepdims=True))[0] for c in both)
    return (float(whole_b - whole_a), *_interval(values_2R[1] - values_2R[0]))


def count_route_mismatches(utt2route: Mapping[str, str], utt2bw: Mapping[str, str]) -> int:
    """How many utterances of ``utt2bw`` were decoded by another bandwidth's expert.

    Raises:
        DataError: An utterance has no route.
    """
    require_same_keys(utt2bw, {u: utt2route[u] for u in utt2bw if u in utt2route},
                      names=("utt2bw", "utt2route"))  # fmt: skip
    return sum(utt2route[utt] != bandwidth for utt, bandwidth in utt2bw.items())
