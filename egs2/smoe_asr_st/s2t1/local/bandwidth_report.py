"""What stage 2 tells about a set: the report, the list of cases, the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet_smoe.audio import AudioError, read_audio
from espnet_smoe.bandwidth import BandwidthEstimate

NB_RATE = 8000  # Hz; a file at this rate or below cannot be wideband
DOUBTFUL_CONFIDENCE = 0.9  # decided utterances below it are listed too
LINES_SHOWN = 1000  # cases that the report shows; the list has all of them
SPECTRA_SHOWN = 12  # doubtful files drawn
EDGE_STEP_HZ = 200.0  # a bar of the histogram
SPECTRUM_FRAME = 0.032  # seconds
CASES_NAME = "bandwidth_cases.tsv"
PICTURE_NAME = "bandwidth.png"
CASE_COLUMNS = ("utterance", "file", "header_hz", "edge_hz", "confidence", "decision", "why")


class Tag(NamedTuple):
    """What stage 2 knows about one original file.

    Attributes:
        rate: The sampling rate in its header, Hz.
        estimate: What its spectrum holds.
        label: The decision: ``nb`` or ``wb``.
        given: The decision is the user's own (``utt2bw``).
    """

    rate: int
    estimate: BandwidthEstimate
    label: str
    given: bool

    @property
    def by_header(self) -> str:
        """What the header alone says."""
        return "nb" if self.rate <= NB_RATE else "wb"

    @property
    def is_conflict(self) -> bool:
        """Header and spectrum contradict each other."""
        return self.estimate.label != "ambiguous" and self.estimate.label != self.by_header

    def reasons(self) -> list[str]:
        """Why somebody should look at the file; empty: nothing is odd about it."""
        found = []
        if self.is_conflict:
            spectrum = {"nb": "narrowband", "wb": "wideband"}[self.estimate.label]
            found.append(f"header {self.rate} Hz, spectrum {spectrum}")
        if self.given and self.label != self.estimate.likelier:
            found.append(f"utt2bw says {self.label}, measured {self.estimate.label}")
        if self.estimate.label == "ambiguous":
            found.append(f"ambiguous: {self.estimate.reason}")
        elif self.estimate.confidence < DOUBTFUL_CONFIDENCE:
            found.append("doubtful")
        return found


def cases(wavs: Mapping[str, str], tags: Mapping[str, Tag]) -> Iterator[tuple[str, ...]]:
    """The rows (`CASE_COLUMNS`) of the utterances to look at."""
    for utt, tag in tags.items():
        reasons = tag.reasons()
        if reasons:
            numbers = (f"{tag.estimate.edge_hz:.0f}", f"{tag.estimate.confidence:.2f}")
            yield (utt, wavs[utt], str(tag.rate), *numbers, tag.label, "; ".join(reasons))


def report(
    name: str, tags: Mapping[str, Tag], rows: list[tuple[str, ...]], notes: list[str], policy: str
) -> str:
    """The text of bandwidth_report.md.

    Args:
        name: The set's.
        tags: Every original file's.
        rows: Those to look at, as `cases` gives them.
        notes: Further paragraphs.
        policy: ``--on_conflict``.
    """
    counts = Counter((tag.rate, tag.label) for tag in tags.values())
    text = [f"# Bandwidth of `{name}`", ""]
    text += [f"{len(tags)} original files, by the rate in their header:", ""]
    text += ["| header rate (Hz) | nb | wb |", "| ---: | ---: | ---: |"]
    for rate in sorted({tag.rate for tag in tags.values()}):
        text.append(f"| {rate} | {counts[rate, 'nb']} | {counts[rate, 'wb']} |")
    given = sum(tag.given for tag in tags.values())
    rest = "the header" if policy == "header" else "the measurement"
    decided = {0: rest, len(tags): "the data directory's own `utt2bw`"}.get(
        given, f"the data directory's own `utt2bw` for {given} utterances, for the others {rest}"
    )
    text += ["", f"Decided by {decided}.", *notes]
    text += ["", f"![Edges and doubtful spectra]({PICTURE_NAME})", "", "## Files to look at", ""]
    if not rows:
        text.append("None: header and spectrum agree everywhere.")
        return "\n".join(text) + "\n"
    conflicts = sum(tag.is_conflict for tag in tags.values())
    unclear = sum(tag.estimate.label == "ambiguous" for tag in tags.values())
    text += [
        f"{len(rows)} files ({CASES_NAME} lists them for programs): {conflicts} whose header and "
        f"spectrum disagree (--on_conflict {policy}), {unclear} ambiguous, the others because of "
        f"`utt2bw` or a confidence below {DOUBTFUL_CONFIDENCE}.",
        "",
        "| utterance | file | header (Hz) | edge (Hz) | confidence | decision | why |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
        *("| " + " | ".join(row) + " |" for row in rows[:LINES_SHOWN]),
    ]
    if len(rows) > LINES_SHOWN:
        text += ["", f"... and {len(rows) - LINES_SHOWN} more in {CASES_NAME}."]
    return "\n".join(text) + "\n"


def mean_spectrum(path: str) -> tuple[np.ndarray, np.ndarray]:
    """A file's mean power spectrum: frequencies in Hz (F,) and dB re its maximum (F,)."""
    x, rate = read_audio(path)
    size = min(len(x), round(SPECTRUM_FRAME * rate))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[:: max(1, size // 2)]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    level = 10 * np.log10(power.mean(axis=0) + 1e-20)
    return np.fft.rfftfreq(size, 1 / rate), level - level.max()


def draw(path: Path, name: str, wavs: Mapping[str, str], tags: Mapping[str, Tag]) -> None:
    """Draw the histogram of the edges and the spectra of the most doubtful files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (edges, spectra) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    top = max(NB_RATE, *(tag.estimate.edge_hz for tag in tags.values()))
    bins = np.arange(0, top + 2 * EDGE_STEP_HZ, EDGE_STEP_HZ)
    for label, colour in (("nb", "tab:orange"), ("wb", "tab:blue")):
        values = [tag.estimate.edge_hz for tag in tags.values() if tag.label == label]
        edges.hist(values, bins=bins, color=colour, alpha=0.7, label=f"{label} ({len(values)})")
    edges.set(title=f"{name}: upper edge of speech", xlabel="Hz", ylabel="files", yscale="symlog")
    edges.axvline(4000, color="grey", linestyle=":")
    edges.legend()
    doubtful = [utt for utt, tag in tags.items() if tag.reasons()]
    doubtful.sort(key=lambda utt: (tags[utt].estimate.confidence, utt))
    for utt in doubtful[:SPECTRA_SHOWN]:
        try:
            hz, level = mean_spectrum(wavs[utt])
        except AudioError:
            continue  # moved since it was measured; its case is listed all the same
        spectra.plot(hz, level, linewidth=1, label=f"{utt} ({tags[utt].label})")
    spectra.set(title="files to look at: mean spectrum", xlabel="Hz", ylabel="dB", ylim=(-100, 3))
    spectra.axvline(4000, color="grey", linestyle=":")
    if doubtful:
        spectra.legend(fontsize=6, loc="lower left")
    else:
        spectra.text(0.5, 0.5, "none", transform=spectra.transAxes, ha="center")
    figure.savefig(path, dpi=100)
    plt.close(figure)
