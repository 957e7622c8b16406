"""Question-answering sources in the official SQuAD v1.1 layout, as flat rows.

A row has ``id``, ``title`` (the article), ``context``, ``question`` and ``answers`` (``text`` and ``answer_start``
lists), which is the layout of SQuAD on the hub.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import snapshot_download

from latentwire.errors import InputError
from latentwire.hub import unavailable

log = logging.getLogger(__name__)

DEMO = "demo"
NO_ANSWERS = "SQuAD v1.1 needs one; data.skip_invalid passes such questions over"
Row = dict[str, Any]


def _require(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise InputError(f"{where}: {what}")


def _require_text(value: Any, where: str, name: str) -> None:
    _require(isinstance(value, str), where, f"'{name}' must be text, not {value!r:.80}")
    _require(bool(value.strip()), where, f"'{name}' is empty")
    _require_whole(value, where, name)


def _require_whole(value: str, where: str, name: str) -> None:
    broken = next((index for index, character in enumerate(value) if "\ud800" <= character <= "\udfff"), None)
    _require(
        broken is None,
        where,
        f"'{name}' holds half of a surrogate pair at character {broken}, which no tokenizer and no table takes",
    )


def _article(article: Any, where: str) -> tuple[str, list[Any], str]:
    """Title, paragraphs, and what errors call the article."""
    _require(isinstance(article, dict) and "title" in article, where, "'title' is missing")
    title = article["title"]
    _require(isinstance(title, str), where, f"'title' must be text, not {title!r:.80}")
    where = f"{where} ({title!r:.80})"
    _require_whole(title, where, "title")
    _require(isinstance(article.get("paragraphs"), list), where, "'paragraphs' must be a list")
    return title, article["paragraphs"], where


def _paragraph(paragraph: Any, where: str) -> tuple[str, list[Any]]:
    """Context and questions."""
    _require(isinstance(paragraph, dict), where, "a paragraph must be an object")
    _require("context" in paragraph, where, "'context' is missing")
    _require_text(paragraph["context"], where, "context")
    _require(isinstance(paragraph.get("qas"), list), where, "'qas' must be a list")
    return paragraph["context"], paragraph["qas"]


def _question(title: str, context: str, qa: Any, where: str) -> Row:
    _require(isinstance(qa, dict) and "id" in qa, where, "a question must be an object with an 'id'")
    identified = type(qa["id"]) in (str, int) and bool(str(qa["id"]).strip())
    _require(identified, where, f"'id' must be text or an integer, not {qa['id']!r:.80}")
    where = f"{where} (id {qa['id']!r:.80})"
    _require_whole(str(qa["id"]), where, "id")
    question, answers = qa.get("question"), qa.get("answers")
    _require("question" in qa, where, "'question' is missing")
    _require_text(question, where, "question")
    impossible = qa.get("is_impossible", False)
    _require(impossible is not True, where, "'is_impossible': SQuAD v1.1 has questions with answers only")
    _require(impossible in (False, None), where, f"'is_impossible' must be true or false, not {impossible!r:.80}")
    _require(isinstance(answers, list) and bool(answers), where, f"the question has no answers ({NO_ANSWERS})")
    for answer in answers:
        _require(
            isinstance(answer, dict)
            and isinstance(answer.get("text"), str)
            and bool(answer["text"].strip())
            and type(answer.get("answer_start")) is int
            and answer["answer_start"] >= 0,
            where,
            "an answer needs a non-empty 'text' and an 'answer_start', an integer from 0",
        )
        _require_text(answer["text"], where, "text")
    return {
        "id": str(qa["id"]),
        "title": title,
        "context": context,
        "question": question,
        "answers": {
            "text": [answer["text"] for answer in answers],
            "answer_start": [answer["answer_start"] for answer in answers],
        },
    }


T = TypeVar("T")


def unless_malformed(read: Callable[[], T], passed_over: list[str] | None) -> T | None:
    """What ``read`` gives; or None, with its error in ``passed_over`` if there is one."""
    try:
        return read()
    except InputError as error:
        if passed_over is None:
            raise
        passed_over.append(str(error))
        return None


def flatten_squad(content: Any, name: str, passed_over: list[str] | None = None) -> list[Row]:
    """The questions of an official SQuAD v1.1 JSON value as flat rows.

    Args:
        content: the parsed JSON: ``{"data": [{"title", "paragraphs": [{"context", "qas"}]}]}``.
        name: what errors call it, such as the file's path.
        passed_over: takes the error of each malformed article, paragraph or question, which is left out; None to raise
            it.

    Raises:
        InputError: something is malformed; names the article, paragraph and question.
    """
    _require(
        isinstance(content, dict) and isinstance(content.get("data"), list), name, "no 'data' list: not SQuAD v1.1"
    )
    rows: dict[str, Row] = {}
    for number, article in enumerate(content["data"]):
        read = unless_malformed(partial(_article, article, f"{name}: data[{number}]"), passed_over)
        title, paragraphs, where = read or ("", [], "")
        for index, paragraph in enumerate(paragraphs):
            place = f"{where}, paragraphs[{index}]"
            found = unless_malformed(partial(_paragraph, paragraph, place), passed_over)
            context, questions = found or ("", [])
            for own, qa in enumerate(questions):
                at = f"{place}, qas[{own}]"
                row = unless_malformed(partial(_question, title, context, qa, at), passed_over)
                if row is not None:
                    unless_malformed(partial(_add, rows, row, name), passed_over)
    _require(bool(rows), name, "there is not a single question in it")
    return list(rows.values())


def _add(rows: dict[str, Row], row: Row, name: str) -> None:
    _require(row["id"] not in rows, name, f"question id {row['id']!r:.80} occurs twice")
    rows[row["id"]] = row


def checked_rows(found: Iterable[Any], name: str, passed_over: list[str] | None = None) -> list[Row]:
    """Questions that are flat rows already, as data sets on the hub have them, by the same rules as a file's.

    Args:
        found: each with ``id``, ``title``, ``context``, ``question`` and ``answers``: lists of ``text`` and of
            ``answer_start``, or a list of objects with both.
        name: what errors call the data set.
        passed_over: see :func:`flatten_squad`.

    Raises:
        InputError: something is malformed; names the row and the question.
    """
    rows: dict[str, Row] = {}
    for number, one in enumerate(found):
        row = unless_malformed(partial(_flat, one, f"{name}[{number}]"), passed_over)
        if row is not None:
            unless_malformed(partial(_add, rows, row, name), passed_over)
    first = f"; the first that was passed over: {passed_over[0]}" if passed_over else ""
    _require(bool(rows), name, f"there is not a single question in it{first}")
    return list(rows.values())


def _flat(row: Any, where: str) -> Row:
    _require(isinstance(row, Mapping), where, "a question must be an object")
    for column in ("id", "title", "context", "question", "answers"):
        _require(column in row, where, f"{column!r} is missing: not SQuAD v1.1")
    _require_text(row["title"], where, "title")
    _require_text(row["context"], where, "context")
    return _question(row["title"], row["context"], {**row, "answers": _listed(row["answers"], where)}, where)


def _listed(answers: Any, where: str) -> Any:
    """Answers as a list of objects, if they are an object of lists."""
    if not isinstance(answers, Mapping):
        return answers
    texts, starts = answers.get("text"), answers.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise InputError(f"{where}: 'answers' must hold as many 'text' as 'answer_start'")
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def misplaced_answers(rows: Iterable[Row]) -> dict[str, int]:
    """How many questions have an answer that is not in the context, or is not where ``answer_start`` says."""
    missing = elsewhere = 0
    for row in rows:
        context, answers = row["context"], row["answers"]
        pairs = list(zip(answers["text"], answers["answer_start"], strict=True))
        absent = any(text not in context for text, _ in pairs)
        missing += absent
        elsewhere += not absent and any(context[start : start + len(text)] != text for text, start in pairs)
    return {"not_in_context": missing, "not_at_answer_start": elsewhere}


def read_squad_json(path: str | Path, passed_over: list[str] | None = None) -> list[Row]:
    """The questions of an official SQuAD v1.1 JSON file; ``passed_over``: see :func:`flatten_squad`.

    Raises:
        InputError: the file is missing, is not JSON, or is malformed; names the item.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (data.train_file, data.dev_file)") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    return flatten_squad(content, str(path), passed_over)


def read_hub(name: str, revision: str | None, passed_over: list[str] | None = None) -> tuple[list[Row], list[Row]]:
    """The ``train`` and ``validation`` splits of a SQuAD-like data set on the hub.

    The repository is fetched first and then read as a local folder: given its name, ``load_dataset`` takes whatever
    revision its cache holds if it can't reach the hub. ``passed_over``: see :func:`flatten_squad`.

    Raises:
        InputError: it can't be loaded (unknown, gated, or no network and not in the cache), lacks a split, or is
            malformed.
    """
    import datasets  # here: programs that train or read models do without it

    try:
        loaded = datasets.load_dataset(snapshot_download(name, repo_type="dataset", revision=revision))
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise unavailable("data", name, revision, error) from error
    called = f"data set {name!r} (data.path)"
    for split in ("train", "validation"):
        _require(split in loaded, called, f"it has no split {split!r}, only {list(loaded)}")
    train, validation = (
        checked_rows(loaded[split], f"{called}, {split}", passed_over) for split in ("train", "validation")
    )
    return train, validation


def load_squad_subset(
    split: str, samples: int, data: str | Path = DEMO, *, revision: str | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """A seeded sample of questions, as the plan's scripts read them.

    Args:
        split: ``train``, or ``validation`` (the development set).
        samples: how many; all of the split, with a warning, if it holds fewer.
        data: ``demo`` (the embedded corpus), a data set on the hub such as ``rajpurkar/squad``, an official v1.1
            JSON file (all of it, whatever the split), or a folder that holds ``train-v1.1*.json`` and
            ``dev-v1.1*.json``.
        revision: of the data set on the hub.
        seed: of the sample, and of the demo corpus.

    Returns:
        Dictionaries with ``id``, ``title``, ``source`` (the prompt text), ``answer`` (the first reference) and
        ``answers`` (all references).

    Raises:
        InputError: an unknown split, or data that can't be read or could be one of several files.
    """
    from latentwire.data.prompts import source_text

    if split not in ("train", "validation"):
        raise InputError(f"split must be 'train' or 'validation', got {split!r}")
    rows = read_rows(split, data, revision, seed)
    if samples > len(rows):
        log.warning(
            "%s of %s: %d questions were asked for, it holds %d: all are taken", split, data, samples, len(rows)
        )
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(samples, len(rows))))
    return [
        {
            "id": row["id"],
            "title": row["title"],
            "source": source_text(row["context"], row["question"]),
            "answer": row["answers"]["text"][0],
            "answers": list(row["answers"]["text"]),
        }
        for row in (rows[index] for index in chosen)
    ]


def read_rows(split: str, data: str | Path, revision: str | None, seed: int) -> list[Row]:
    """All questions of a split; see :func:`load_squad_subset` for the arguments."""
    if str(data) == DEMO:
        from latentwire.data.corpus import demo_splits

        return flatten_squad(demo_splits(seed)[split], f"demo corpus, {split}")
    path = Path(data)
    if path.is_file():
        return read_squad_json(path)
    if path.is_dir():
        pattern = "train-v1.1*.json" if split == "train" else "dev-v1.1*.json"
        found = sorted(path.glob(pattern))
        if not found:
            raise InputError(f"{path}: no {pattern} in this folder")
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise InputError(
                f"{path}: several files are {pattern}: {names}. Give the one to use instead of the folder"
            )
        return read_squad_json(found[0])
    train, validation = read_hub(str(data), revision)
    return train if split == "train" else validation
