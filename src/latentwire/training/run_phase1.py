"""Phase 1 from prepared files to an adapter on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from latentwire.adapter import Adapter
from latentwire.arms_table import Weighting
from latentwire.codecs.files import ADAPTER_FILE, CODES_FILE, describe, load_codes
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.data.prompts_table import read_prompts
from latentwire.device import described
from latentwire.files import write_json
from latentwire.fingerprint import fingerprint
from latentwire.resuming.work import Work
from latentwire.settings import Phase1
from latentwire.table import load_table
from latentwire.training.loop import planned_steps, prompts_seen
from latentwire.training.phase1 import train_phase1

if TYPE_CHECKING:
    from latentwire.results import Phase1Summary, TrainingLength


@dataclass(frozen=True)
class TrainingFiles:
    """Prepared inputs of a training run and where its results go.

    Attributes:
        train: prepared training prompts.
        held_out: prepared prompts for the log's metrics.
        table: the embedding table.
        compressor: the fitted compressor.
        output: folder for ``adapter.safetensors``, ``diagnostics.jsonl`` and ``summary.json``.
    """

    train: Path
    held_out: Path
    table: Path
    compressor: Path
    output: Path

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From values of the same names, such as a program's flags."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    @property
    def inputs(self) -> list[Path]:
        """The files that determine the result."""
        return [self.train, self.held_out, self.table, self.compressor]

    @property
    def by_products(self) -> list[Path]:
        """What a training writes besides the adapter."""
        return [self.output / name for name in ("config.json", "diagnostics.jsonl", "summary.json")]


@dataclass(frozen=True)
class CodecTrainingFiles(TrainingFiles):
    """Of a training that reads a codec.

    Attributes:
        codec: its folder.
    """

    codec: Path

    @property
    def inputs(self) -> list[Path]:
        """The files that determine the result."""
        return [*super().inputs, self.codes]

    @property
    def codes(self) -> Path:
        """The file of the codes."""
        return self.codec / CODES_FILE


def sequences(path: Path, column: str = "input_ids") -> list[np.ndarray]:
    """One list column of prepared prompts."""
    return list(read_prompts(path, [column])[column])


def save_codec(files: CodecTrainingFiles, adapter: Adapter, table_VD: torch.Tensor) -> None:
    """Write a trained adapter, in the table's dtype, as a codec that shares its codes with the linear one."""
    adapter.save(files.output / ADAPTER_FILE, table_VD.dtype)
    describe(files.output, "adapter", (len(table_VD), adapter.d_model), decoder=ADAPTER_FILE, codes=files.codes)


def progress(steps: int, count: int, epochs: float, batch_size: int) -> TrainingLength:
    """What a summary says of a training's length: steps taken and planned, and prompts seen of how many."""
    return {
        "steps": steps,
        "planned_steps": planned_steps(epochs, count, batch_size),
        "prompts_seen": prompts_seen(steps, count, batch_size),
        "train_prompts": count,
    }


def run_phase1(
    files: CodecTrainingFiles,
    compress_dim: int,
    settings: Phase1,
    device: torch.device,
    *,
    seed: int,
    recon_weight: float = 1.0,
    weighting: Weighting = "counts",
    hidden: int | None = None,
    work: Work,
) -> None:
    """Train Phase 1 and write the adapter, its diagnostics and a summary.

    Args:
        files: inputs and outputs.
        compress_dim: K.
        settings: of the configuration.
        device: where to train.
        seed, recon_weight, weighting: see :func:`~latentwire.training.phase1.train_phase1`.
        hidden: the adapter's hidden width; None for D/2.
        work: that this training is a part of; it continues where it was interrupted.
    """
    compressor = EmbeddingCompressor.load(files.compressor, compress_dim)
    own = {"seed": seed, "recon_weight": recon_weight, "compress_dim": compress_dim, "hidden": hidden}
    table_VD, codes_VK = load_table(files.table), load_codes(files.codes)
    adapter = train_on_codes(
        files, table_VD, codes_VK, compressor, settings, device, own, weighting=weighting, work=work
    )
    save_codec(files, adapter, table_VD)


def train_on_codes(
    files: TrainingFiles,
    table_VD: torch.Tensor,
    codes_VK: torch.Tensor,
    compressor: EmbeddingCompressor,
    settings: Phase1,
    device: torch.device,
    own: Mapping[str, Any],
    *,
    weighting: Weighting = "counts",
    residual: bool = False,
    code: str | None = None,
    work: Work,
) -> Adapter:
    """Phase 1's adapter on codes, and what is written of the training besides it: diagnostics and a summary.

    Args:
        files: inputs and outputs.
        table_VD, codes_VK, compressor, settings, device, weighting, residual: see
            :func:`~latentwire.training.phase1.train_phase1`.
        own: this training's ``seed``, ``recon_weight`` and ``hidden``, and what else its summary names.
        code: fingerprint of the training's code; None for Phase 1's.
        work: that this training is a part of.
    """
    chosen = settings.model_dump() | dict(own) | ({} if weighting == "counts" else {"weighting": weighting})
    code = code or fingerprint(__name__, "latentwire.cli.set_threads")
    checkpoints = work.checkpoints([chosen], files.inputs, code=code, device=described(device))
    train = sequences(files.train)
    adapter, history = train_phase1(
        train,
        sequences(files.held_out),
        table_VD,
        codes_VK,
        compressor,
        settings,
        seed=own["seed"],
        recon_weight=own["recon_weight"],
        weighting=weighting,
        device=device,
        checkpoints=checkpoints,
        diagnostics=files.output / "diagnostics.jsonl",
        hidden=own["hidden"],
        residual=residual,
    )
    summary: Phase1Summary = {
        "settings": chosen,
        "parameters": adapter.parameter_count,
        "table_parameters": table_VD.numel(),
        "table_width": table_VD.shape[1],
        **progress(history[-1]["step"], len(train), settings.epochs, settings.batch_size),
        "start": history[0],
        "end": history[-1],
    }
    write_json(files.output / "summary.json", summary)
    return adapter
