"""The model's input embedding table, read without loading the model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from latentwire.errors import InputError
from latentwire.lm import fetch, load_config

# Where architectures keep their input embeddings.
TABLE_NAMES = (
    "model.embed_tokens.weight",
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
    "model.decoder.embed_tokens.weight",
    "wte.weight",
    "embed_tokens.weight",
)


def read_embeddings(model: str, revision: str | None = None) -> torch.Tensor:
    """The input embedding table ``[V, D]`` in its stored dtype, from the one safetensors shard that holds it.

    It is mapped from the file: rows that nobody reads take no memory, and nothing is copied.

    Args:
        model: local model directory, or name on the hub (that shard alone is downloaded).
        revision: of the hub repository.

    Raises:
        InputError: the model is out of reach, has no readable safetensors, or keeps its embeddings under an unknown
            name.
    """
    load_config(model, revision)
    name, path = _table_file(model, revision)
    try:
        with safe_open(path, framework="pt") as stored:
            return stored.get_tensor(name or _table_name(list(stored.keys()), model))
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); is it a Git LFS pointer, or half a download?"
        ) from error


def _table_file(model: str, revision: str | None) -> tuple[str | None, Path]:
    """The file that holds the table, and the table's name where an index tells it."""
    try:
        index = json.loads(fetch(model, "model.safetensors.index.json", revision).read_text(encoding="utf-8"))
    except (FileNotFoundError, InputError) as error:
        # Without a network, a cached model of one file can't be told from one whose index is out of reach.
        no_index = error
    else:
        name = _table_name(list(index["weight_map"]), model)
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


def _table_name(names: list[str], model: str) -> str:
    for candidate in TABLE_NAMES:
        if candidate in names:
            return candidate
    raise InputError(f"{model!r}: no input embeddings under any of {', '.join(TABLE_NAMES)}")
