"""Phase 2, or its control, from Phase 1's adapter and prepared files to an adapter on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.table import load_table
from latentwire.files import sha256_of, write_json
from latentwire.fingerprint import fingerprint
from latentwire.settings import Phase2
from latentwire.state import state_folder
from latentwire.stopping import StopRequest
from latentwire.training.checkpoint import Checkpoints
from latentwire.training.phase2 import train_phase2
from latentwire.training.run_phase1 import TrainingFiles, progress, sequences


def run_phase2(
    files: TrainingFiles,
    phase1_adapter: Path,
    model: Any,
    compress_dim: int,
    settings: Phase2,
    *,
    seed: int,
    model_identity: Sequence[Any],
    stop: StopRequest | None = None,
) -> Checkpoints:
    """Train Phase 2 and write the adapter, its diagnostics and a summary with the calibration and the prompt losses.

    Args:
        files: inputs and outputs.
        phase1_adapter: the warm start.
        model: the frozen language model, on its device.
        compress_dim: K.
        settings: of the configuration; with ``beta`` 0 this is the control.
        seed: of the data order.
        model_identity: what the model's outputs depend on (:func:`~latentwire.lm.model_identity`).
        stop: asked before every step.

    Returns:
        Its checkpoints, for the caller to clear when everything about the run is on disk.
    """
    device = next(model.parameters()).device
    adapter = Adapter.load(phase1_adapter).to(device)
    own = {"seed": seed, "compress_dim": compress_dim}
    chosen = settings.model_dump() | own
    determining = [chosen, sha256_of(phase1_adapter), *model_identity]
    code = fingerprint(__name__, "latentwire.lm", "latentwire.cli.set_threads")
    state = state_folder(files.state, determining, files.inputs, code, device.type)
    train = sequences(files.train)
    history, found = train_phase2(
        adapter,
        model,
        train,
        sequences(files.train, "label_mask"),
        sequences(files.held_out),
        sequences(files.held_out, "label_mask"),
        load_table(files.table),
        EmbeddingCompressor.load(files.compressor, compress_dim),
        settings,
        seed=seed,
        state=state,
        diagnostics=files.output / "diagnostics.jsonl",
        stop=stop,
    )
    summary = {
        "settings": chosen,
        "parameters": adapter.parameter_count,
        **progress(history[-1]["step"], len(train), settings.epochs, settings.batch_size),
        "start": history[0],
        "end": history[-1],
        **found,
    }
    write_json(files.output / "summary.json", summary)
    adapter.save(files.output / "adapter.safetensors")
    return Checkpoints(state)
