"""Checks of the workflow's configuration while the Snakefile is parsed. Nothing slow is imported here."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentwire.abilities import Lengths, declared_width, refusals
from latentwire.arms_table import ALWAYS, ARMS
from latentwire.settings import Configuration, Section, section_of, wanted

Config = dict[str, Any]

# Sections that change no result.
_NOT_FROZEN = ("experiment", "resources")
# Larger files are sampled: every start of Snakemake reads them, also in every job.
_READ_WHOLE_UP_TO = 64 * 2**20
_BLOCKS, _BLOCK = 64, 16 * 2**10


class ConfigurationError(ValueError):
    """A configuration that can't be run; the message lists every problem."""


_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80


def _section_at(place: Sequence[Any]) -> type[Section] | None:
    """The section that a place in the configuration is, or None if it is a value."""
    section: type[Section] | None = Configuration
    for key in place:
        field = section.model_fields.get(key) if section is not None else None
        section = section_of(field.annotation) if field is not None else None
    return section


def _place(location: Sequence[Any]) -> tuple[Any, ...]:
    """A location without the names that pydantic gives the alternatives of a union."""
    place: list[Any] = []
    for part in location:
        parent = _section_at(place)
        if parent is None and not isinstance(part, int):
            break
        place.append(part)
    return tuple(place)


def _unknown_key(place: tuple[Any, ...]) -> str:
    parent = _section_at(place[:-1])
    known = list(parent.model_fields) if parent is not None else []
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f"unknown key; did you mean {near[0]!r}?" if near else f"unknown key; known keys: {', '.join(known)}"


def _short(part: Any) -> str:
    """A key as it is echoed."""
    text = str(part) if str(part).isprintable() else repr(part)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _description(place: tuple[Any, ...]) -> str:
    """What the setting at a place is; of an element, its list."""
    keys = [part for part in place if isinstance(part, str)]
    parent = _section_at(keys[:-1])
    field = parent.model_fields.get(keys[-1]) if keys and parent is not None else None
    return (field.description or "") if field is not None else ""


def problems(error: ValidationError) -> list[str]:
    """Every problem of a configuration, one line each: the place, the value, what is wanted, and what it means."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for one in error.errors():
        found.setdefault(_place(one["loc"]), []).append(one)
    lines = []
    for place, errors in found.items():
        name = ".".join(map(_short, place))
        if errors[0]["type"] == "extra_forbidden":
            lines.append(f"{name}: {_unknown_key(place)}")
            continue
        expected = [wanted(one) for one in errors]
        meaning = f" ({description.rstrip('.')})" if (description := _description(place)) else ""
        value = "" if errors[0]["type"] == "missing" else f"{_shortened.repr(errors[0]['input'])} "
        lines.append(f"{name}: {value}{', or '.join(expected)}{meaning}")
    return lines


def _consistency_problems(config: Config, root: Path) -> Iterator[str]:
    gate, data, model = config["gate"], config["data"], config["model"]
    if gate["failing"] > gate["threshold"]:
        yield f"gate.failing: {gate['failing']} is above gate.threshold, {gate['threshold']}"
    if data["source"] == "hub" and not data["path"]:
        yield "data.path: needed if data.source is 'hub'"
    if data["source"] == "local" and not data["train_file"]:
        yield "data.train_file: needed if data.source is 'local'"
    for key in ("train_file", "dev_file"):
        if data["source"] == "local" and data[key]:
            yield from _unreadable(f"data.{key}", root / data[key], data[key])
    for name, file in config["codecs"].items():
        if name in ARMS:
            yield f"codecs: {name!r} is an arm of this project; another name"
        if (wrong := _codec_problem(root / file)) is not None:
            yield f"codecs.{name}: {_shortened.repr(file)} {wrong}"
    if (passages := config["evaluate"]["other_domain"]) is not None:
        yield from _passage_problems(root / passages)
    for codec, draws in config["evaluate"]["noise_controls"].items():
        if codec not in (*ALWAYS, *config["evaluate"]["arms"]):
            yield f"evaluate.noise_controls: {codec!r} is not among evaluate.arms, with which its noise is compared"
        if ARMS[codec].stage and draws > (seeds := len(config["seeds"])):
            yield (
                f"evaluate.noise_controls.{codec}: {draws} random errors, but {seeds} of seeds: a trained codec "
                "has one for each training"
            )
    samples = config["pca"]["samples"]
    if isinstance(samples, int) and data["train_samples"] is not None and samples > data["train_samples"]:
        yield f"pca.samples: {samples} is more than data.train_samples, {data['train_samples']}, which holds them"
    directory = root / model["path"]
    # "resources/reader" looks like a name on the hub, but for the folder that it is in.
    named = model["path"].startswith((".", "/")) or ("/" in model["path"] and os.path.isdir(directory.parent))
    if named and not os.path.isdir(directory):
        yield f"model.path: the directory {_shortened.repr(model['path'])} does not exist"
    if os.path.isdir(directory):
        yield from _model_problems(config, directory)


def _codec_problem(file: Path) -> str | None:
    """What makes a user's own codec unusable, as far as can be told without running it."""
    if not os.path.isfile(file):
        return "does not exist"
    if file.suffix != ".py":
        return "should be a Python file, with a name that ends in .py"
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"can't be read as Python: {_shortened.repr(str(error))}"
    if {"fit", "*"}.isdisjoint(name for part in ast.walk(tree) for name in _names_of(part)):
        return "should define fit(table_VD, counts_V, compress_dim)"
    return None


def _names_of(part: ast.AST) -> list[str]:
    """What a part of a module defines, anywhere in it: a name too many is found when the file is run."""
    match part:
        case ast.FunctionDef() | ast.ClassDef():
            return [part.name]
        case ast.Name():
            return [part.id]
        case ast.ImportFrom():
            return [own.asname or own.name for own in part.names]
    return []


def _unreadable(key: str, file: Path, name: str) -> Iterator[str]:
    """What makes a file unusable that has to be read, now or by a later job."""
    if not os.path.lexists(file):
        yield f"{key}: {_shortened.repr(name)} does not exist"
    elif not os.path.isfile(file):
        yield f"{key}: {_shortened.repr(name)} is no file but a folder, a pipe, or a link to nothing: remove it"
    elif not os.access(file, os.R_OK):
        yield f"{key}: no permission to read {_shortened.repr(name)}"


def _passage_problems(file: Path) -> Iterator[str]:
    """What makes another domain's text unusable."""
    # Here, as stored answers are named by code that runs this module's imports.
    from latentwire.documents import read_passages
    from latentwire.errors import InputError

    try:
        read_passages(file)
    except InputError as error:
        yield f"evaluate.other_domain: {error}"


def _model_problems(config: Config, directory: Path) -> Iterator[str]:
    """What a local model's configuration says against the experiment."""
    try:
        local = model_config(directory)
    except (OSError, ValueError, RecursionError) as error:
        yield f"model.path: {directory / 'config.json'} can't be read: {_shortened.repr(str(error))}"
        return
    for file in _identifying(directory):
        yield from _unreadable("model.path", file, str(file))
    lengths = Lengths(config["data"]["max_prompt_tokens"], config["evaluate"]["max_new_tokens"])
    yield from (f"model.path: {refused}" for refused in refusals(local, lengths))
    width = declared_width(local)
    for k in config["compress_dims"]:
        if width and k > width:
            yield f"compress_dims: {k} is larger than the model's embedding dimension, {width}"


def model_config(directory: Path) -> dict[str, Any]:
    """A local model's configuration.

    Raises:
        OSError: it can't be read.
        ValueError: it is no JSON object.
    """
    content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} instead of an object")
    return content


def checked(config: Config, root: Path) -> Config:
    """The whole configuration: what is not given has its default, and numeric strings are numbers.

    Args:
        config: merged from config.yaml, overlays and the command line.
        root: what relative paths are relative to.

    Raises:
        ConfigurationError: lists every unknown key, value out of bounds, and inconsistency.
    """
    try:
        complete = Configuration.model_validate(config).model_dump()
        found = list(_consistency_problems(complete, root))
    except ValidationError as error:
        found = problems(error)
    if found:
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise ConfigurationError(f"the configuration can't be run:\n{listed}\n(see docs/configuration.md)")
    return complete


def frozen_hash(config: Config) -> str:
    """A short hash of everything in the configuration that can change a result."""
    frozen = {key: value for key, value in config.items() if key not in _NOT_FROZEN and value != {}}
    # Shards together are the unsharded run; without another domain's text or noise nothing is measured of them.
    without = {"shards", *(key for key in ("other_domain", "noise_controls") if not config["evaluate"].get(key))}
    frozen["evaluate"] = {key: value for key, value in config["evaluate"].items() if key not in without}
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


def _identifying(directory: Path) -> list[Path]:
    """The files of a local model on which results depend."""
    return sorted(file for file in directory.iterdir() if file.suffix in (".json", ".jinja", ".safetensors", ".model"))


def content_identity(path: Path) -> str:
    """A short hash of a source file's or local model directory's content; the path itself if it is on the hub.

    A ``touch`` changes nothing. Files above 64 MB count by their size and 64 blocks spread evenly over them, their
    start and end among these: another training of the weights shows, an edit of single values may not.
    """
    if os.path.isfile(path):
        files = [path]
    elif os.path.isdir(path):
        files = _identifying(path)
    else:
        return str(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + _content(file))
    return digest.hexdigest()[:16]
