"""Phase 2: generation-aware training, α·reconstruction + β·prompt cross-entropy through the frozen model.

The model reads the *rebuilt* prompt and predicts the prompt's own tokens. No answer token is in any input or label.
Labels are −100 on padding and on the template's constant tokens. With β = 0 the same steps, without the
model, are the control. Distillation has another second term at the same positions: KL(original ‖ rebuilt) of the
model's predictions on the original and on the rebuilt embeddings.

Shape suffixes: B batch, L length, U unique tokens, D embedding dimensions, K code dimensions, N predicted tokens,
V vocabulary.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from latentwire.adapter import Rebuilder
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.files import hash_of, read_json, write_json
from latentwire.packing import PackedDecoder, PromptBatch, prompt_batch
from latentwire.processes import Processes
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.settings import Phase2
from latentwire.training.head_loss import frozen_head_cross_entropy, frozen_head_divergence
from latentwire.training.loop import Losses, batch_at, planned_steps, train_adapter
from latentwire.training.memory import Batches, LossInParts, checkpoint_activations
from latentwire.training.objectives import (
    TokenRows,
    autocast,
    held_out_metrics,
    held_out_types,
    unique_tokens,
    weighted_error,
)

if TYPE_CHECKING:
    from latentwire.results import Calibration, Phase2Findings

log = logging.getLogger(__name__)

# What β weighs, and its name among the losses of a step.
Objective = Literal["cross_entropy", "distillation"]
PROMPT_TERMS: dict[Objective, str] = {"cross_entropy": "prompt_loss", "distillation": "divergence"}
# Each costs forward passes of the held-out prompts.
MEASUREMENTS = 5


class PromptScorer:
    """What the frozen model predicts of prompts, given their input embeddings.

    Args:
        model: a Hugging Face causal language model, frozen.

    Raises:
        InputError: the model can't serve.
    """

    def __init__(self, model: Any) -> None:
        self.decoder, self.head = PackedDecoder(model), model.get_output_embeddings()
        self.device, self.layout = self.decoder.device, self.decoder.layout

    def cross_entropy(self, inputs_BLD: torch.Tensor, batch: PromptBatch, reduction: str = "mean") -> torch.Tensor:
        """Negative log-likelihood (nats) of the labels: mean, sum, or with none one value per token, row after row.

        The output head keeps the model's own table, also if it is tied to the input embeddings.
        """
        hidden_ND = self.decoder.hidden(inputs_BLD, batch)
        labels_N = self.decoder.on_device(batch.labels_BL.flatten()[batch.predicted_N])
        loss_N = frozen_head_cross_entropy(hidden_ND, self.head.weight, labels_N, self.head.bias)
        return _reduced(loss_N, reduction)

    def divergence(
        self, inputs_BLD: torch.Tensor, original_BLD: torch.Tensor, batch: PromptBatch, reduction: str = "mean"
    ) -> torch.Tensor:
        """KL(original ‖ inputs) in nats of the predictions at the labels' positions, reduced as the cross-entropy is.

        The labels themselves are not used. Gradients reach ``inputs_BLD`` alone.

        Args:
            inputs_BLD: what the model reads.
            original_BLD: the uncompressed embeddings of the same tokens.
            batch: the prompts.
            reduction: mean, sum or none.
        """
        with torch.no_grad():
            text_ND = self.decoder.hidden(original_BLD, batch)
        hidden_ND = self.decoder.hidden(inputs_BLD, batch)
        loss_N = frozen_head_divergence(hidden_ND, self.head.weight, text_ND, self.head.bias)
        return _reduced(loss_N, reduction)


def _reduced(loss_N: torch.Tensor, reduction: str) -> torch.Tensor:
    return loss_N if reduction == "none" else getattr(loss_N, reduction)()


def prompt_inputs(rebuilt_UD: torch.Tensor, ids_U: torch.Tensor, ids_BL: torch.Tensor) -> torch.Tensor:
    """The prompts' embeddings ``[B, L, D]`` gathered from rebuilt rows of the sorted types ``ids_U``."""
    index_BL = torch.searchsorted(ids_U, ids_BL).clamp_max(len(ids_U) - 1)  # padding is masked, any row will do
    return rebuilt_UD[index_BL.to(rebuilt_UD.device, non_blocking=True)]


def repeated_mask(batch: PromptBatch) -> torch.Tensor:
    """For each predicted token, whether it occurs earlier in its own prompt: bool ``[N]``."""
    seen: set[tuple[int, int]] = set()
    repeated = []
    for own in zip(batch.owner_BL.flatten().tolist(), batch.ids_BL.flatten().tolist(), strict=True):
        repeated.append(own in seen)
        seen.add(own)
    return torch.tensor(repeated)[batch.predicted_N]


@torch.no_grad()
def prompt_loss_by_mention(
    reader: PromptScorer, batches: Sequence[PromptBatch], inputs: Callable[[PromptBatch], torch.Tensor]
) -> dict[str, float]:
    """Mean cross-entropy (nats) of prompt tokens: ``all``, ``first`` mentions, and ``repeated`` ones, if any."""
    losses, repeated = [], []
    for batch in batches:
        losses.append(reader.cross_entropy(inputs(batch), batch, reduction="none").double().cpu())
        repeated.append(repeated_mask(batch))
    loss_N, repeated_N = torch.cat(losses), torch.cat(repeated)
    groups = {"all": loss_N, "first": loss_N[~repeated_N], "repeated": loss_N[repeated_N]}
    return {name: float(own_N.mean()) for name, own_N in groups.items() if len(own_N)}


def _in_parts(device: torch.device, processes: Processes) -> bool:
    """Whether the prompts of a step are read in parts, or by several processes: on the CPU one reads them at once."""
    return device.type == "cuda" or processes.count > 1


def _gradient_norm(loss: torch.Tensor, adapter: Rebuilder, *, keep_graph: bool) -> float:
    gradients = torch.autograd.grad(loss, list(adapter.parameters()), retain_graph=keep_graph)
    return float(torch.stack([gradient.norm() for gradient in gradients]).norm())


def _calibrate(
    adapter: Rebuilder, losses_at: Callable[[int], Sequence[torch.Tensor]], settings: Phase2
) -> Calibration:
    """α = 1/E[reconstruction], β = 1/E[the prompt's term] over training batches, unless the settings fix them."""
    values, norms = [], []
    for step in range(settings.calibration_batches):
        losses = losses_at(step)
        values.append([loss.item() for loss in losses])
        norms.append([_gradient_norm(loss, adapter, keep_graph=loss is not losses[-1]) for loss in losses])
    means, mean_norms = np.mean(values, axis=0).tolist(), np.mean(norms, axis=0).tolist()
    if not all(map(math.isfinite, (*means, *mean_norms))):
        raise FloatingPointError(
            f"calibration: the mean losses are {means}, the mean norms of their gradients {mean_norms}; "
            "nothing was trained"
        )
    (reconstruction, *prompt), (norm, *prompt_norm) = means, mean_norms
    alpha = 1 / reconstruction if settings.alpha == "auto" else settings.alpha
    beta = 1 / prompt[0] if settings.beta == "auto" else settings.beta
    prompt_loss, prompt_loss_norm = (prompt[0], prompt_norm[0]) if prompt else (None, None)
    return {
        "reconstruction": reconstruction,
        "prompt_loss": prompt_loss,
        "alpha": alpha,
        "beta": beta,
        "gradient_norm_reconstruction": norm,
        "gradient_norm_prompt_loss": prompt_loss_norm,
    }


def _kept_calibration(folder: Path, calibrate: Callable[[], Calibration]) -> Calibration:
    """The calibration of an interrupted run; without one, a new one, which is kept."""
    path = folder / "calibration.json"
    if path.exists():
        try:
            kept = read_json(path)
            if kept["sha256"] != hash_of(kept["calibration"]):
                raise ValueError("its content is not what was written")
            found: Calibration = kept["calibration"]
            return found
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s can't be read (%s); calibrating again", path, error)
    calibration = calibrate()
    write_json(path, {"calibration": calibration, "sha256": hash_of(calibration)})
    return calibration


def train_phase2(
    adapter: Rebuilder,
    model: Any | None,
    train: Sequence[np.ndarray],
    train_labels: Sequence[np.ndarray],
    held_out: Sequence[np.ndarray],
    held_out_labels: Sequence[np.ndarray],
    table_VD: torch.Tensor,
    codes_VK: torch.Tensor,
    compressor: EmbeddingCompressor,
    settings: Phase2,
    *,
    seed: int,
    checkpoints: Checkpoints,
    diagnostics: Path,
    objective: Objective = "cross_entropy",
    control: Rebuilder | None = None,
    processes: Processes | None = None,
) -> tuple[list[dict[str, Any]], Phase2Findings]:
    """Train ``adapter`` in place, from where Phase 1 left it.

    Args:
        adapter: Phase 1's, or a bottleneck, on the model's device.
        model: the frozen language model; the control, whose ``beta`` is 0, takes none.
        train, train_labels: token ids and label masks of the training prompts.
        held_out, held_out_labels: the same of held-out prompts, for the log.
        table_VD: the model's embedding table.
        codes_VK: what ``adapter`` reads: the table's codes under ``compressor``.
        compressor: gives the standardised space.
        settings: of the configuration; with ``beta`` 0 this is the control.
        seed: of the data order.
        checkpoints: this run's own.
        diagnostics: the JSONL log to write.
        objective: what ``beta`` weighs: the prompt's cross-entropy, or KL(original ‖ rebuilt) of what is predicted.
        control: the control's adapter after its training, to be measured beside.
        processes: that share every step's prompts; None for this one alone.

    Returns:
        The diagnostics, and a summary: the calibration, and with a model the held-out prompts' cross-entropy with the
        original embeddings (``text``), at the start, at the end, and with the control's adapter, first and repeated
        mentions apart.

    Raises:
        FloatingPointError: a loss is not finite.
        Stopped: the run was told to stop; the state is kept.
        ValueError: ``beta`` is 0 with a model, or is not without one.
    """
    if (model is None) != (settings.beta == 0):
        raise ValueError(f"the control (beta 0) takes no language model, Phase 2 needs one; beta is {settings.beta}")
    device, processes = next(adapter.parameters()).device, processes or Processes()
    if settings.activation_checkpointing and model is not None:
        checkpoint_activations(model)
    reader = None if model is None else PromptScorer(model)
    in_parts = LossInParts(processes, [len(ids) for ids in train]) if _in_parts(device, processes) else None
    budget = None if in_parts is None else in_parts.budget
    held_ids_U, held_counts_U = held_out_types(held_out, len(table_VD))
    all_ids = torch.unique(torch.cat([unique_tokens(train)[0], held_ids_U]))
    rows = TokenRows(table_VD, codes_VK, compressor, all_ids, device)
    shown = range(min(settings.measure_prompts, len(held_out)))
    layout = None if reader is None else reader.layout
    measured = [shown[start : start + settings.batch_size] for start in range(0, len(shown), settings.batch_size)]

    def loss_by_mention(reader: PromptScorer, inputs: Callable[[PromptBatch], torch.Tensor]) -> dict[str, float]:
        """The held-out prompts' loss, read in micro-batches if the steps' prompts are."""

        def read(batches: Batches) -> dict[str, float]:
            prompts = ([held_out[i] for i in part] for part in batches)
            labels = ([held_out_labels[i] for i in part] for part in batches)
            pairs = zip(prompts, labels, strict=True)
            return prompt_loss_by_mention(reader, [prompt_batch(*pair, layout) for pair in pairs], inputs)

        return read(measured) if budget is None else budget.cut(measured, [len(ids) for ids in held_out], read)

    def rebuilt_by(adapter: Rebuilder) -> Callable[[PromptBatch], torch.Tensor]:
        def inputs(batch: PromptBatch) -> torch.Tensor:
            ids_U = torch.unique(batch.ids_BL[batch.mask_BL.bool()])
            return prompt_inputs(adapter(rows.of(ids_U)[0]), ids_U, batch.ids_BL)

        return inputs

    def text_inputs(batch: PromptBatch) -> torch.Tensor:
        return table_VD[batch.ids_BL].to(device)

    def rebuild(step: int) -> tuple[torch.Tensor, Callable[[], torch.Tensor]]:
        """The reconstruction loss of a step's batch, and a call for its prompts' term."""
        chosen = batch_at(step, len(train), settings.batch_size, seed).tolist()
        sequences = [train[index] for index in chosen]
        ids_U, counts_U = unique_tokens(sequences)
        codes_UK, target_UD = rows.of(ids_U)
        with autocast(device):
            standardised_UD = adapter.standardised(codes_UK).float()

        def prompt_loss() -> torch.Tensor:
            assert reader is not None
            rebuilt_UD = adapter.mean_D + adapter.scale * standardised_UD

            def read(rows_UD: torch.Tensor, prompts: Sequence[int], reduction: str) -> torch.Tensor:
                batch = prompt_batch([train[i] for i in prompts], [train_labels[i] for i in prompts], layout)
                inputs_BLD = prompt_inputs(rows_UD, ids_U, batch.ids_BL)
                if objective == "cross_entropy":
                    return reader.cross_entropy(inputs_BLD, batch, reduction)
                original_BLD = prompt_inputs(rows.original(ids_U), ids_U, batch.ids_BL)
                return reader.divergence(inputs_BLD, original_BLD, batch, reduction)

            if in_parts is None:
                return read(rebuilt_UD, chosen, "mean")
            labels = sum(int(np.count_nonzero(train_labels[index][1:])) for index in chosen)
            return in_parts(rebuilt_UD, chosen, lambda rows_UD, own: read(rows_UD, own, "sum") / labels)

        return weighted_error(standardised_UD, target_UD, counts_U), prompt_loss

    def losses_at(step: int) -> Sequence[torch.Tensor]:
        reconstruction, prompt_loss = rebuild(step)
        return [reconstruction] if reader is None else [reconstruction, prompt_loss()]

    calibration = _kept_calibration(checkpoints.folder, lambda: _calibrate(adapter, losses_at, settings))
    alpha, beta = calibration["alpha"], calibration["beta"]

    def loss_at(step: int) -> Losses:
        reconstruction, prompt_loss = rebuild(step)
        if reader is None:
            return {"loss": alpha * reconstruction, "reconstruction": reconstruction}
        prompt = prompt_loss()
        return {
            "loss": alpha * reconstruction + beta * prompt,
            "reconstruction": reconstruction,
            PROMPT_TERMS[objective]: prompt,
        }

    per_epoch = math.ceil(len(train) / settings.batch_size)
    steps = planned_steps(settings.epochs, len(train), settings.batch_size)

    def measure(step: int) -> dict[str, float]:
        metrics = held_out_metrics(adapter, rows, held_ids_U, held_counts_U)
        if reader is not None:
            loss = loss_by_mention(reader, rebuilt_by(adapter))
            metrics |= {f"prompt_loss_{name}": value for name, value in loss.items()}
        return metrics

    history = train_adapter(
        adapter,
        loss_at,
        steps=steps,
        steps_per_epoch=per_epoch,
        settings=settings,
        checkpoints=checkpoints,
        measure=measure,
        measure_every=max(1, steps // MEASUREMENTS),
        diagnostics=diagnostics,
        description="control" if reader is None else "phase 2",
        budget=budget,
    )
    summary: Phase2Findings = {"calibration": calibration}
    if reader is not None:
        text = loss_by_mention(reader, text_inputs)
        summary["prompt_loss"] = {
            "prompts": len(shown),
            "text": text,
            "start": {name: history[0][f"prompt_loss_{name}"] for name in text},
            "end": {name: history[-1][f"prompt_loss_{name}"] for name in text},
        }
        if control is not None:
            summary["prompt_loss"]["control"] = loss_by_mention(reader, rebuilt_by(control))
    return history, summary
