"""Two folders of results compared by content: what a change of the code must leave as it is.

Weights are compared tensor by tensor, tables row by row, JSON value by value, other files byte by byte. What differs
between any two runs is left out: logs, times, states, stored answers, provenance, the report with its run times, and
in a verdict the day, the commit and the commands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from latentwire.files import read_json, read_jsonl, sha256_of

LEFT_OUT = ("logs", "benchmarks", "state", "answers", "final_reads")
UNIMPORTANT = ("date", "commit", "command", "next", "configuration")


def compared_files(root: Path) -> dict[str, Path]:
    """The files that count, by their path below ``root``."""
    return {
        str(path.relative_to(root)): path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.relative_to(root).parts[0] not in LEFT_OUT
        and not path.name.endswith((".provenance.json", ".log", "report.html", ".md"))
    }


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two folders of results, one line each; a file that only moved is no difference.

    Args:
        first, second: ``results/<experiment>`` of two runs.
    """
    ours, theirs = compared_files(first), compared_files(second)
    found = []
    for name in sorted(ours.keys() & theirs.keys()):
        found += [f"{name}: {line}" for line in file_differences(ours[name], theirs[name])]
    alone, others = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    contents = {sha256_of(theirs[name]): name for name in sorted(others)}
    for name in sorted(alone):
        moved = contents.get(sha256_of(ours[name]))
        others = others - {moved} if moved else others
        found += [] if moved else [f"{name}: only in {first}"]
    return found + [f"{name}: only in {second}" for name in sorted(others)]


def file_differences(first: Path, second: Path) -> list[str]:
    """What differs between two files, by their kind; none if their bytes are equal."""
    if sha256_of(first) == sha256_of(second):
        return []
    compare = _KINDS.get(first.suffix, _bytes)
    try:
        return list(compare(first, second))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError, MemoryError) as error:
        return [f"can't be compared: {error}"]


def _bytes(first: Path, second: Path) -> Iterator[str]:
    yield f"other bytes ({first.stat().st_size} and {second.stat().st_size})"


def _tensors(first: Path, second: Path) -> Iterator[str]:
    ours, theirs = load_file(first), load_file(second)
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            yield f"tensor {name} is missing in one"
        elif a.shape != b.shape or a.dtype != b.dtype:
            yield f"tensor {name} is {a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        elif not torch.equal(a, b):
            yield f"tensor {name} differs by {float((a.double() - b.double()).abs().max()):.3g} at most"


def _rows(first: Path, second: Path) -> Iterator[str]:
    a, b = pd.read_parquet(first), pd.read_parquet(second)
    if list(a.columns) != list(b.columns) or len(a) != len(b):
        yield f"{len(a)} rows of {list(a.columns)} and {len(b)} of {list(b.columns)}"
        return
    for column in a.columns:
        pairs = zip(a[column], b[column], strict=True)
        changed = [row for row, (x, y) in enumerate(pairs) if not _same(x, y)]
        if changed:
            yield f"column {column} differs in {len(changed)} of {len(a)} rows, first in row {changed[0]}"


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return len(x) == len(y) and all(map(_same, x, y))
    if x is pd.NA or y is pd.NA:  # neither equal nor unequal to anything
        return x is y
    return bool(x == y) or (x != x and y != y)


def _lines(first: Path, second: Path) -> Iterator[str]:
    a, b = read_jsonl(first), read_jsonl(second)
    if len(a) != len(b):
        yield f"{len(a)} lines and {len(b)}"
    changed = [number for number, (x, y) in enumerate(zip(a, b, strict=False), 1) if x != y]
    if changed:
        yield f"{len(changed)} of {len(a)} lines differ, the first is line {changed[0]}"


def _values(first: Path, second: Path) -> Iterator[str]:
    yield from _value_differences(read_json(first), read_json(second), "")


def _value_differences(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted((a.keys() | b.keys()) - set(UNIMPORTANT)):
            if key not in a or key not in b:
                yield f"{place}{key} is missing in one"
            else:
                yield from _value_differences(a[key], b[key], f"{place}{key}.")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _value_differences(x, y, f"{place}{number}.")
    elif a != b:
        yield f"{place.rstrip('.')} is {_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


_KINDS: dict[str, Callable[[Path, Path], Iterator[str]]] = {
    ".safetensors": _tensors,
    ".parquet": _rows,
    ".jsonl": _lines,
    ".json": _values,
}
