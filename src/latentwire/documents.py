"""Passages of documents outside the experiment's data, as JSON lines. Standard library only, for the Snakefile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from latentwire.errors import InputError


@dataclass(frozen=True)
class Passage:
    """A text and the document that it is from, which intervals keep together."""

    document: str
    text: str


def read_passages(path: str | Path) -> list[Passage]:
    """The passages in ``path``: an object with ``document`` and ``text`` per line.

    Raises:
        InputError: the file is missing, can't be read or is empty, or a line is no such object; names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:  # ValueError: of UTF-8
        raise InputError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    found = [_passage(f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f'{path} holds no passage: one line of JSON each, {{"document": "…", "text": "…"}}')
    return found


def _passage(place: str, line: str) -> Passage:
    wanted = 'one line of JSON, {"document": "…", "text": "…"}, of which neither is empty'
    try:
        row = json.loads(line)
        passage = Passage(row["document"], row["text"])
        (passage.document + passage.text).encode()  # half of a surrogate pair, which JSON can hold, is no text
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{place}: a passage is {wanted}") from error
    if not all(isinstance(part, str) and part.strip() for part in (passage.document, passage.text)):
        raise InputError(f"{place}: a passage is {wanted}")
    return passage
