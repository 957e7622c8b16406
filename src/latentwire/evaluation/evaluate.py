"""Evaluation of arms on one split: one prediction per question and arm, generated where it was not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuilt_rows
from latentwire.arms_table import Variant, arm_row
from latentwire.evaluation.generate import Answer, Decoder, answer_batches
from latentwire.evaluation.store import AnswerStore, RowHashes


def evaluate_arm(
    variant: Variant,
    inputs: ArmInputs,
    decoder: Callable[[], Decoder],
    prompts: pd.DataFrame,
    batches: Sequence[Sequence[int]],
    *,
    dtype: torch.dtype,
    store: AnswerStore | None = None,
) -> list[dict[str, Any]]:
    """Answers of one arm.

    Args:
        variant: the arm, its code dimension and its seed.
        inputs: what the arm may use.
        decoder: gives the frozen model and the decoding, when the first answer has to be generated.
        prompts: the split.
        batches: indices into it.
        dtype: the model's, in which it reads embeddings.
        store: answers from before, which are not generated again; new ones are added.

    Returns:
        One record per question: ``arm``, ``k``, ``seed``, ``id``, ``article``, ``prediction``, ``tokens`` and
        ``finished``.

    Raises:
        FloatingPointError: logits are not finite; names the arm and the dtype.
        Stopped: the work was told to stop; the store keeps what was answered.
    """
    sequences = [np.asarray(ids) for ids in prompts[arm_row(variant.arm).prompt]]
    # Every token type of the split, not only this shard's: a matrix product's rounding depends on its shape.
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    rows_UD = rebuilt_rows(variant.arm, inputs, ids_U)
    hashes = None
    if rows_UD is not None:
        rows_UD = rows_UD.to(dtype)
        hashes = None if store is None else RowHashes.of(ids_U, rows_UD)

    @cache
    def rows_on_device() -> torch.Tensor | None:
        return None if rows_UD is None else rows_UD.to(decoder().device)

    def answer(_: int, batch: Sequence[int]) -> list[Answer]:
        chosen = [sequences[index] for index in batch]

        def generate() -> list[Answer]:
            try:
                return decoder().answers(chosen, rows_on_device(), ids_U)
            except FloatingPointError as error:
                raise FloatingPointError(f"arm {variant}: {error}") from error

        return generate() if store is None else store.answers(chosen, hashes, generate)

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
