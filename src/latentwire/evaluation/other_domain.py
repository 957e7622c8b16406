"""How far arms move a model's predictions on another domain's text than the one that their codecs were fitted on.

The passages are plain text, read teacher-forced as prompts without an answer; the measures are those of
:mod:`~latentwire.evaluation.divergence`, from the same model and kept in the same store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latentwire.arms_table import Variant
from latentwire.documents import read_passages
from latentwire.errors import InputError
from latentwire.evaluation.divergence import DivergenceReader, ForcedPrompt, measure_divergence
from latentwire.evaluation.rows import SplitRows
from latentwire.evaluation.store import AnswerStore
from latentwire.results import OTHER_DOMAIN

log = logging.getLogger(__name__)


def passage_prompts(path: Path, tokenizer: Any, limit: int) -> pd.DataFrame:
    """The passages of a file as the columns of a split that a measure reads: one row per passage.

    Args:
        path: of the file (:func:`~latentwire.documents.read_passages`).
        tokenizer: the model's; names of control tokens in a text stay text.
        limit: the model's context, in tokens; of a longer passage the beginning is read.

    Returns:
        ``id``, ``article`` (the document), ``input_ids`` and ``label_mask`` (which tokens are the text's own).

    Raises:
        InputError: the file can't be used, or none of its passages has two tokens, of which the second is predicted.
    """
    rows, cut, passed_over = [], 0, 0
    for number, passage in enumerate(read_passages(path)):
        encoded = tokenizer(passage.text, split_special_tokens=True, return_special_tokens_mask=True)
        ids = np.asarray(encoded["input_ids"], dtype=np.int64)
        own = ~np.asarray(encoded["special_tokens_mask"], dtype=bool)
        cut += len(ids) > limit
        ids, own = ids[:limit], own[:limit]
        if len(ids) < 2:
            passed_over += 1
            continue
        rows.append(
            {"id": f"passage {number}", "article": passage.document, "input_ids": ids, "label_mask": own},
        )
    if not rows:
        raise InputError(f"{path}: no passage has two tokens")
    # Known only with the tokenizer, when everything has been trained: too late for an error.
    if cut:
        log.warning("%s: of %d passages the first %d tokens are read, the model's context", path, cut, limit)
    if passed_over:
        log.warning("%s: %d passages of a single token are passed over", path, passed_over)
    return pd.DataFrame(rows)


def measure_other_domain(
    rows: Mapping[Variant, SplitRows],
    reader: Callable[[], DivergenceReader],
    passages: pd.DataFrame,
    batches: Sequence[Sequence[int]],
    *,
    store: AnswerStore,
) -> pd.DataFrame:
    """The divergence of arms on passages, all of whose positions are the subset ``OTHER_DOMAIN``.

    Args:
        rows: what the model reads of each arm, for the passages' token types.
        reader: gives the frozen model, when the first value has to be computed.
        passages: of :func:`passage_prompts`.
        batches: indices into them.
        store: what was measured before.

    Returns:
        :func:`~latentwire.evaluation.divergence.divergence_table` of all arms.
    """
    nothing = np.empty(0, dtype=np.int64)
    forced = [ForcedPrompt(own["input_ids"], own["label_mask"], nothing) for own in passages.to_dict("records")]
    # How often training saw a token tells no positions apart here.
    unseen_V = np.zeros(1 + max(int(one.ids.max()) for one in forced), dtype=np.int64)
    table = measure_divergence(rows, reader, passages, forced, batches, unseen_V, store=store)
    return table[table["subset"] == "prompt"].assign(subset=OTHER_DOMAIN).reset_index(drop=True)
