"""The model's input embedding table, read without loading the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig

from latentwire.abilities import table_parameter
from latentwire.errors import InputError
from latentwire.lm import fetch, load_config


def read_embeddings(model: str, revision: str | None = None) -> torch.Tensor:
    """The input embedding table ``[V, D]`` in its stored dtype, from the one safetensors shard that holds it.

    It is mapped from the file: rows that nobody reads take no memory, and nothing is copied.

    Args:
        model: local model directory, or name on the hub (that shard alone is downloaded).
        revision: of the hub repository.

    Raises:
        InputError: the model is out of reach, can't serve (:mod:`latentwire.abilities`), has no readable safetensors,
            or keeps its embeddings under an unknown name.
    """
    names = _names(load_config(model, revision))
    name, path = _table_file(model, revision, names)
    try:
        with safe_open(path, framework="pt") as stored:
            return stored.get_tensor(name or _table_name(list(stored.keys()), model, names))
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); is it a Git LFS pointer, or half a download?"
        ) from error


def _names(config: PretrainedConfig) -> list[str]:
    """What checkpoints may call the table: its parameter, with and without the base model's prefix."""
    own, prefix = table_parameter(config)
    return list(dict.fromkeys((own, own.removeprefix(f"{prefix}."), f"{prefix}.{own}")))


def _table_file(model: str, revision: str | None, names: list[str]) -> tuple[str | None, Path]:
    """The file that holds the table, and the table's name where an index tells it."""
    try:
        index = json.loads(fetch(model, "model.safetensors.index.json", revision).read_text(encoding="utf-8"))
    except (FileNotFoundError, InputError) as error:
        # Without a network, a cached model of one file can't be told from one whose index is out of reach.
        no_index = error
    else:
        name = _table_name(list(index["weight_map"]), model, names)
        try:
            return name, fetch(model, index["weight_map"][name], revision)
        except FileNotFoundError as error:
            raise InputError(
                f"{model!r}: its index names {error}, which is not there: the model is incomplete"
            ) from error
    try:
        return None, fetch(model, "model.safetensors", revision)
    except FileNotFoundError as error:
        if isinstance(no_index, InputError):
            raise no_index from error
        raise InputError(f"{model!r} has no safetensors weights; pickled checkpoints are not loaded") from error


def _table_name(stored: list[str], model: str, names: list[str]) -> str:
    for candidate in names:
        if candidate in stored:
            return candidate
    raise InputError(f"{model!r}: no input embeddings under any of {', '.join(names)}")
