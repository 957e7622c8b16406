"""The SQuAD files of an experiment, the same bytes wherever the questions come from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from latentwire.data.squad import Row, read_hub, read_rows
from latentwire.errors import InputError
from latentwire.files import read_json, sha256_of, write_text

log = logging.getLogger(__name__)


def official_layout(rows: Iterable[Row]) -> dict[str, Any]:
    """Flat rows in the official v1.1 layout: articles in the order of their titles, questions in the rows' order."""
    articles: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        articles.setdefault(row["title"], {}).setdefault(row["context"], []).append(row)
    return {
        "version": "1.1",
        "data": [
            {
                "title": title,
                "paragraphs": [
                    {"context": context, "qas": [_question(row) for row in own]}
                    for context, own in articles[title].items()
                ],
            }
            for title in sorted(articles)
        ],
    }


def _question(row: Row) -> dict[str, Any]:
    pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
    answers = [{"text": text, "answer_start": int(start)} for text, start in pairs]
    return {"id": row["id"], "question": row["question"], "answers": answers}


def gather(
    folder: Path | None, output: Path, *, articles: Path | None, path: str, revision: str | None
) -> dict[str, str]:
    """Write ``train.json`` and ``dev.json`` to ``output``; files that are there already are left alone.

    Args:
        folder: with official files; None for the hub.
        output: the folder to write to.
        articles: JSON list of the training articles to keep; None for all.
        path, revision: of the data set on the hub.

    Returns:
        The SHA-256 of each file.

    Raises:
        InputError: the source is out of reach or malformed, or lacks an article.
    """
    files = {"train.json": "train", "dev.json": "validation"}
    missing = {name: split for name, split in files.items() if not (output / name).is_file()}
    if missing and folder is not None and not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it has to hold train-v1.1*.json and dev-v1.1*.json")
    train, dev = read_hub(path, revision) if missing and folder is None else ([], [])
    for name, split in missing.items():
        of_the_hub = train if split == "train" else dev
        rows = of_the_hub if folder is None else read_rows(split, folder, None, 0)
        if split == "train" and articles is not None:
            rows = _of_articles(rows, read_json(articles))
        write_text(output / name, json.dumps(official_layout(rows), ensure_ascii=False) + "\n")
        log.info("%s: %d questions", output / name, len(rows))
    return {name: sha256_of(output / name) for name in files}


def _of_articles(rows: list[Row], titles: list[str]) -> list[Row]:
    if absent := sorted(set(titles) - {row["title"] for row in rows}):
        raise InputError(f"{len(absent)} of the training articles are not in this source, {absent[0]!r} for one")
    return [row for row in rows if row["title"] in set(titles)]
