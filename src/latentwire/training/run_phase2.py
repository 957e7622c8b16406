"""Phase 2, or its control, from Phase 1's adapter and prepared files to an adapter on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentwire.adapter import Adapter, Rebuilder
from latentwire.codecs.files import load_codes
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.device import described
from latentwire.files import write_json
from latentwire.fingerprint import fingerprint
from latentwire.integrity import digest
from latentwire.processes import Processes
from latentwire.resuming.work import Work
from latentwire.settings import Phase2
from latentwire.table import load_table
from latentwire.training.phase2 import Objective, train_phase2
from latentwire.training.run_phase1 import CodecTrainingFiles, TrainingFiles, progress, save_codec, sequences

if TYPE_CHECKING:
    from latentwire.results import Phase2Summary


def run_phase2(
    files: CodecTrainingFiles,
    phase1_adapter: Path | None,
    model: Any | None,
    compress_dim: int | None,
    settings: Phase2,
    *,
    seed: int,
    device: torch.device,
    objective: Objective = "cross_entropy",
    model_identity: Sequence[Any] = (),
    control_adapter: Path | None = None,
    hidden: int | None = None,
    processes: Processes | None = None,
    work: Work,
) -> None:
    """Train Phase 2 and write the adapter, its diagnostics and a summary with the calibration and the prompt losses.

    Args:
        files: inputs and outputs.
        phase1_adapter: the warm start; None for the compressor's inverse.
        model: the frozen language model, on the device; None for the control.
        compress_dim: K; None for the compressor's.
        settings: of the configuration; with ``beta`` 0 this is the control.
        seed: of the data order.
        device: where to train.
        objective: what ``beta`` weighs (:func:`~latentwire.training.phase2.train_phase2`).
        model_identity: what the model's outputs depend on (:func:`~latentwire.lm.model_identity`).
        control_adapter: the control's, whose prompt cross-entropy is measured beside.
        hidden: the hidden width of an adapter that starts from the compressor; None for D/2.
        processes: that share every step's prompts; None for this one alone.
        work: that this training is a part of; it continues where it was interrupted.
    """
    compressor = EmbeddingCompressor.load(files.compressor, compress_dim)
    if phase1_adapter is None:
        torch.manual_seed(seed)
        adapter = Adapter.from_compressor(compressor, hidden=hidden).to(device)
    else:
        adapter = Adapter.load(phase1_adapter).to(device)
    own = {"seed": seed, "compress_dim": compressor.output_dim, "objective": objective, "hidden": adapter.hidden}
    table_VD = load_table(files.table)
    train_through_model(
        files,
        adapter,
        model,
        table_VD,
        load_codes(files.codes),
        compressor,
        settings,
        own,
        device=device,
        determining=[None if phase1_adapter is None else digest(phase1_adapter), *model_identity],
        code=fingerprint(__name__, "latentwire.lm", "latentwire.cli.set_threads"),
        control=None if control_adapter is None else Adapter.load(control_adapter).to(device),
        processes=processes,
        work=work,
    )
    save_codec(files, adapter, table_VD)


def train_through_model(
    files: TrainingFiles,
    adapter: Rebuilder,
    model: Any | None,
    table_VD: torch.Tensor,
    codes_VK: torch.Tensor,
    compressor: EmbeddingCompressor,
    settings: Phase2,
    own: Mapping[str, Any],
    *,
    device: torch.device,
    determining: Sequence[Any],
    code: str,
    control: Rebuilder | None = None,
    processes: Processes | None = None,
    work: Work,
) -> None:
    """Phase 2's steps, and what is written of them besides what was trained: diagnostics and a summary.

    Args:
        files: inputs and outputs.
        adapter, model, table_VD, codes_VK, compressor, settings, control, processes: see
            :func:`~latentwire.training.phase2.train_phase2`.
        own: this training's ``seed`` and ``objective``, and what else its summary names.
        device: where to train.
        determining: what the result depends on besides these and the files.
        code: fingerprint of the training's code.
        work: that this training is a part of; it continues where it was interrupted.
    """
    processes = processes or Processes()
    chosen = settings.model_dump() | dict(own)
    checkpoints = work.checkpoints(
        [chosen, *determining, processes.count], files.inputs, code=code, device=described(device)
    )
    train = sequences(files.train)
    history, found = train_phase2(
        adapter,
        model,
        train,
        sequences(files.train, "label_mask"),
        sequences(files.held_out),
        sequences(files.held_out, "label_mask"),
        table_VD,
        codes_VK,
        compressor,
        settings,
        seed=own["seed"],
        checkpoints=checkpoints,
        diagnostics=files.output / "diagnostics.jsonl",
        objective=own["objective"],
        control=control,
        processes=processes,
    )
    summary: Phase2Summary = {
        "settings": chosen,
        "parameters": adapter.parameter_count,
        **progress(history[-1]["step"], len(train), settings.epochs, settings.batch_size),
        "start": history[0],
        "end": history[-1],
        **found,
    }
    write_json(files.output / "summary.json", summary)
