"""The evaluation of arms on one prepared split: their answers, and how far the model's predictions move.

The language model is loaded once for all of it, or not at all if everything is in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch

from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant, arm_row
from latentwire.codecs.base import NotApplicable
from latentwire.compression.counts import load_counts
from latentwire.data.prompts_table import read_prompts
from latentwire.evaluation.divergence import DivergenceReader, forced_prompts, measure_divergence, measured_batches
from latentwire.evaluation.evaluate import evaluate_arms
from latentwire.evaluation.generate import Decoder, require_fit
from latentwire.evaluation.other_domain import measure_other_domain, passage_prompts
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.rows import SplitRows, split_rows_of
from latentwire.evaluation.store import AnswerStore, decoding_identity, measuring_identity
from latentwire.files import atomic_path, write_jsonl
from latentwire.lm import DTYPES, context_length, load_model, load_tokenizer
from latentwire.resuming.work import Work
from latentwire.settings import Evaluate

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationFiles:
    """Where an evaluation reads and writes.

    Attributes:
        prompts: prepared prompts of the split.
        counts: token counts.
        other_domain: JSON lines of another domain's text; None for none.
        answers: folder of the store.
        output: predictions (JSONL).
        divergence: comparison of predictions (Parquet).
    """

    prompts: Path
    counts: Path
    other_domain: Path | None
    answers: Path
    output: Path
    divergence: Path


@dataclass(frozen=True)
class Shard:
    """Which of all batches are evaluated: every ``of``-th, from ``number``."""

    number: int = 0
    of: int = 1

    def own(self, batches: Sequence[T]) -> Sequence[T]:
        """The shard's batches."""
        return batches[self.number :: self.of]


@dataclass(frozen=True)
class FrozenModel:
    """Which language model reads, how and where."""

    path: str
    revision: str | None
    dtype: str
    device: torch.device

    @property
    def which(self) -> tuple[str, str | None, str, torch.device]:
        """What determines its numbers."""
        return self.path, self.revision, self.dtype, self.device


@dataclass(frozen=True)
class Texts:
    """What is read: a split's prompts, and passages of another domain, if any."""

    prompts: pd.DataFrame
    passages: pd.DataFrame | None


@dataclass(frozen=True)
class ReadArms:
    """Of each arm the rows of the prompts' and of the passages' tokens, and the batches that it answers."""

    rows: dict[Variant, SplitRows | None] = field(default_factory=dict)
    passage_rows: dict[Variant, SplitRows] = field(default_factory=dict)
    batches: dict[Variant, Sequence[Sequence[int]]] = field(default_factory=dict)


def run_evaluation(
    files: EvaluationFiles,
    arms: Iterable[tuple[Variant, ArmInputs | NotApplicable, list[Path]]],
    settings: Evaluate,
    model: FrozenModel,
    *,
    shard: Shard,
    anew: bool = False,
    work: Work,
) -> list[Path]:
    """Answer and compare, and write predictions and divergence.

    Args:
        files: inputs and outputs.
        arms: each with what it may use, or why it is left out, and the files of that.
        settings: of the configuration.
        model: that reads.
        shard: which batches.
        anew: generate answers that are there already once more.
        work: that this is; told to stop, it ends, and the store keeps what was done.

    Returns:
        The files of the arms.

    Raises:
        InputError: a prompt and its answer, or a passage, do not fit into the model's context.
    """
    tokenizer = load_tokenizer(model.path, model.revision)
    limit = context_length(model.path, model.revision)
    texts = _read_texts(files, tokenizer, limit, settings.max_new_tokens)
    loaded = cache(lambda: load_model(*model.which))
    work.own(str(files.output))
    read, used = _read_arms(arms, texts, settings, DTYPES[model.dtype], shard)

    def store(identity: list[Any]) -> AnswerStore:
        return AnswerStore(files.answers, identity, check=work.check, anew=anew)

    records = evaluate_arms(
        read.rows,
        lambda: Decoder(loaded(), tokenizer, settings.max_new_tokens),
        texts.prompts,
        read.batches,
        store=store(decoding_identity(*model.which, settings.max_new_tokens)),
    )
    reader = cache(lambda: DivergenceReader(loaded()))
    measures = store(measuring_identity(*model.which))
    table = measure_divergence(
        {variant: own for variant, own in read.rows.items() if own is not None},
        reader,
        texts.prompts,
        forced_prompts(texts.prompts, tokenizer, limit),
        shard.own(measured_batches(len(texts.prompts), settings.divergence_samples)),
        load_counts(files.counts)["train"].numpy(),
        store=measures,
    )
    if texts.passages is not None:
        batches = shard.own(measured_batches(len(texts.passages), None))
        other = measure_other_domain(read.passage_rows, reader, texts.passages, batches, store=measures)
        table = pd.concat([part for part in (table, other) if len(part)] or [table], ignore_index=True)
    with atomic_path(files.divergence) as temporary:
        table.to_parquet(temporary, index=False)
    write_jsonl(files.output, records)
    return used


def _read_texts(files: EvaluationFiles, tokenizer: Any, limit: int, max_new_tokens: int) -> Texts:
    """The texts, all of which fit into a context of ``limit`` tokens."""
    prompts = read_prompts(files.prompts)
    require_fit(prompts["input_ids"], max_new_tokens, limit)
    return Texts(
        prompts, None if files.other_domain is None else passage_prompts(files.other_domain, tokenizer, limit)
    )


def _read_arms(
    arms: Iterable[tuple[Variant, ArmInputs | NotApplicable, list[Path]]],
    texts: Texts,
    settings: Evaluate,
    dtype: torch.dtype,
    shard: Shard,
) -> tuple[ReadArms, list[Path]]:
    """What is read of the arms that apply, and the files of all."""
    read, used = ReadArms(), list[Path]()
    for variant, inputs, files in arms:
        used += files
        if isinstance(inputs, NotApplicable):
            log.warning("arm %s is left out: %s", variant, inputs)
            continue
        every = arm_batches(variant.arm, texts.prompts, settings.batch_size, settings.identity_samples)
        row = arm_row(variant.arm)
        # Of several draws of noise the first alone answers: answers move too little to tell draws apart.
        further = row.noise is not None and any((own.arm, own.k) == (variant.arm, variant.k) for own in read.rows)
        read.batches[variant] = [] if further else shard.own(every)
        read.rows[variant] = split_rows_of(variant.arm, inputs, texts.prompts, dtype)
        if texts.passages is not None and row.rebuilds and row.noise is None:
            rows = split_rows_of(variant.arm, inputs, texts.passages, dtype)
            if rows is not None:
                read.passage_rows[variant] = rows
    return read, used
