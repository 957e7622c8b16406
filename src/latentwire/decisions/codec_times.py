"""How long a codec takes: to make it, and to rebuild a prompt's embeddings from it.

Times are no results: what they are read from or kept in is in ``benchmarks/``, beside what results are compared by.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TypedDict

import torch

from latentwire.arms_table import ARMS, COMPRESSORS, Variant, arm_row
from latentwire.artefacts import read_json
from latentwire.codecs.base import Codec
from latentwire.codecs.families import load_codec
from latentwire.codecs.files import codec_files
from latentwire.data.prompts_table import read_prompts
from latentwire.files import hash_of, write_json
from latentwire.integrity import digest
from latentwire.layout import Layout

# Prompts of ``gate`` whose embeddings are rebuilt.
TIMED_PROMPTS = 32


class Timed(TypedDict):
    """Seconds of the codec whose files have this hash."""

    files: str
    seconds: float


def seconds_to_make(paths: Layout, variant: Variant, finished: Mapping[str, float]) -> float | None:
    """Wall seconds of the jobs that make a codec of the table and its counts; None if one of them has no record.

    Args:
        paths: of the experiment.
        variant: the codec.
        finished: as :func:`~latentwire.progress.finished_jobs` gives them.
    """
    jobs = [str(Path(path).relative_to(paths.root)) for path in _made_by(paths, variant)]
    return sum(finished[job] for job in jobs) if all(job in finished for job in jobs) else None


def _made_by(paths: Layout, variant: Variant) -> list[str]:
    """What the jobs that make a codec write, by which their benchmarks are named."""
    row = arm_row(variant.arm)
    assert row.codec is not None
    trained = [] if row.stage is None else [paths.adapter(variant.k, variant.seed, variant.arm)]
    if row.stage == "phase2" and not row.own_codes:
        return [*_made_by(paths, replace(variant, arm="phase1")), *trained]
    compressor = [paths.compressor(COMPRESSORS[row.codec])] if row.codec in COMPRESSORS else []
    fitted = [] if row.own_codes else [paths.fitted(variant.k, row.codec)]
    return [*compressor, *fitted, *trained]


def seconds_to_decode(paths: Layout, variants: Iterable[Variant], own: Sequence[type[Codec]] = ()) -> dict[str, float]:
    """Seconds in which each codec rebuilds a prompt's embeddings: the median over prompts of ``gate``.

    What was measured before on the same files is not measured again: a page that is written twice is the same.

    Args:
        paths: of the experiment.
        variants: the codecs.
        own: families besides this package's; a user's own codec without its family is left out.

    Returns:
        By the variant's name.
    """
    record = Path(paths.root) / "benchmarks" / "decoding.json"
    before: dict[str, Timed] = read_json(record) if record.exists() else {}
    read = read_prompts(paths.data("gate"), ["input_ids"])["input_ids"].head(TIMED_PROMPTS)
    prompts = [torch.tensor(ids.tolist()) for ids in read]
    found: dict[str, Timed] = {}
    for variant in variants:
        folder = paths.codec(variant)
        assert folder is not None
        if variant.arm not in ARMS and not own:
            continue
        files = hash_of([digest(file) for file in codec_files(folder)])
        known = before.get(str(variant))
        if known is None or known["files"] != files:
            known = {"files": files, "seconds": _measured(load_codec(folder, own), prompts)}
        found[str(variant)] = known
    write_json(record, found)
    return {name: own["seconds"] for name, own in found.items()}


def _measured(codec: Codec, prompts: Sequence[torch.Tensor]) -> float:
    codec.decode(prompts[0])  # what only the first one waits for
    return median(_seconds(codec, ids_L) for ids_L in prompts)


def _seconds(codec: Codec, ids_L: torch.Tensor) -> float:
    start = time.perf_counter()
    codec.decode(ids_L)
    return time.perf_counter() - start
