"""Data preparation: source questions to tokenised, split, hashed prompts."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from latentwire.data.corpus import demo_splits
from latentwire.data.prompts import Prompt, PromptRenderer, source_text, trim_context
from latentwire.data.splits import SPLITS, assign_articles, join_articles, sample_rows
from latentwire.data.squad import Row, flatten_squad, misplaced_answers, read_hub, read_squad_json
from latentwire.errors import InputError
from latentwire.files import atomic_path
from latentwire.settings import Data, OnLongPrompt

log = logging.getLogger(__name__)

# Of malformed questions, how many are named.
NAMED = 20


def read_source(settings: Data, passed_over: list[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Training and development questions (None for a single-file source) as flat rows.

    Args:
        settings: of the configuration.
        passed_over: takes the errors of malformed questions, which are left out; None to raise the first.

    Raises:
        InputError: the source can't be read, or is malformed.
    """
    match settings.source:
        case "demo":
            splits = demo_splits(settings.seed)
            train, dev = (flatten_squad(splits[name], f"demo corpus, {name}") for name in ("train", "validation"))
            return pd.DataFrame(train), pd.DataFrame(dev)
        case "local":
            if not settings.train_file:
                raise InputError("data.source is 'local' but data.train_file names no file")
            dev_rows = read_squad_json(settings.dev_file, passed_over) if settings.dev_file else None
            train_rows = read_squad_json(settings.train_file, passed_over)
        case "hub":
            if not settings.path:
                raise InputError("data.source is 'hub' but data.path names no data set")
            train_rows, dev_rows = read_hub(settings.path, settings.revision, passed_over)
    return pd.DataFrame(train_rows), None if dev_rows is None else pd.DataFrame(dev_rows)


def split_rows(train: pd.DataFrame, dev: pd.DataFrame | None, seed: int) -> dict[str, pd.DataFrame]:
    """All rows of each split; no article, no paragraph and no question's id is in two.

    Raises:
        InputError: an article or a question's id is in both sources.
    """
    train, dev = join_articles(train, dev)
    dev_titles = None if dev is None else sorted(set(dev["title"]))
    articles = assign_articles(sorted(set(train["title"])), dev_titles, seed)
    if dev is not None and (both := set(train["id"]) & set(dev["id"])):
        raise InputError(f"{len(both)} question ids are in both sources, {min(both)!r} for one: splits would leak")
    rows = {}
    for name in SPLITS:
        source = train if name == "train" or dev is None else dev
        rows[name] = source[source["title"].isin(articles[name])]
    return rows


def _samples(settings: Data, name: str) -> int | None:
    samples: int | None = getattr(settings, f"{name}_samples")
    return samples


def draw(name: str, rows: pd.DataFrame, settings: Data) -> tuple[pd.DataFrame, list[str]]:
    """The sampled rows of a split, and the ids of those that are left out, in the source's order."""
    seed = settings.seed * len(SPLITS) + SPLITS.index(name)
    spread = settings.spread_over_articles and name != "train"
    drawn = sample_rows(rows, _samples(settings, name), seed, name=name, spread=spread)
    return drawn, rows["id"][~rows["id"].isin(drawn["id"])].tolist()


def prepare_split(
    name: str,
    rows: pd.DataFrame,
    renderer: PromptRenderer,
    *,
    max_prompt_tokens: int,
    on_long_prompt: OnLongPrompt,
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Prompts of one split, and a note for every trimmed or dropped question.

    Raises:
        InputError: an evaluation prompt does not fit and is not to be trimmed, or nothing is left.
    """
    records: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
    limit = max_prompt_tokens
    notes: list[dict[str, str]] = []
    kept: list[dict[str, Any]] = []
    prompts: list[Prompt] = []
    for row, prompt in zip(records, renderer.prompts(records), strict=True):
        if len(prompt.input_ids) > limit:
            if name != "train" and on_long_prompt == "error":
                raise InputError(
                    f"question {row['id']!r} of split {name!r}: its prompt has {len(prompt.input_ids)} tokens, "
                    f"data.max_prompt_tokens is {limit}. Raise it (up to the model's context), or set "
                    "data.on_long_prompt to 'trim'"
                )
            trimmed = trim_context(
                row, lambda r: len(renderer.prompts([r])[0].input_ids) <= limit, keep_answer=name == "train"
            )
            note = {"split": name, "id": row["id"], "tokens": str(len(prompt.input_ids))}
            if trimmed is None:
                notes.append(note | {"action": "dropped", "reason": "no word of the context fits"})
                continue
            notes.append(note | {"action": "trimmed", "reason": f"longer than {limit} tokens"})
            row, prompt = trimmed, renderer.prompts([trimmed])[0]
        kept.append(row)
        prompts.append(prompt)
    if not kept:
        raise InputError(f"split {name!r} has no question left: every prompt is longer than {limit} tokens")
    frame = pd.DataFrame(
        {
            "id": [row["id"] for row in kept],
            "article": [row["title"] for row in kept],
            "source": [source_text(row["context"], row["question"]) for row in kept],
            "answers": [row["answers"]["text"] for row in kept],
            "input_ids": [np.array(prompt.input_ids, dtype=np.int32) for prompt in prompts],
            "label_mask": [prompt.label_mask for prompt in prompts],
            "answer_mask": [prompt.answer_mask for prompt in prompts],
            "question_ids": [
                np.array(ids, dtype=np.int32) for ids in renderer.question_only([row["question"] for row in kept])
            ],
        }
    )
    return frame, notes


def prepare(settings: Data, renderer: PromptRenderer, output: Path) -> dict[str, Any]:
    """Write ``train``, ``gate`` and ``final`` as Parquet and return the manifest.

    A question's ``unseen_answer_type`` says whether its answer, in the prompt, holds a token type that no training
    prompt holds.

    Returns:
        The manifest: settings; counts and a content hash of each split; malformed questions that were passed over, and
        answers that are not where they should be; every dropped or trimmed question with its reason; the ids of those
        that sampling left out; splits with fewer questions than were asked for. Every question of the source is in a
        split's file, passed over, dropped, or left out.
    """
    manifest: dict[str, Any] = {"settings": settings.model_dump(), "splits": {}}
    manifest |= {"dropped_or_trimmed": [], "not_sampled": {}, "fewer_than_asked": {}, "warnings": []}
    passed_over: list[str] | None = [] if settings.skip_invalid else None
    train, dev = read_source(settings, passed_over)
    manifest["passed_over"] = {"questions": len(passed_over or []), "first": (passed_over or [])[:NAMED]}
    manifest["misplaced_answers"] = misplaced_answers(
        cast("Row", row) for frame in (train, dev) if frame is not None for row in frame.to_dict("records")
    )
    _warn_of_source(manifest)
    seen: np.ndarray | None = None
    for name, rows in split_rows(train, dev, settings.seed).items():
        asked = _samples(settings, name)
        drawn, left_out = draw(name, rows, settings)
        if left_out:
            reason = f"data.{name}_samples is {asked}"
            manifest["not_sampled"][name] = {"questions": len(left_out), "reason": reason, "ids": left_out}
        if asked is not None and asked > len(rows):
            manifest["fewer_than_asked"][name] = {"asked": asked, "available": len(rows)}
        frame, notes = prepare_split(
            name,
            drawn,
            renderer,
            max_prompt_tokens=settings.max_prompt_tokens,
            on_long_prompt=settings.on_long_prompt,
        )
        manifest["dropped_or_trimmed"] += notes
        for warning in _warnings(name, frame, notes):
            log.warning(warning)
            manifest["warnings"].append(warning)
        if seen is None:  # train comes first
            seen = np.unique(np.concatenate(list(frame["input_ids"])))
        mark_unseen_answers(frame, seen)
        with atomic_path(output / f"{name}.parquet") as temporary:
            frame.to_parquet(temporary, index=False)
        manifest["splits"][name] = _summary(frame)
    return manifest


def _warn_of_source(manifest: dict[str, Any]) -> None:
    """Log what the source's questions lack; malformed ones that were passed over also stand in the verdict."""
    if count := manifest["passed_over"]["questions"]:
        first = manifest["passed_over"]["first"][0]
        what = "malformed articles, paragraphs or questions"
        manifest["warnings"].append(f"{count} {what} were passed over, the first: {first}")
        log.warning(manifest["warnings"][-1])
    for what, count in manifest["misplaced_answers"].items():
        if count:
            log.warning("%d questions have an answer that is %s", count, what.replace("_", " "))


def _warnings(name: str, frame: pd.DataFrame, notes: list[dict[str, str]]) -> list[str]:
    """What a reader of the verdict has to know about an evaluation split."""
    if name == "train":
        return []
    found = []
    dropped = sum(note["action"] == "dropped" for note in notes)
    if dropped:
        asked = dropped + len(frame)
        found.append(f"{dropped} of {asked} questions of {name} were dropped: no part of the context fits")
    return found


def _summary(frame: pd.DataFrame) -> dict[str, Any]:
    lengths = frame["input_ids"].map(len)
    return {
        "articles": int(frame["article"].nunique()),
        "questions": len(frame),
        "tokens": int(lengths.sum()),
        "longest_prompt": int(lengths.max()),
        "sha256": content_hash(frame),
    }


def mark_unseen_answers(frame: pd.DataFrame, seen: np.ndarray) -> None:
    """Add ``unseen_answer_type``, in place: whether an answer's tokens in the prompt hold a type outside ``seen``."""
    types = set(seen.tolist())
    frame["unseen_answer_type"] = [
        not types.issuperset(ids[mask].tolist())
        for ids, mask in zip(frame["input_ids"], frame["answer_mask"], strict=True)
    ]


def content_hash(frame: pd.DataFrame) -> str:
    """A hash of the questions' ids, token ids and references, independent of the file format."""
    digest = hashlib.sha256()
    for identifier, ids, answers in zip(frame["id"], frame["input_ids"], frame["answers"], strict=True):
        digest.update(json.dumps([identifier, np.asarray(ids).tolist(), list(answers)]).encode())
    return digest.hexdigest()
