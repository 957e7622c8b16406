"""Phase 1 without a workflow: the preparation before it and the F1 after it."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from latentwire.abilities import Lengths
from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant
from latentwire.codecs.families import load_codec
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_splits, load_counts, save_counts
from latentwire.data.prepare import mark_unseen_answers, prepare_split, split_rows
from latentwire.data.prompts import PromptRenderer
from latentwire.data.prompts_table import count_prompts, iterate_prompt_ids, read_prompts
from latentwire.data.splits import sample_rows
from latentwire.data.squad import read_rows
from latentwire.embeddings import read_embeddings
from latentwire.errors import InputError
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.rows import split_rows_of
from latentwire.evaluation.scores import score_predictions, summarise_arm
from latentwire.evaluation.store import AnswerStore, decoding_identity
from latentwire.files import write_json
from latentwire.lm import DTYPES, load_model, load_tokenizer, look
from latentwire.resuming.work import Work
from latentwire.settings import Model
from latentwire.table import load_table, save_table
from latentwire.training.run_phase1 import CodecTrainingFiles

log = logging.getLogger(__name__)

EVALUATION_BATCH = 32


def prepare_inputs(
    model: Model,
    data: str,
    data_revision: str | None,
    output: Path,
    *,
    samples: int,
    eval_samples: int,
    lengths: Lengths,
    compress_dim: int,
    work: Work,
) -> CodecTrainingFiles:
    """Prepare prompts, the table and the compressor under ``output``.

    Args:
        model: whose tokenizer and table they are.
        data: ``demo``, a data set on the hub, a folder of official JSON, or one file of it.
        data_revision: commit of a data set on the hub.
        output: folder of the run.
        samples: training prompts.
        eval_samples: held-out prompts.
        lengths: of prompts, longer ones of which are trimmed, and answers.
        compress_dim: K.
        work: asked between two of the steps whether to stop.

    Raises:
        InputError: something is not there, or does not fit together.
        Stopped: the work was told to stop.
    """
    folder = output / "inputs"
    files = CodecTrainingFiles(
        train=folder / "train.parquet",
        held_out=folder / "held_out.parquet",
        table=folder / "embeddings.safetensors",
        compressor=folder / "pca.safetensors",
        codec=folder / "pca",
        output=output,
    )
    found = look(model.path, model.revision, lengths)
    if compress_dim > found.width:
        raise InputError(f"--compress_dim {compress_dim} is more than the model's dimension, {found.width}")
    renderer = PromptRenderer(
        load_tokenizer(model.path, model.revision), model.prompt_style, model.system_prompt, model.template_arguments
    )
    table_VD = read_embeddings(model.path, model.revision)
    rows = _source_rows(data, data_revision)
    seen: np.ndarray | None = None
    for name, path, count in (("train", files.train, samples), ("held_out", files.held_out, eval_samples)):
        work.check()
        chosen = sample_rows(rows[name], count, seed=0, name=name)
        frame, notes = prepare_split(name, chosen, renderer, max_prompt_tokens=lengths.prompt, on_long_prompt="trim")
        log.info("%s: %d prompts, %d trimmed or dropped", name, len(frame), len(notes))
        if seen is None:  # train comes first
            seen = np.unique(np.concatenate(list(frame["input_ids"])))
        mark_unseen_answers(frame, seen)
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(path, index=False)
    work.check()
    counts = count_splits(iterate_prompt_ids(files.train), count_prompts(files.train), "auto", len(table_VD))
    save_table(files.table, table_VD)
    save_counts(folder / "token_counts.safetensors", **counts)
    try:
        compressor = EmbeddingCompressor(table_VD.shape[1], compress_dim).fit(table_VD, counts["pca"])
    except ValueError as error:
        raise InputError(str(error)) from error
    compressor.save(files.compressor)
    LinearCodec.of(compressor, table_VD).save_pretrained(files.codec)
    log.info("PCA keeps %.1f%% of the variance", 100 * compressor.explained_variance_ratio)
    return files


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


def report_f1(
    model: Model,
    files: CodecTrainingFiles,
    *,
    max_new_tokens: int,
    device: torch.device,
    work: Work,
) -> None:
    """Evaluate the text, the untrained inverse and the adapter on the held-out questions, and print and write F1.

    Raises:
        Stopped: the work was told to stop; what was answered is kept.
    """
    which = (model.path, model.revision, model.dtype, device)
    tokenizer = load_tokenizer(model.path, model.revision)
    decoder = cache(lambda: Decoder(load_model(*which), tokenizer, max_new_tokens))
    store = AnswerStore(files.output / "answers", decoding_identity(*which, max_new_tokens), check=work.check)
    codecs = {"text": None, "pca": load_codec(files.codec), "phase1": load_codec(files.output)}
    prompts = read_prompts(files.held_out)
    counts = load_counts(files.table.with_name("token_counts.safetensors"))
    table_VD = load_table(files.table)
    records = [
        record
        for arm, codec in codecs.items()
        for record in evaluate_arm(
            Variant(arm),
            split_rows_of(arm, ArmInputs(table_VD, counts["pca"], codec), prompts, DTYPES[model.dtype]),
            decoder,
            prompts,
            arm_batches(arm, prompts, EVALUATION_BATCH),
            store=store,
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
