"""Tiny corpora in the exact layouts in which the real ones are published.

Each function writes one below ``root`` and returns the name that ``--corpus`` takes. The audio is
noise of 0.6 to 1 s, except where the recording is cut into parts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import stage_data  # noqa: F401 - puts the recipe's local/ on the path

from espnet_smoe.datadir import read_table
from espnet_smoe.faults import FAULTS_NAME, read_faults

WORDS = ["casa", "blanca", "perro", "comer", "mañana", "tren", "llegar", "tarde", "nunca", "ya"]
TDF_HEADER = (
    "file;unicode channel;int start;float end;float speaker;unicode speakerType;unicode "
    "speakerDialect;unicode transcript;unicode section;int turn;int segment;int "
    "sectionType;unicode suType;unicode"
).replace(" ", "\t")


def noise(path: Path, seconds: float = 0.8, rate: int = 16000, channels: int = 1, **how) -> Path:
    """Write noise; the same name in the same folder sounds the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    samples = 0.1 * rng.standard_normal((int(seconds * rate), channels))
    soundfile.write(path, samples, rate, **how)
    return path


def text(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    """Write lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def sentence(number: int) -> str:
    """Three words, other ones for each of 90 numbers."""
    a, b = number % 10, number // 10 % 9
    return f"{WORDS[a]} {WORDS[(a + 1 + b) % 10]} {WORDS[(a * 3 + b) % 10]}"


def prepare(
    main: Callable[[Sequence[str]], None], corpus: str, root: Path, out: Path, *extra: str
) -> dict[str, dict[str, dict[str, str]]]:
    """Run a corpus program; ``{set: {table: {utterance: value}}}``."""
    main(["--corpus", corpus, "--corpus_dir", str(root), "--out", str(out), *extra])
    return {
        folder.name: {p.name: read_table(p) for p in folder.iterdir() if p.name != FAULTS_NAME}
        for folder in out.iterdir()
    }


def faults_of(folder: Path) -> list[tuple[str, str]]:
    """Utterances and reasons."""
    return [(fault.utt, fault.reason) for fault in read_faults(folder)]


def covost2(root: Path, *, official: bool = False) -> str:
    """Common Voice's clips and validated.tsv, and CoVoST 2's translations."""
    splits = ["train"] * 3 + ["train_covost"] + ["dev"] * 2 + ["test"] * 2 + ["dev_covost"]
    clips = [f"common_voice_es_{19000000 + n}.mp3" for n in range(len(splits))]
    for clip in clips:
        noise(root / "clips" / clip, rate=48000, format="MP3")
    validated = [
        f"{n:064x}\t{clip}\tLa {sentence(n)}, dijo.\t2\t0\t\t\t" for n, clip in enumerate(clips)
    ]
    text(
        root / "validated.tsv",
        "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent",
        *validated,
    )
    english = [f'The \\"{sentence(n)}\\", he said.' for n in range(len(splits))]
    if not official:
        rows = [f"{c}\t{e}\t{s}" for c, e, s in zip(clips, english, splits, strict=True)]
        text(root / "covost_v2.es_en.tsv", "path\ttranslation\tsplit", *rows)
        return "covost2_es_en"
    (root / "validated.tsv").unlink()
    for split, kept in (("train", splits[:4]), ("dev", ["dev"]), ("test", ["test"])):
        rows = [
            f"{clips[n]}\tLa {sentence(n)}, dijo.\t{english[n]}\t{n:064x}"
            for n in range(len(splits))
            if splits[n] in kept
        ]
        text(
            root / f"covost_v2.es_en.{split}.tsv",
            "path\tsentence\ttranslation\tclient_id",
            *rows,
        )
    return "covost2_es_en"


def mustc(root: Path, targets: tuple[str, ...] = ("de",)) -> str:
    """en-<target>/data/<split>/{txt,wav}; version 2's YAML has rW and uW too."""
    talks = {"train": (1, 2), "dev": (3,), "tst-COMMON": (4,), "tst-HE": (5,)}
    for target in targets:
        for split, numbers in talks.items():
            folder = root / f"en-{target}" / "data" / split
            lines, english, foreign = [], [], []
            for number in numbers:
                noise(folder / "wav" / f"ted_{number}.wav", 3.0)
                for part in range(3):
                    words = f"rW: {part}, speaker_id: spk.{number}, uW: 0, wav: ted_{number}.wav"
                    lines.append(f"- {{duration: 0.800000, offset: {part}.050000, {words}}}")
                    english.append(f"The {sentence(10 * number + part)}. (Laughter)")
                    foreign.append(f"Das {target} {sentence(10 * number + part)}.")
            text(folder / "txt" / f"{split}.yaml", *lines)
            text(folder / "txt" / f"{split}.en", *english)
            text(folder / "txt" / f"{split}.{target}", *foreign)
    return "mustc_en_" + "_".join(targets)


def europarl_st(root: Path, *, m4a: bool = False) -> str:
    """v1.1/<source>/{audios,<target>/<split>/...}."""
    spanish = root / "v1.1" / "es"
    for number, split in enumerate(("train", "dev", "test")):
        speech = f"es.20081117.22.1-{127 + number}"
        wav = noise(spanish / "audios" / f"{speech}.wav", 3.0)
        if m4a:
            out = wav.with_suffix(".m4a")
            options = ["-y", "-nostdin", "-v", "error", "-i", str(wav), "-c:a", "aac"]
            subprocess.run(["ffmpeg", *options, str(out)], check=True)
            wav.unlink()
        folder = spanish / "en" / split
        text(folder / "speeches.lst", speech)
        text(folder / "speakers.lst", f"MEP {number}")
        text(folder / "segments.lst", *[f"{speech} {n}.1 {n}.9" for n in range(3)])
        text(folder / "segments.es", *[f"Señor {sentence(9 * number + n)}." for n in range(3)])
        text(folder / "segments.en", *[f"Mr {sentence(9 * number + n)}." for n in range(3)])
    return "europarl_st_es_en"


def librispeech(root: Path) -> str:
    """LibriSpeech/<subset>/<reader>/<chapter>/."""
    subsets = ("train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other")
    speakers = ["; the speakers", ";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for number, subset in enumerate(subsets):
        reader, chapter = f"{84 + number}", f"{121123 + number}"
        folder = root / "LibriSpeech" / subset / reader / chapter
        lines = []
        for n in range(4 if number == 0 else 2):
            utt = f"{reader}-{chapter}-{n:04}"
            noise(folder / f"{utt}.flac")
            lines.append(f"{utt} IT'S {sentence(5 * number + n).upper()}")
        text(folder / f"{reader}-{chapter}.trans.txt", *lines)
        speakers.append(f"{reader}   | F | {subset:17}| 25.03 | Some One | Jr")
    text(root / "LibriSpeech" / "SPEAKERS.TXT", *speakers)
    return "librispeech"


def fisher_callhome(root: Path) -> str:
    """The four LDC corpora and the public translations."""
    public = root / "fisher-callhome-corpus"
    splits = ("train", "dev", "dev2", "test")
    for number, split in enumerate(splits):
        call = f"2005090{8 + number // 2}_18294{number}_2{number}_fsp"
        data = root / "LDC2010S01" / "data" / "speech" / f"{call}.sph"
        noise(data, 4.0, rate=8000, channels=2, format="NIST", subtype="ULAW")
        turns = [
            (0, 0.0, 0.8, f'<foreign lang="English"> Hello </foreign> {sentence(number)}, ¿sí?'),
            (1, 0.9, 1.6, f"Ajá. ((tal vez)) {sentence(10 + number)}"),
            (0, 1.7, 2.3, f"No, {sentence(20 + number)}"),
            (1, 2.2, 2.4, "[laugh]"),
            (0, 2.4, 3.1, f"porque {sentence(30 + number)}."),
            (1, 3.2, 3.9, f"Sí, {sentence(40 + number)}"),
        ]
        rows = [
            f"{call}.sph\t{channel}\t{start}\t{end}\tspk{channel}\tfemale\tnative\t{words}\t0\t{n}\t-1"
            "\t\t"
            for n, (channel, start, end, words) in enumerate(turns)
        ]
        text(
            root / "LDC2010T04" / "fisher_spa_tr" / "data" / "transcripts" / f"{call}.tdf",
            TDF_HEADER,
            ";;MM sectionTypes\t[None, None]",
            ";;MM sectionBoundaries\t[0.0, 9999999.0]",
            *rows,
        )
        # the third utterance goes on after the other speaker's laugh
        parts = ("1", "2", "3_5", "4", "6")
        text(public / "mapping" / f"fisher_{split}", *[f"{call} {p}" for p in parts])
        for end in ["en"] if split == "train" else [f"en.{n}" for n in range(4)]:
            lines = [f"Hello {end} {sentence(10 * n + number)}\r?" for n in range(len(parts))]
            text(public / "corpus" / "ldc" / f"fisher_{split}.{end}", *lines)
    for number, split in enumerate(("train", "devtest", "evltest")):
        call = f"sp_00{85 + number}"
        speech = root / "LDC96S35" / "CALLHOME" / "SPANISH" / "SPEECH" / split.upper()
        noise(
            speech / f"{call.upper()}.SPH",
            3.0,
            rate=8000,
            channels=2,
            format="NIST",
            subtype="ULAW",
        )
        text(
            root / "LDC96T17" / "callhome_spanish_trans_970711/transcrp" / split / f"{call}.txt",
            f"0.10 0.90 A: Ah, bueno, {{laugh}} {sentence(50 + number)}.",
            f"1.00 1.70 B1: ¿Mamá? &Lima <English okay> {sentence(60 + number)}",
            f"1.80 2.60 A: [[noise]] mañana {sentence(70 + number)}",
            encoding="latin-1",
        )
        text(public / "mapping" / f"callhome_{split}", f"{call} 1", f"{call} 2", f"{call} 3")
        lines = [f"Ah well {sentence(10 * n + number)}" for n in range(3)]
        text(public / "corpus" / "ldc" / f"callhome_{split}.en", *lines)
    return "fisher_callhome"


def mboshi_fr(root: Path) -> str:
    """full_corpus_newsplit/{train,dev}/<utt>.{wav,mb,fr}."""
    for split, count in (("train", 6), ("dev", 2)):
        for n in range(count):
            stem = root / "full_corpus_newsplit" / split / f"abiayi_2015-{split}_{n}"
            noise(stem.with_name(f"{stem.name}.wav"))
            text(stem.with_name(f"{stem.name}.mb"), f"Wa {sentence(n)}")
            text(stem.with_name(f"{stem.name}.fr"), f"Il {sentence(n)}")
    return "mboshi_fr"


def manifest(root: Path) -> str:
    """train.tsv, valid.jsonl and test.tsv; recordings lie beside them."""
    columns = "audio offset duration src_lang transcript tgt_lang translation bandwidth speaker"
    for split, start in (("train", 0), ("valid", 4), ("test", 6)):
        noise(root / "audio" / f"{split}.wav", 4.0)
        rows = []
        for n in range(4):
            for tgt_lang in ("en", "fr"):
                words = f"{tgt_lang} {sentence(start + n)}"
                where = (f"audio/{split}.wav", f"{n}", "0.9", "es", sentence(start + n))
                rows.append((*where, tgt_lang, words, "wb", f"{split}-spk{n % 2}"))
        if split == "valid":
            objects = [dict(zip(columns.split(), row, strict=True)) for row in rows]
            text(root / "valid.jsonl", *[json.dumps(o, ensure_ascii=False) for o in objects])
        else:
            lines = ["\t".join(row) for row in rows]
            text(root / f"{split}.tsv", columns.replace(" ", "\t"), *lines)
    return "manifest"


def kaldi(root: Path) -> str:
    """Segments of two-channel recordings, a command, and plain files."""
    for split in ("train", "valid", "test"):
        wav = noise(root / "wav" / f"{split}.wav", 4.0, channels=2)
        folder = root / split
        utts = [f"call-{side}-{n}" for side in "AB" for n in range(3)]
        sides = [f"call-{side} {wav}" for side in "AB"]
        text(folder / "wav.scp", *sides)
        text(folder / "reco2file_and_channel", "call-A call A", "call-B call B")
        text(folder / "segments", *[f"{u} {u[:6]} {u[-1]}.0 {u[-1]}.9" for u in utts])
        text(folder / "text", *[f"{u} {sentence(n)}" for n, u in enumerate(utts)])
        text(folder / "text.st_eng", *[f"{u} the {sentence(n)}" for n, u in enumerate(utts)])
        text(folder / "utt2lang", *[f"{u} es" for u in utts])
        text(folder / "utt2spk", *[f"{u} {u[:6]}" for u in utts])
        if split == "test":  # recordings that are utterances, one of them a command's output
            plain = noise(root / "wav" / "plain.wav")
            text(folder / "wav.scp", f"u1 {plain}", f"u2 cat {plain} |")
            for name in ("segments", "reco2file_and_channel"):
                (folder / name).unlink()
            text(folder / "text", "u1 la casa", "u2 el perro")
            text(folder / "text.st_eng", "u1 the house", "u2 the dog")
            text(folder / "utt2lang", "u1 spa", "u2 spa")
            text(folder / "utt2spk", "u1 a", "u2 b")
    return "kaldi"


BUILDERS = {
    "covost2": covost2,
    "mustc": mustc,
    "europarl_st": europarl_st,
    "librispeech": librispeech,
    "fisher_callhome": fisher_callhome,
    "mboshi_fr": mboshi_fr,
    "manifest": manifest,
    "kaldi": kaldi,
}
HAS_FFMPEG = shutil.which("ffmpeg") is not None
