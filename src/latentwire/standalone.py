"""Phase 1 without a workflow: what ``train_adapter_only.py`` needs around it when it runs by itself."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from latentwire.arms import ArmInputs
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_splits, load_counts, save_counts
from latentwire.compression.table import load_table, save_table
from latentwire.data.prepare import mark_unseen_answers, prepare_split, split_rows
from latentwire.data.prompts import PromptRenderer
from latentwire.data.prompts_table import count_prompts, iterate_prompt_ids, read_prompts
from latentwire.data.splits import sample_rows
from latentwire.data.squad import read_rows
from latentwire.errors import InputError
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.quick import EVALUATION_BATCH
from latentwire.evaluation.scores import score_predictions, summarise_arm
from latentwire.files import write_json
from latentwire.lm import load_model, load_tokenizer, read_embeddings
from latentwire.stopping import StopRequest
from latentwire.training.run_phase1 import TrainingFiles

log = logging.getLogger(__name__)

READER = Path(__file__).parents[2] / "resources" / "reader"


def prepare_inputs(arguments: argparse.Namespace, stop: StopRequest) -> None:
    """Prepare prompts, the table and the compressor under ``arguments.output``, and name them in ``arguments``.

    Raises:
        InputError: something is not there, or does not fit together.
        Stopped: ``stop`` said so, between two of the steps.
    """
    if arguments.model is None:
        if not READER.is_dir():
            raise InputError(f"the embedded reader is not at {READER}: run from a checkout, or give --model")
        arguments.model = str(READER)
    folder = arguments.output / "inputs"
    renderer = PromptRenderer(
        load_tokenizer(arguments.model, arguments.revision), arguments.prompt_style, arguments.system_prompt
    )
    table_VD = read_embeddings(arguments.model, arguments.revision)
    if arguments.compress_dim > table_VD.shape[1]:
        raise InputError(
            f"--compress_dim {arguments.compress_dim} is more than the model's dimension, {table_VD.shape[1]}"
        )
    rows = _source_rows(arguments.data, arguments.data_revision)
    seen: np.ndarray | None = None
    for name, samples in (("train", arguments.samples), ("held_out", arguments.eval_samples)):
        stop.check()
        chosen = sample_rows(rows[name], samples, seed=0, name=name)
        frame, notes = prepare_split(
            name, chosen, renderer, max_prompt_tokens=arguments.max_prompt_tokens, on_long_prompt="trim"
        )
        log.info("%s: %d prompts, %d trimmed or dropped", name, len(frame), len(notes))
        if seen is None:  # train comes first
            seen = np.unique(np.concatenate(list(frame["input_ids"])))
        mark_unseen_answers(frame, seen)
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
        setattr(arguments, name, folder / f"{name}.parquet")
    stop.check()
    prompts, available = iterate_prompt_ids(arguments.train), count_prompts(arguments.train)
    counts = count_splits(prompts, available, "auto", len(table_VD))
    save_table(folder / "embeddings.safetensors", table_VD)
    save_counts(folder / "token_counts.safetensors", **counts)
    try:
        compressor = EmbeddingCompressor(table_VD.shape[1], arguments.compress_dim).fit(table_VD, counts["pca"])
    except ValueError as error:
        raise InputError(str(error)) from error
    compressor.save(folder / "pca.safetensors")
    log.info("PCA keeps %.1f%% of the variance", 100 * compressor.explained_variance_ratio)
    arguments.table, arguments.compressor = folder / "embeddings.safetensors", folder / "pca.safetensors"


def _source_rows(data: str, revision: str | None) -> dict[str, pd.DataFrame]:
    """Training questions, and held-out ones of other articles; a single file is cut by article.

    As in the workflow, held-out questions are of the split ``gate``: nothing here sees ``final``.

    Raises:
        InputError: the data can't be read, hold too few articles, or have an article in both of their splits.
    """
    train = pd.DataFrame(read_rows("train", data, revision, 0))
    dev = None if Path(data).is_file() else pd.DataFrame(read_rows("validation", data, revision, 0))
    rows = split_rows(train, dev, seed=0)
    return {"train": rows["train"], "held_out": rows["gate"]}


def report_f1(arguments: argparse.Namespace, files: TrainingFiles, device: torch.device, stop: StopRequest) -> None:
    """Evaluate the text, the untrained inverse and the adapter on the held-out questions, and print and write F1.

    Raises:
        Stopped: ``stop`` said so, between two batches.
    """
    from latentwire.evaluation.generate import Decoder

    model = load_model(arguments.model, arguments.revision, arguments.dtype, device)
    decoder = Decoder(model, load_tokenizer(arguments.model, arguments.revision), arguments.max_new_tokens)
    prompts = read_prompts(files.held_out)
    counts = load_counts(files.table.with_name("token_counts.safetensors"))
    inputs = ArmInputs(
        load_table(files.table),
        counts["pca"],
        files.compressor,
        arguments.compress_dim,
        files.output / "adapter.safetensors",
    )
    records = [
        record
        for arm in ("text", "pca", "phase1")
        for record in evaluate_arm(
            arm, inputs, decoder, prompts, arm_batches(arm, prompts, EVALUATION_BATCH), stop=stop
        )
    ]
    scored = score_predictions(records, prompts, EVALUATION_BATCH)
    summary = {str(arm): summarise_arm(own, resamples=2000, seed=0) for arm, own in scored.groupby("arm", sort=False)}
    write_json(files.output / "f1.json", summary)
    print(
        json.dumps(
            {arm: {"f1": found["f1"]["estimate"], "em": found["em"]["estimate"]} for arm, found in summary.items()}
        )
    )
