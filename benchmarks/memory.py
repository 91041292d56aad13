#!/usr/bin/env python3
"""Peak memory of decoding a batch, against weights and caches computed by hand.

    python benchmarks/memory.py [--batch 16] [--beam_size 5] [--seconds 12] [--tokens 40]

By hand, for a model of P parameters with L decoder layers of dimension D, a batch of B utterances
of S encoder frames each, K beams and T tokens behind the prompt, in bytes of float32:

- weights: 4 P;
- the encoder's output and its keys and values, once per utterance: 4 B S D (1 + 2 L);
- keys and values of the tokens so far, per hypothesis: 4 B K (T + 4) D 2 L, and the copy of one
  layer into which the search sorts its rows: 4 B K (T + 4) D 2.

Measured is the peak of the resident memory from before the model is loaded (with PyTorch and ESPnet
imported) to the end of decoding, and, apart from loading, of decoding alone. Linux only.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from paper_size import FS, add_options, ours, write_json, write_model

MIB = 1 << 20
FLOAT = 4  # bytes


def resident(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def forget_peak() -> None:
    """Let VmHWM start anew from the present size."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--write", type=Path, help="only write the model here")
    add_options(parser)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    if args.write:
        write_model(args, args.write)
        return
    with tempfile.TemporaryDirectory() as directory:
        # in another process, so that this one's memory is that of loading and decoding
        subprocess.run([sys.executable, *sys.argv, "--write", directory], check=True)
        from espnet2.tasks.s2t import S2TTask  # noqa: F401  (imported before the count begins)

        generator = torch.Generator().manual_seed(1)
        n = int(args.seconds * FS)
        speech = [torch.randn(n, generator=generator) * 0.1 for _ in range(args.batch)]
        torch.nn.Linear(8, 8)(torch.zeros(1, 8))  # the libraries' own buffers
        before = resident("VmRSS")
        forget_peak()
        files = Path(directory) / "config.yaml", Path(directory) / "model.pth"
        s2t = ours(args, files, device="cpu", batch_size=args.batch)
    peak_of_loading = resident("VmHWM") - before
    forget_peak()
    s2t(speech, tasks="asr")
    peak = resident("VmHWM") - before
    model = s2t.s2t_model
    with torch.inference_mode():
        memory, _ = model.encode(speech[0][None], torch.tensor([n]), route=["wb"])
    frames, width = memory.shape[1:]
    layers = len(model.decoder.decoders)
    weights = FLOAT * sum(p.numel() for p in model.parameters())
    cross = FLOAT * args.batch * frames * width * (1 + 2 * layers)
    own = FLOAT * args.batch * args.beam_size * (args.tokens + 4) * width * 2 * (layers + 1)
    by_hand = weights + cross + own
    summary = {
        "batch": args.batch,
        "beam_size": args.beam_size,
        "frames": frames,
        "weights_mib": weights / MIB,
        "caches_mib": (cross + own) / MIB,
        "by_hand_mib": by_hand / MIB,
        "peak_mib": peak / MIB,
        "peak_of_loading_mib": peak_of_loading / MIB,
        "ratio": peak / by_hand,
        "ratio_with_loading": max(peak, peak_of_loading) / by_hand,
    }
    print(
        f"batch {args.batch} x beam {args.beam_size}, {args.seconds:.0f} s ({frames} frames), "
        f"{args.tokens} tokens: by hand {by_hand / MIB:.0f} MiB (weights {weights / MIB:.0f}, "
        f"caches {(cross + own) / MIB:.0f}); decoding {peak / MIB:.0f} MiB, "
        f"{summary['ratio']:.2f} x; loading {peak_of_loading / MIB:.0f} MiB"
    )
    write_json(args, summary)


if __name__ == "__main__":
    main()
