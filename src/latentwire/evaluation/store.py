"""A store of generated answers, named by the hash of what determines them.

One file per batch, named by a hash of exactly that: the prompts, what the model reads of them (token ids, or the rows
of their tokens in the model's dtype), the model, and the decoding. So whatever rebuilds the same rows asks for no new
answer, two jobs that write the same file write the same bytes, and removing the folder costs time and nothing else.

Shape suffixes: U token types, D embedding dimensions, L prompt tokens.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from latentwire.device import described
from latentwire.evaluation.generate import Answer
from latentwire.files import hash_of, read_json, write_text
from latentwire.fingerprint import fingerprint
from latentwire.lm import model_identity
from latentwire.provenance import library_versions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowHashes:
    """A hash of each rebuilt row, uint8 ``[U, 16]``, for sorted token ids ``[U]``."""

    ids_U: np.ndarray
    hashes_U: np.ndarray

    @classmethod
    def of(cls, ids_U: torch.Tensor, rows_UD: torch.Tensor) -> Self:
        """The hashes of rows as the model reads them, in its dtype."""
        content = rows_UD.cpu().contiguous().view(torch.uint8).numpy()
        hashes = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in content)
        return cls(ids_U.numpy(), np.frombuffer(hashes, dtype=np.uint8).reshape(-1, 16))

    def read(self, ids_L: np.ndarray) -> bytes:
        """The hashes of a prompt's rows."""
        return self.hashes_U[np.searchsorted(self.ids_U, ids_L)].tobytes()


def decoding_identity(
    model: str, revision: str | None, dtype: str, device: torch.device, max_new_tokens: int
) -> list[Any]:
    """What determines the answers to given prompts and rows: the model, where it computes, the decoding, the code."""
    code = fingerprint("latentwire.evaluation.generate", "latentwire.lm.load_model", "latentwire.lm.load_tokenizer")
    return [*_computing(model, revision, dtype, device), max_new_tokens, code]


def measuring_identity(model: str, revision: str | None, dtype: str, device: torch.device) -> list[Any]:
    """What determines the measures of a teacher-forced pass."""
    code = fingerprint(
        "latentwire.evaluation.divergence.forced_prompts",
        "latentwire.evaluation.divergence.DivergenceReader",
        "latentwire.evaluation.divergence.question_records",
        "latentwire.lm.load_model",
    )
    return [*_computing(model, revision, dtype, device), "divergence", code]


def _computing(model: str, revision: str | None, dtype: str, device: torch.device) -> list[Any]:
    return [
        model_identity(model, revision, dtype, device),
        torch.get_num_threads() if device.type == "cpu" else described(device),
        library_versions(),
    ]


class AnswerStore:
    """The answers in one folder.

    Args:
        folder: of the experiment; made when it is first written to.
        determining: JSON value of what determines answers besides prompts and rows.
        check: called before what is not there is computed; it may end the work
            (:meth:`~latentwire.resuming.work.Work.check`).
        anew: whether to ignore stored answers and write them again.
    """

    def __init__(
        self, folder: Path, determining: Any, *, check: Callable[[], None] = lambda: None, anew: bool = False
    ) -> None:
        self.folder, self._determining, self._anew = folder, hash_of(determining), anew
        self.check = check
        self._continued = False

    def answers(
        self, prompts: Sequence[np.ndarray], rows: RowHashes | None, generate: Callable[[], list[Answer]]
    ) -> list[Answer]:
        """The answers to a batch of prompts, which are generated and kept if they are not there.

        Raises:
            Stopped: the work was told to stop; what was answered is kept.
        """
        name = self.name(prompts, rows)
        if (found := self.get(name, len(prompts))) is not None:
            if not self._continued:
                log.info("continuing with the answers in %s", self.folder)
                self._continued = True
            return found
        self.check()
        answers = generate()
        self.keep(name, answers)
        return answers

    def name(self, prompts: Sequence[np.ndarray], rows: RowHashes | None, more: bytes = b"") -> str:
        """The name of a batch's answers; without rows the model reads token ids; ``more`` determines them too."""
        digest = hashlib.sha256(self._determining.encode() + more)
        for ids_L in prompts:
            digest.update(len(ids_L).to_bytes(8, "little"))
            digest.update(np.asarray(ids_L, dtype=np.int64).tobytes())
            digest.update(b"ids" if rows is None else rows.read(ids_L))
        return digest.hexdigest()

    def get(self, name: str, count: int) -> list[Answer] | None:
        """The ``count`` answers of a batch, or None; a corrupt file is skipped with a warning."""
        stored = self.read(name, count)
        return None if stored is None else [Answer(*answer) for answer in stored]

    def keep(self, name: str, answers: Sequence[Answer]) -> None:
        """Write the answers of a batch, atomically."""
        self.write(name, [list(astuple(answer)) for answer in answers])

    def read(self, name: str, count: int) -> list[Any] | None:
        """What was written of a batch of ``count`` prompts, one JSON value per prompt, or None."""
        path = self._path(name)
        if self._anew or not path.exists():
            return None
        try:
            stored = read_json(path)
            kept: list[Any] = stored["kept"]
            # A file that was written before entries had names has none.
            if stored["sha256"] != hash_of(kept) or len(kept) != count or stored.get("name", name) != name:
                raise ValueError("its content is not what was written")
            return kept
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("answers in %s can't be read (%s); they are generated again", path, error)
            return None

    def write(self, name: str, values: list[Any]) -> None:
        """Keep one JSON value per prompt of a batch, atomically."""
        text = json.dumps({"kept": values, "name": name, "sha256": hash_of(values)}, ensure_ascii=False)
        write_text(self._path(name), text)

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name[2:]}.json"
