"""Evaluation of arms on one split: one model load, one prediction a question and arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuild_function
from latentwire.arms_table import ARMS
from latentwire.evaluation.generate import Answer, Decoder, answer_batches
from latentwire.evaluation.kept import KeptAnswers
from latentwire.stopping import StopRequest


def evaluate_arm(
    arm: str,
    inputs: ArmInputs,
    decoder: Decoder,
    prompts: pd.DataFrame,
    batches: Sequence[Sequence[int]],
    *,
    kept: KeptAnswers | None = None,
    stop: StopRequest | None = None,
) -> list[dict[str, Any]]:
    """Answers of one arm.

    Args:
        arm: its name.
        inputs: what the arm may use.
        decoder: the frozen model and the decoding.
        prompts: the split.
        batches: indices into it.
        kept: answers from before an interruption, which are not generated again; new ones are added.
        stop: asked before every batch.

    Returns:
        One record a question: ``arm``, ``id``, ``article``, ``prediction``, ``tokens``, ``finished``.

    Raises:
        Stopped: ``stop`` said so.
    """
    sequences = [np.asarray(ids) for ids in prompts[ARMS[arm].prompt]]
    rebuild = rebuild_function(arm)
    rebuilt_UD = ids_U = None
    if rebuild is not None:
        # All types of the split, whatever the shard: matrix products round differently in other shapes.
        ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
        rebuilt_UD = rebuild(inputs, ids_U).to(decoder.device)

    def answer(number: int, batch: Sequence[int]) -> list[Answer]:
        if kept is not None and (found := kept.get(arm, number)) is not None:
            return found
        if stop is not None:
            stop.check()
        answers = decoder.answers([sequences[index] for index in batch], rebuilt_UD, ids_U)
        if kept is not None:
            kept.keep(arm, number, answers)
        return answers

    return [
        {
            "arm": arm,
            "id": prompts["id"].iloc[index],
            "article": prompts["article"].iloc[index],
            "prediction": found.text,
            "tokens": found.tokens,
            "finished": found.finished,
        }
        for index, found in answer_batches(batches, answer, arm)
    ]
