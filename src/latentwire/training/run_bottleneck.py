"""A linear code and its inverse, trained by Phase 2's steps, from prepared files to a codec on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from latentwire.adapter import LinearBottleneck
from latentwire.codecs.files import ADAPTER_FILE, CODES_FILE, describe, save_tensors
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.fingerprint import fingerprint
from latentwire.processes import Processes
from latentwire.resuming.work import Work
from latentwire.settings import Phase2
from latentwire.table import load_table
from latentwire.training.run_phase1 import TrainingFiles
from latentwire.training.run_phase2 import train_through_model


def run_bottleneck(
    files: TrainingFiles,
    model: Any,
    compress_dim: int,
    settings: Phase2,
    *,
    seed: int,
    device: torch.device,
    model_identity: Sequence[Any] = (),
    processes: Processes | None = None,
    work: Work,
) -> None:
    """Train, and write the codec, its diagnostics and a summary.

    Args:
        files: inputs and outputs.
        model: the frozen language model, on the device.
        compress_dim: K.
        settings: of the configuration.
        seed, device, model_identity, processes, work: as of :func:`~latentwire.training.run_phase2.run_phase2`.
    """
    compressor, table_VD = EmbeddingCompressor.load(files.compressor, compress_dim), load_table(files.table)
    bottleneck = LinearBottleneck(compressor).to(device)
    rows_VD = compressor.standardise(table_VD)
    train_through_model(
        files,
        bottleneck,
        model,
        table_VD,
        rows_VD,
        compressor,
        settings,
        {"seed": seed, "compress_dim": compress_dim, "objective": "cross_entropy"},
        device=device,
        determining=model_identity,
        code=fingerprint(__name__, "latentwire.lm", "latentwire.cli.set_threads"),
        processes=processes,
        work=work,
    )
    save_bottleneck(files.output, bottleneck, rows_VD, table_VD.dtype)


@torch.no_grad()
def save_bottleneck(folder: Path, bottleneck: LinearBottleneck, rows_VD: torch.Tensor, dtype: torch.dtype) -> None:
    """Write a bottleneck as a linear codec.

    Args:
        folder: of the codec.
        bottleneck: trained.
        rows_VD: the standardised table.
        dtype: of the codes, the table's.
    """
    bottleneck = bottleneck.cpu()
    decoder = {
        "mean_D": bottleneck.mean_D,
        "scale": bottleneck.scale,
        "components_KD": bottleneck.decoder.weight.detach().T,
    }
    save_tensors(folder / CODES_FILE, {"codes_VK": bottleneck.encoder(rows_VD).to(dtype)})
    save_tensors(folder / ADAPTER_FILE, decoder)
    describe(folder, "linear", (len(rows_VD), rows_VD.shape[1]), decoder=ADAPTER_FILE)
