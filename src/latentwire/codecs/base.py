"""What every codec is: tensors that are stored, and a way from them, and nothing else, back to rows of the table.

``codes`` grow with the table's rows, one entry per row; the ``decoder`` is shared by all of them. A saved codec is a
folder with ``config.json`` and one safetensors file for each of the two; codecs that read the same codes share their
file, and each counts it whole.

Shape suffixes: V table rows, D embedding dimensions, U token ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch

from latentwire.codecs.files import CODES_FILE, DECODER_FILE, describe, read_config, read_tensors, save_tensors


class NotApplicable(ValueError):
    """Raised if a codec does not apply at this code dimension; says why."""


class Codec(ABC):
    """A stored embedding table.

    Args:
        codes: tensors with one entry per row of the table along their first axis.
        decoder: tensors that all rows share.
        shape: (V, D) of the table.

    Attributes:
        family: the name under which ``config.json`` knows the class.
        decoder_file: where the decoder's tensors are saved.
    """

    family: ClassVar[str]
    decoder_file: ClassVar[str] = DECODER_FILE

    def __init__(
        self, codes: Mapping[str, torch.Tensor], decoder: Mapping[str, torch.Tensor], shape: tuple[int, int]
    ) -> None:
        self.codes, self.decoder, self.shape = dict(codes), dict(decoder), shape

    @abstractmethod
    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Rows ``[U, D]`` of token ids ``[U]``, float32, from :attr:`tensors` alone."""

    @torch.no_grad()
    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Rebuilt rows ``[.., D]`` of token ids ``[..]``, float32."""
        return self.decode_rows(ids.reshape(-1)).reshape(*ids.shape, self.shape[1])

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that is stored."""
        return self.codes | self.decoder

    @property
    def stored_bytes(self) -> int:
        """Bytes of :attr:`tensors`."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def bits_per_parameter(self) -> float:
        """Stored bits per parameter of the table."""
        return 8 * self.stored_bytes / (self.shape[0] * self.shape[1])

    def save_pretrained(self, folder: str | Path, *, codes: str | Path | None = None) -> None:
        """Write the codec, atomically file by file, ``config.json`` last.

        Args:
            folder: its own.
            codes: a file that holds its codes already; None to write them here.
        """
        folder = Path(folder)
        if codes is None:
            save_tensors(folder / CODES_FILE, self.codes)
        save_tensors(folder / self.decoder_file, self.decoder)
        describe(folder, self.family, self.shape, decoder=self.decoder_file, codes=codes)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The codec that :meth:`save_pretrained` wrote.

        Raises:
            NotApplicable: :func:`~latentwire.codecs.files.decline` says that there is none.
            ValueError: it is of another family.
        """
        folder = Path(folder)
        config = read_config(folder)
        if config["family"] is None:
            raise NotApplicable(config["reason"])
        if config["family"] != cls.family:
            raise ValueError(f"{folder} holds a codec of the family {config['family']!r}, not {cls.family!r}")
        codes, decoder = (read_tensors(folder, config[part]) for part in ("codes", "decoder"))
        return cls(codes, decoder, (config["rows"], config["width"]))
