"""A model's answers to the questions of a SQuAD file, scored by the official definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latentwire.abilities import declared_context
from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import Row, read_squad_json
from latentwire.errors import InputError
from latentwire.evaluation.generate import Answer, Decoder, answer_batches, require_fit
from latentwire.evaluation.prefixes import batches_by_prefix
from latentwire.evaluation.squad_metrics import exact_match, f1
from latentwire.evaluation.statistics import mean_interval
from latentwire.evaluation.store import AnswerStore
from latentwire.files import read_json


def read_questions(path: Path, articles: Path | None = None) -> list[Row]:
    """The questions of a SQuAD file, or those of some of its articles.

    Args:
        path: official v1.1 JSON.
        articles: JSON list of titles; None for all.

    Raises:
        InputError: a title is not in the file.
    """
    rows: list[Row] = read_squad_json(path)
    if articles is None:
        return rows
    titles = set(read_json(articles))
    if absent := sorted(titles - {row["title"] for row in rows}):
        raise InputError(f"{articles}: {path} has no article {absent[0]!r}")
    return [row for row in rows if row["title"] in titles]


def answer_questions(
    model: Any,
    renderer: PromptRenderer,
    rows: Sequence[Row],
    *,
    batch_size: int,
    max_new_tokens: int,
    store: AnswerStore,
) -> dict[str, str]:
    """The model's greedy answer to each question, by its id, in the order of ``rows``.

    Args:
        model: a frozen causal language model.
        renderer: how questions become prompts.
        rows: the questions.
        batch_size: prompts per batch.
        max_new_tokens: cap of an answer.
        store: answers from before, which are not generated again.

    Raises:
        InputError: a prompt and its answer do not fit into the model's context.
        Stopped: the work was told to stop; the store keeps what was answered.
    """
    prompts = [np.array(prompt.input_ids) for prompt in renderer.prompts(rows)]
    require_fit(prompts, max_new_tokens, declared_context(model.config.to_dict()))
    decoder = Decoder(model, renderer.tokenizer, max_new_tokens)

    def answer(_: int, batch: Sequence[int]) -> list[Answer]:
        chosen = [prompts[index] for index in batch]
        return store.answers(chosen, None, lambda: decoder.answers(chosen))

    answers = dict(answer_batches(batches_by_prefix(prompts, batch_size), answer, "text"))
    return {row["id"]: answers[index].text for index, row in enumerate(rows)}


def scores(rows: Sequence[Row], predictions: dict[str, str], *, resamples: int, seed: int) -> dict[str, Any]:
    """F1 and EM (fractions; official SQuAD v1.1) with their intervals over articles."""
    articles = np.array([row["title"] for row in rows])
    return {
        name: mean_interval(
            np.array([metric(predictions[row["id"]], row["answers"]["text"]) for row in rows]),
            articles,
            resamples=resamples,
            seed=seed,
        ).to_json()
        for name, metric in (("f1", f1), ("em", exact_match))
    }
