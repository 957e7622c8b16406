"""Evaluation of arms on one split: one model load, one prediction a question and arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs, rebuild_function
from latentwire.evaluation.generate import Decoder, batches_by_length, generate_answers


def evaluation_batches(prompts: pd.DataFrame, batch_size: int, shard: int, shards: int) -> list[list[int]]:
    """The batches of one shard. They are formed on the whole split first, so shards change no result."""
    return batches_by_length([len(ids) for ids in prompts["input_ids"]], batch_size)[shard::shards]


def evaluate_arm(
    arm: str, inputs: ArmInputs, decoder: Decoder, prompts: pd.DataFrame, batches: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Answers of one arm.

    Args:
        arm: its name.
        inputs: what the arm may use.
        decoder: the frozen model and the decoding.
        prompts: the split.
        batches: indices into it.

    Returns:
        One record a question: ``arm``, ``id``, ``article``, ``prediction``, ``tokens``, ``finished``.
    """
    column = "question_ids" if arm == "question" else "input_ids"
    sequences = [np.asarray(ids) for ids in prompts[column]]
    rebuild = rebuild_function(arm)
    rebuilt_UD = ids_U = None
    if rebuild is not None:
        # All types of the split, whatever the shard: matrix products round differently in other shapes.
        ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
        rebuilt_UD = rebuild(inputs, ids_U).to(decoder.device)
    answers = generate_answers(decoder, sequences, batches, rebuilt_UD, ids_U, description=arm)
    return [
        {
            "arm": arm,
            "id": prompts["id"].iloc[index],
            "article": prompts["article"].iloc[index],
            "prediction": answer.text,
            "tokens": answer.tokens,
            "finished": answer.finished,
        }
        for index, answer in answers
    ]
