"""Ways in which a file is damaged; each changes the file in its place."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    bit = random.Random(path.name).randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def swapped(path: Path) -> None:
    """With another of the experiment's: of the same kind, and readable. The only one of its kind stays as it is."""
    root = next(folder for folder in path.parents if folder.parent.name == "results")
    others = sorted(other for other in root.rglob(f"*{path.suffix}") if other.is_file())
    same = [other for other in others if other.read_bytes() != path.read_bytes()]
    if same:
        shutil.copyfile(next((other for other in same if other.name == path.name), same[0]), path)


def older(path: Path) -> None:
    """With what an earlier run left; a text with another digit, or a table or tensors of other bytes at their end."""
    content = path.read_bytes()
    digit = max(content.rfind(b"1"), content.rfind(b"2"))
    path.write_bytes(content[:digit] + b"3" + content[digit + 1 :] if digit >= 0 else content + b"\0")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def removed(path: Path) -> None:
    path.unlink()


def not_a_number(path: Path) -> None:
    """With NaN for one of its numbers; sound in every other way. A file that holds no number stays as it is."""
    _NOT_A_NUMBER.get(path.suffix, _text_not_a_number)(path)


def _tensors_not_a_number(path: Path) -> None:
    with safe_open(path, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(path)
    name = next((name for name, own in sorted(tensors.items()) if own.is_floating_point() and own.numel()), None)
    if name is not None:
        tensors[name].view(-1)[tensors[name].numel() // 2] = float("nan")
        save_file(tensors, path, metadata=metadata)


def _table_not_a_number(path: Path) -> None:
    table = pd.read_parquet(path)
    columns = table.select_dtypes("number").columns
    if len(columns):
        own = table[columns[-1]].astype(float)
        own.iloc[len(own) // 2] = float("nan")
        table.assign(**{columns[-1]: own}).to_parquet(path, index=False)


def _text_not_a_number(path: Path) -> None:
    """Of JSON the last number that is a value, which JSON's own parsers of Python take; of other text the last one."""
    text = path.read_text()
    json_like = path.suffix in (".json", ".jsonl")
    numbers = list(
        re.finditer(r"(?<=[:,\[\n ])-?\d+(\.\d+)?(e-?\d+)?(?=[,\]}\n])" if json_like else r"\d+\.\d+", text)
    )
    if numbers:
        start, end = numbers[-1].span()
        text = text[:start] + "NaN" + text[end:]
        if json_like:
            for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
                json.loads(line)
        path.write_text(text)


_NOT_A_NUMBER: dict[str, Damage] = {".safetensors": _tensors_not_a_number, ".parquet": _table_not_a_number}

DAMAGES: tuple[Damage, ...] = (flipped, emptied, cut, swapped, older, replaced_by_a_folder, removed)
