"""Answers of an unfinished evaluation: whole batches, kept on disk until all of them are there."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from latentwire.evaluation.generate import Answer

log = logging.getLogger(__name__)


class KeptAnswers:
    """The batches of an evaluation that were answered before it was interrupted, if it was.

    Args:
        folder: the evaluation's own: name it after a hash of everything that determines its answers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "answers.jsonl"
        self._found: dict[tuple[str, int], list[Answer]] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._read(line)
            log.info("continuing with %d batches of answers in %s", len(self._found), self._file)

    def _read(self, line: str) -> None:
        try:
            arm, batch, answers = json.loads(line)
            self._found[arm, batch] = [Answer(*answer) for answer in answers]
        except (ValueError, TypeError):
            if line:  # the writer was killed in the middle of it
                log.warning("a batch of answers in %s can't be read; it is generated again", self._file)

    def get(self, arm: str, batch: int) -> list[Answer] | None:
        """The answers of an arm's batch, or None."""
        return self._found.get((arm, batch))

    def keep(self, arm: str, batch: int, answers: Sequence[Answer]) -> None:
        """Add the answers of an arm's batch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = json.dumps([arm, batch, [astuple(answer) for answer in answers]])
        with self._file.open("a", encoding="utf-8") as handle:
            handle.write(f"\n{record}")  # a newline first, so that a line cut short spoils no other

    def clear(self) -> None:
        """Remove the folder, after success."""
        shutil.rmtree(self.folder, ignore_errors=True)
