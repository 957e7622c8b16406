"""The one training loop of both phases: AdamW, warm-up and cosine decay, clipping, checkpoints, diagnostics.

What a step sees is a function of the step's number alone, so a run continued from a checkpoint takes the very
steps of an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from latentwire.files import atomic_path
from latentwire.resuming.checkpoint import Checkpoints, random_state, set_random_state
from latentwire.settings import Optimiser
from latentwire.training.diagnostics import log_diagnostics

log = logging.getLogger(__name__)

Losses = dict[str, torch.Tensor]


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The random order of ``count`` prompts in one epoch, a function of the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def batch_at(step: int, count: int, batch_size: int, seed: int) -> torch.Tensor:
    """Indices of the prompts in the batch of ``step``; the last batch of an epoch may be smaller."""
    per_epoch = math.ceil(count / batch_size)
    epoch, position = divmod(step, per_epoch)
    return epoch_order(count, seed, epoch)[position * batch_size : (position + 1) * batch_size]


def planned_steps(epochs: float, count: int, batch_size: int) -> int:
    """Optimiser steps of ``epochs`` passes, or a part of one, over ``count`` prompts."""
    return max(1, round(epochs * math.ceil(count / batch_size)))


def prompts_seen(steps: int, count: int, batch_size: int) -> int:
    """Prompts in the batches of the first ``steps`` steps, a prompt once in each epoch that it is seen in."""
    epochs, rest = divmod(steps, math.ceil(count / batch_size))
    return epochs * count + rest * batch_size


def make_optimiser(adapter: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """AdamW without weight decay on biases, one pass over the parameters a step."""
    matrices = [p for p in adapter.parameters() if p.ndim >= 2]
    others = [p for p in adapter.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


def _factor(settings: Optimiser, steps: int) -> Callable[[int], float]:
    warmup = max(1, round(settings.warmup_fraction * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def _write_diagnostics(path: Path, history: list[dict[str, Any]]) -> None:
    """The log as :func:`log_diagnostics` writes it, at once: nobody sees a part, and nothing is in it twice."""
    with atomic_path(path) as temporary:
        for row in history:
            metrics = {name: value for name, value in row.items() if name not in ("step", "epoch")}
            log_diagnostics(temporary, row["step"], row["epoch"], metrics)


def train_adapter(
    adapter: nn.Module,
    loss_at: Callable[[int], Losses],
    *,
    steps: int,
    steps_per_epoch: int,
    settings: Optimiser,
    checkpoints: Checkpoints,
    measure: Callable[[int], dict[str, float]],
    measure_every: int,
    diagnostics: Path,
    description: str,
) -> list[dict[str, Any]]:
    """Train ``adapter`` in place.

    Args:
        adapter: what is trained, on its device.
        loss_at: the losses of a step; ``loss`` is minimised, the others are logged.
        steps: optimiser steps.
        steps_per_epoch: for the log.
        settings: optimiser and schedule.
        checkpoints: where to continue from and to save to; asked before every step whether to stop.
        measure: held-out metrics after so many steps, logged before the first step, every ``measure_every``
            steps, and after the last.
        measure_every: steps between two of those; checkpoints are written then too, and every few minutes.
        diagnostics: JSONL file for :func:`log_diagnostics`, written anew at every measurement.
        description: of the progress bar.

    Returns:
        The diagnostics, one dictionary per measurement.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the state before that step is kept as a
            checkpoint.
        Stopped: the run was told to stop; the state is kept as a checkpoint.
    """
    device = next(adapter.parameters()).device
    optimiser = make_optimiser(adapter, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, _factor(settings, steps))
    history: list[dict[str, Any]] = []
    sums: dict[str, float] = {}
    start = since = 0

    def save(step: int) -> None:
        state = {
            "adapter": adapter.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scheduler": scheduler.state_dict(),
            "random": random_state(device),
            "history": history,
            "sums": sums,
            "since": since,
        }
        checkpoints.save(step, state)

    def record(step: int, losses: dict[str, float]) -> None:
        history.append({"step": step, "epoch": step / steps_per_epoch} | losses | measure(step))
        _write_diagnostics(diagnostics, history)

    if (found := checkpoints.load()) is not None:
        start, stored = found
        adapter.load_state_dict(stored["adapter"])
        optimiser.load_state_dict(stored["optimiser"])
        scheduler.load_state_dict(stored["scheduler"])
        set_random_state(stored["random"], device)
        history, sums, since = stored["history"], stored["sums"], stored["since"]
        _write_diagnostics(diagnostics, history)
        log.info("%s: continuing at step %d of %d", description, start, steps)
    if not history:
        record(0, {})
    bar = tqdm(range(start, steps), desc=description, initial=start, total=steps, unit="step", mininterval=5)
    for step in bar:
        checkpoints.check(partial(save, step))
        losses = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(adapter.parameters(), settings.gradient_clip)
        for what, value in (("loss", losses["loss"].item()), ("gradient norm", norm.item())):
            if not math.isfinite(value):
                save(step)
                raise FloatingPointError(
                    f"{description}: the {what} is {value} at step {step}; the state before it is kept in "
                    f"{checkpoints.folder}. Lower the learning rate or look for bad rows in the embedding table"
                )
        optimiser.step()
        scheduler.step()
        for name, loss in (losses | {"gradient_norm": norm}).items():
            sums[f"train_{name}"] = sums.get(f"train_{name}", 0.0) + loss.item()
        since += 1
        measured = (step + 1) % measure_every == 0 or step + 1 == steps
        if measured:
            bar.set_postfix(loss=f"{sums['train_loss'] / since:.4f}")
            record(step + 1, {name: total / since for name, total in sums.items()})
            sums, since = {}, 0
        if measured or checkpoints.due:
            save(step + 1)
    return history
