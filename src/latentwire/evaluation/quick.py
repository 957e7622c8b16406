"""The quick evaluation during training: F1 of the adapter on a fixed subset, by the full evaluation's own code.

It shows a trend; at 100 questions the interval is ± 8 points or more, and it never decides anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.table import load_table
from latentwire.data.prompts_table import read_prompts
from latentwire.errors import InputError
from latentwire.evaluation.generate import Decoder, generate_answers
from latentwire.evaluation.prefixes import batches_by_prefix
from latentwire.evaluation.squad_metrics import batch_metrics
from latentwire.lm import load_model, load_tokenizer, model_identity
from latentwire.training.run_phase1 import TrainingFiles

EVALUATION_BATCH = 32


def quick_evaluation(
    model: Any,
    tokenizer: Any,
    files: TrainingFiles,
    compress_dim: int,
    *,
    questions: int,
    max_new_tokens: int,
    batch_size: int,
) -> Callable[[Adapter], dict[str, float]]:
    """A function that gives ``quick_f1`` and ``quick_em`` of an adapter on the first held-out questions.

    Args:
        model, tokenizer: the frozen model.
        files: the run's files; its held-out prompts are the ``gate`` split in random order.
        compress_dim: K.
        questions: how many of them.
        max_new_tokens: the cap of an answer.
        batch_size: prompts a batch.
    """
    prompts = read_prompts(files.held_out, ["input_ids", "answers"]).head(questions)
    sequences = [np.asarray(ids) for ids in prompts["input_ids"]]
    batches = batches_by_prefix(sequences, batch_size)
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    codes_UK = EmbeddingCompressor.load(files.compressor, compress_dim).compress(load_table(files.table)[ids_U])
    decoder = Decoder(model, tokenizer, max_new_tokens)

    @torch.no_grad()
    def evaluate(adapter: Adapter) -> dict[str, float]:
        rebuilt_UD = adapter(codes_UK.to(adapter.mean_D.device)).to(decoder.device)
        answers = dict(
            generate_answers(decoder, sequences, batches, rebuilt_UD, ids_U, description="quick evaluation")
        )
        predictions = [answers[index].text for index in range(len(sequences))]
        em, f1 = batch_metrics(predictions, [list(references) for references in prompts["answers"]])
        return {"quick_f1": f1, "quick_em": em}

    return evaluate


def load_quick_evaluation(
    arguments: argparse.Namespace, files: TrainingFiles, device: torch.device
) -> tuple[Callable[[Adapter], dict[str, float]], list[Any]]:
    """The quick evaluation of Phase 1, which needs the language model, and what its numbers depend on."""
    if arguments.model is None:
        raise InputError("--quick_eval_every needs the language model: give --model")
    quick_eval = quick_evaluation(
        load_model(arguments.model, arguments.revision, arguments.dtype, device),
        load_tokenizer(arguments.model, arguments.revision),
        files,
        arguments.compress_dim,
        questions=arguments.quick_eval_questions,
        max_new_tokens=arguments.max_new_tokens,
        batch_size=EVALUATION_BATCH,
    )
    identity = model_identity(arguments.model, arguments.revision, arguments.dtype, device)
    return quick_eval, [*identity, arguments.quick_eval_questions, arguments.max_new_tokens]
