"""Phase 2, or its control, from Phase 1's adapter and prepared files to an adapter on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.table import load_table
from latentwire.files import sha256_of, write_json
from latentwire.fingerprint import QUICK_EVALUATION, fingerprint
from latentwire.state import state_folder
from latentwire.stopping import StopRequest
from latentwire.training.checkpoint import Checkpoints
from latentwire.training.phase2 import Phase2Settings, train_phase2
from latentwire.training.run_phase1 import TrainingFiles, progress, sequences


def run_phase2(
    files: TrainingFiles,
    phase1_adapter: Path,
    model: Any,
    compress_dim: int,
    settings: Phase2Settings,
    *,
    model_identity: Sequence[Any],
    quick_eval: Callable[[Adapter], dict[str, float]] | None = None,
    quick_eval_every: int = 0,
    quick_eval_identity: Sequence[Any] = (),
    stop: StopRequest | None = None,
) -> Checkpoints:
    """Train Phase 2 and write the adapter, its diagnostics and a summary with the calibration and the prompt losses.

    Args:
        files: inputs and outputs.
        phase1_adapter: the warm start.
        model: the frozen language model, on its device.
        compress_dim: K.
        settings: what determines the run; β = 0 is the control.
        model_identity: what the model's outputs depend on (:func:`~latentwire.lm.model_identity`).
        quick_eval: further metrics of the adapter (F1 on a fixed subset).
        quick_eval_every: steps between them; 0 turns them off.
        quick_eval_identity: what they depend on besides adapter and model.
        stop: asked before every step.

    Returns:
        Its checkpoints, for the caller to clear when everything about the run is on disk.
    """
    device = next(model.parameters()).device
    adapter = Adapter.load(phase1_adapter).to(device)
    chosen = asdict(settings) | {"compress_dim": compress_dim, "quick_eval_every": quick_eval_every}
    own = [chosen, sha256_of(phase1_adapter), *model_identity, *quick_eval_identity]
    code = fingerprint(
        __name__, "latentwire.lm", "latentwire.cli.set_threads", *(QUICK_EVALUATION if quick_eval else ())
    )
    state = state_folder(files.state, own, files.inputs, code, device.type)
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
        state=state,
        diagnostics=files.output / "diagnostics.jsonl",
        quick_eval=quick_eval,
        quick_eval_every=quick_eval_every,
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
