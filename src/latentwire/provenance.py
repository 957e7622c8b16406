"""Provenance: what an artefact was made from. Deterministic; times and memory are in Snakemake's benchmark files."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from latentwire.files import hash_of, read_json, sha256_of, write_json

SUFFIX = ".provenance.json"
# The field with the digest of a record's other fields.
DIGEST = "digest"

# In a model directory that this project made: the base, and the LoRA adapter merged into it.
MODEL_CARD = "reader.json"
PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "pandas", "safetensors")
# Fits product quantisers. Trainings and answers depend on their files alone, so their state is not named after it.
FITTING = ("faiss-cpu",)


def library_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Versions of Python and of libraries, by default those that compute; None for one that is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def utc_day() -> str:
    """Today in UTC, as ``2026-11-24``; the day of ``SOURCE_DATE_EPOCH`` if that is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return (datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)).date().isoformat()


def code_commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of the code that runs, with ``-dirty`` if tracked files have uncommitted changes.

    Args:
        folder: of the code.

    Returns:
        None if git is not installed, or does not track the folder's files.
    """
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    try:
        # A package that was copied into somebody else's checkout has not that checkout's commit.
        if not subprocess.check_output([*git, "ls-files", "--", "."], stderr=subprocess.DEVNULL):
            return None
        named = [*git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        return subprocess.check_output(named, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance_path(artefact: str | Path) -> Path:
    """Where the provenance of an artefact is: beside it, ``<name>.provenance.json``."""
    artefact = Path(artefact)
    return artefact.with_name(f"{artefact.name}{SUFFIX}")


def write_provenance(
    artefact: str | Path,
    arguments: argparse.Namespace,
    inputs: Mapping[str, str] | Iterable[str | Path | None],
    device: str = "cpu",
    by_products: Iterable[str | Path] = (),
) -> None:
    """Write the provenance of ``artefact``, by which it and its by-products are checked when they are read.

    Args:
        artefact: the file that was made.
        arguments: of the program that made it; paths of outputs and state are part of them.
        inputs: files it was made from, or their hashes by their paths; the hashes are recorded.
        device: where it was computed.
        by_products: other files that the program wrote, in the same folder.
    """
    settings: dict[str, Any] = {
        name: [str(item) for item in value] if isinstance(value, list) else value if _plain(value) else str(value)
        for name, value in sorted(vars(arguments).items())
        if name not in ("runtime", "command")  # another attempt's; how the experiment was started
    }
    files = [Path(path) for path in inputs if path is not None and Path(path).is_file()]
    artefact = Path(artefact)
    outputs = [artefact, *map(Path, by_products)]
    record: dict[str, Any] = {
        "program": Path(sys.argv[0]).name,
        "settings": settings,
        "inputs": dict(inputs) if isinstance(inputs, Mapping) else {str(path): sha256_of(path) for path in files},
        "model": _model_card(getattr(arguments, "model", None), files),
        "folder": str(artefact.parent),
        "outputs": {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in outputs},
        "device": device,
        "versions": library_versions((*PACKAGES, *FITTING)),
    }
    write_json(provenance_path(artefact), record | {DIGEST: hash_of(record)})


def _model_card(model: str | None, inputs: Iterable[Path]) -> dict[str, Any] | None:
    """What a model directory was made from, if this project made it; its own, or that of the inputs' model."""
    if model is not None:
        card = Path(model) / MODEL_CARD
        return {name: read_json(card)[name] for name in ("base", "lora")} if card.is_file() else None
    records = (read_json(path) for path in map(provenance_path, inputs) if path.is_file())
    return next((record["model"] for record in records if record.get("model")), None)


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
