"""Checks of the workflow's configuration while the Snakefile is parsed. Nothing slow is imported here."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

Config = dict[str, Any]

# Sections that change no result.
_NOT_FROZEN = ("experiment", "resources")
# Larger files are sampled: every start of Snakemake reads them, also in every job.
_READ_WHOLE_UP_TO = 64 * 2**20
_BLOCKS, _BLOCK = 64, 16 * 2**10


class ConfigurationError(ValueError):
    """A configuration that can't be run; the message lists every problem."""


def coerce_numbers(value: Any, schema: dict[str, Any]) -> Any:
    """``value`` with numeric strings turned into numbers where the schema wants numbers.

    Nested values given with ``--config`` arrive as strings.
    """
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return {key: coerce_numbers(item, properties.get(key, {})) for key, item in value.items()}
    if isinstance(value, list):
        return [coerce_numbers(item, schema.get("items", {})) for item in value]
    if isinstance(value, str):
        for option in (schema, *schema.get("anyOf", [])):
            kinds = option.get("type", [])
            kinds = [kinds] if isinstance(kinds, str) else kinds
            if "null" in kinds and value.lower() in ("null", "none"):
                return None
            if "boolean" in kinds and value.lower() in ("true", "false"):
                return value.lower() == "true"
            for kind, convert in (("integer", int), ("number", float)):
                if kind in kinds and "string" not in kinds:
                    try:
                        return convert(value)
                    except ValueError:
                        continue
    return value


def _schema_problems(config: Config, schema: dict[str, Any]) -> Iterator[str]:
    for error in Draft202012Validator(schema).iter_errors(config):
        place = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties":
            known = list(error.schema["properties"])
            for key in sorted(set(error.instance) - set(known)):
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                yield f"{place}.{key}: unknown key; {hint}".lstrip(".")
        elif error.validator == "anyOf":
            yield f"{place}: {error.instance!r} is not valid: {error.schema.get('description', '')}"
        else:
            yield f"{place}: {error.message}".lstrip(": ")


def _not_finite(value: Any, place: str = "") -> Iterator[str]:
    """NaN passes every bound of a schema, since it compares false with all of them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _not_finite(item, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{place}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value} is not a finite number"


def _consistency_problems(config: Config, root: Path) -> Iterator[str]:
    gate, data, model = config["gate"], config["data"], config["model"]
    if gate["failing"] > gate["threshold"]:
        yield f"gate.failing: {gate['failing']} is above gate.threshold, {gate['threshold']}"
    if data["source"] == "hub" and not data["path"]:
        yield "data.path: needed where data.source is 'hub'"
    if data["source"] == "local" and not data["train_file"]:
        yield "data.train_file: needed where data.source is 'local'"
    for key in ("train_file", "dev_file"):
        if data["source"] == "local" and data[key] and not (root / data[key]).is_file():
            yield f"data.{key}: {data[key]!r} does not exist"
    samples = config["pca"]["samples"]
    if isinstance(samples, int) and data["train_samples"] is not None and samples > data["train_samples"]:
        yield f"pca.samples: {samples} is more than data.train_samples, {data['train_samples']}, which holds them"
    directory = root / model["path"]
    # "resources/reader" looks like a name on the hub, but for the folder that it is in.
    named = model["path"].startswith((".", "/")) or ("/" in model["path"] and directory.parent.is_dir())
    if named and not directory.is_dir():
        yield f"model.path: the directory {model['path']!r} does not exist"
    local = model_config(directory)
    if local is not None:
        width = local.get("hidden_size") or local.get("n_embd")
        for k in config["compress_dims"]:
            if width and k > width:
                yield f"compress_dims: {k} is larger than the model's embedding dimension, {width}"
        limit = local.get("max_position_embeddings")
        if limit and data["max_prompt_tokens"] + config["evaluate"]["max_new_tokens"] > limit:
            yield (
                f"data.max_prompt_tokens: {data['max_prompt_tokens']} and evaluate.max_new_tokens "
                f"{config['evaluate']['max_new_tokens']} do not fit into the model's context of {limit} tokens"
            )


def model_config(directory: Path) -> dict[str, Any] | None:
    """A local model's configuration, or None where the model is on the hub."""
    path = directory / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def checked(config: Config, schema: dict[str, Any], root: Path) -> Config:
    """The configuration with numeric strings coerced.

    Args:
        config: merged from config.yaml, overlays and the command line.
        schema: of it.
        root: what relative paths are relative to.

    Raises:
        ConfigurationError: lists every unknown key, value out of bounds, and inconsistency.
    """
    coerced = coerce_numbers(config, schema)
    problems = [*_not_finite(coerced), *_schema_problems(coerced, schema)]
    problems = problems or list(_consistency_problems(coerced, root))
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigurationError(
            f"the configuration can't be run:\n{listed}\n(see workflow/schemas/config.schema.yaml)"
        )
    return dict(coerced)


def frozen_hash(config: Config) -> str:
    """A short hash of everything in the configuration that can change a result."""
    frozen = {key: value for key, value in config.items() if key not in _NOT_FROZEN}
    # Shards together are the unsharded run.
    frozen["evaluate"] = {key: value for key, value in config["evaluate"].items() if key != "shards"}
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()[:16]


def _content(file: Path) -> bytes:
    """A file's content; of a large one its size and a sample."""
    size = file.stat().st_size
    if size <= _READ_WHOLE_UP_TO:
        return file.read_bytes()
    with file.open("rb") as handle:
        blocks = [str(size).encode()]
        for number in range(_BLOCKS):
            handle.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
            blocks.append(handle.read(_BLOCK))
    return b"".join(blocks)


def content_identity(path: Path) -> str:
    """A short hash of a source file's or local model directory's content; the path itself where it is on the hub.

    A ``touch`` changes nothing. Files above 64 MB count by their size and 64 blocks spread evenly over them, their
    start and end among these: another training of the weights shows, an edit of single values may not.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jinja", ".safetensors", ".model"))
    else:
        return str(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + _content(file))
    return digest.hexdigest()[:16]
