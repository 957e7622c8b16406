"""A codec on disk: ``config.json``, the tensors of its codes and those of its decoder.

Apart from the codecs themselves, so that a training, which reads codes and writes a decoder, is no user of their code.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from latentwire.artefacts import read_json
from latentwire.files import atomic_path, write_json
from latentwire.integrity import reading

CODES_FILE, DECODER_FILE, ADAPTER_FILE = "codes.safetensors", "decoder.safetensors", "adapter.safetensors"


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors, atomically."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file that a codec's ``config.json`` names, from the codec's folder."""
    path = os.path.normpath(folder / name)
    with reading(path):
        return load_file(path)


def describe(
    folder: str | Path, family: str, shape: tuple[int, int], *, decoder: str, codes: str | Path | None = None
) -> None:
    """Write the ``config.json`` of a codec whose tensors are on disk.

    Args:
        folder: the codec's own.
        family: of its class.
        shape: (V, D) of the table.
        decoder: the decoder's file in ``folder``.
        codes: the codes' file, if that is another codec's.
    """
    config = {
        "family": family,
        "rows": shape[0],
        "width": shape[1],
        "codes": CODES_FILE if codes is None else os.path.relpath(codes, folder),
        "decoder": decoder,
    }
    write_json(Path(folder) / "config.json", config)


def decline(folder: str | Path, reason: str) -> None:
    """Record in a codec's folder that it does not apply at this code dimension, and why."""
    for name in (CODES_FILE, DECODER_FILE):
        save_tensors(Path(folder) / name, {})
    write_json(Path(folder) / "config.json", {"family": None, "reason": reason})


def read_config(folder: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a codec; its family is None if :func:`decline` wrote it."""
    config: dict[str, Any] = read_json(Path(folder) / "config.json", frozenset({"family"}))
    return config


def codec_files(folder: str | Path) -> list[Path]:
    """The files that a saved codec consists of."""
    config = read_config(folder)
    parts = [config["codes"], config["decoder"]] if config["family"] else []
    return [Path(os.path.normpath(Path(folder) / name)) for name in ("config.json", *parts)]


def load_codes(path: str | Path) -> torch.Tensor:
    """``codes_VK`` of a linear codec's file."""
    with reading(path), safe_open(path, framework="pt") as stored:
        return stored.get_tensor("codes_VK")
