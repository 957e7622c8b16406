"""Evaluation of arms on one split: one prediction per question and arm, generated if it was not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms_table import Variant, arm_row
from latentwire.device import in_parts_that_fit
from latentwire.evaluation.generate import Answer, Decoder, answer_batches
from latentwire.evaluation.questions import in_parts
from latentwire.evaluation.rows import SplitRows
from latentwire.evaluation.store import AnswerStore


def evaluate_arms(
    rows: Mapping[Variant, SplitRows | None],
    make_decoder: Callable[[], Decoder],
    prompts: pd.DataFrame,
    batches: Mapping[Variant, Sequence[Sequence[int]]],
    *,
    store: AnswerStore | None = None,
) -> list[dict[str, Any]]:
    """Answers of several arms in the same batches: for all arms in smaller ones, if a GPU does not have the memory.

    Args:
        rows: what the model reads of each arm; None for token ids.
        make_decoder: gives the frozen model and the decoding, when the first answer has to be generated.
        prompts: the split.
        batches: of each arm, indices into it.
        store: see :func:`evaluate_arm`, as for the records and the errors.

    Raises:
        torch.OutOfMemoryError: even one prompt is too much.
    """

    def attempt(parts: int) -> list[dict[str, Any]]:
        decoder = cache(make_decoder)
        return [
            record
            for variant, own in rows.items()
            for record in evaluate_arm(variant, own, decoder, prompts, in_parts(batches[variant], parts), store=store)
        ]

    records, _ = in_parts_that_fit(
        attempt,
        1,
        max((len(batch) for own in batches.values() for batch in own), default=1),
        lambda parts: f"all arms answer anew, in batches of 1/{parts} of evaluate.batch_size",
    )
    return records


def evaluate_arm(
    variant: Variant,
    rows: SplitRows | None,
    decoder: Callable[[], Decoder],
    prompts: pd.DataFrame,
    batches: Sequence[Sequence[int]],
    *,
    store: AnswerStore | None = None,
) -> list[dict[str, Any]]:
    """Answers of one arm.

    Args:
        variant: the arm, its code dimension and its seed.
        rows: what the model reads of the arm; None if it reads token ids.
        decoder: gives the frozen model and the decoding, when the first answer has to be generated.
        prompts: the split.
        batches: indices into it.
        store: answers from before, which are not generated again; new ones are added.

    Returns:
        One record per question: ``arm``, ``k``, ``seed``, ``id``, ``article``, ``prediction``, ``tokens`` and
        ``finished``.

    Raises:
        FloatingPointError: logits are not finite; names the arm and the dtype.
        Stopped: the work was told to stop; the store keeps what was answered.
    """
    sequences = [np.asarray(ids) for ids in prompts[arm_row(variant.arm).prompt]]

    @cache
    def read() -> tuple[torch.Tensor, torch.Tensor] | tuple[()]:
        """What the decoder takes beside the prompts: rows on its device, and their token ids."""
        return () if rows is None else (rows.rows_UD.to(decoder().device), rows.ids_U)

    def answer(_: int, batch: Sequence[int]) -> list[Answer]:
        chosen = [sequences[index] for index in batch]

        def generate() -> list[Answer]:
            try:
                return decoder().answers(chosen, *read())
            except FloatingPointError as error:
                raise FloatingPointError(f"arm {variant}: {error}") from error

        if store is None:
            return generate()
        return store.answers(chosen, None if rows is None else rows.hashes, generate)

    return [
        {
            "arm": variant.arm,
            "k": variant.k,
            "seed": variant.seed,
            "id": prompts["id"].iloc[index],
            "article": prompts["article"].iloc[index],
            "prediction": found.text,
            "tokens": found.tokens,
            "finished": found.finished,
        }
        for index, found in answer_batches(batches, answer, str(variant))
    ]
