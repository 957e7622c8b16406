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
from latentwire.training.memory import TokenBudget

log = logging.getLogger(__name__)

Losses = dict[str, torch.Tensor]

# Steps on a GPU between two readings, for which the host waits; on the CPU every step is read.
READ_EVERY = 10


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


class _Observed:
    """What steps gave, on their device: sums of their losses, and the first step with a value that is not finite.

    Adding a step does not wait for the device; what is read from here does. From a step that is not finite on, nothing
    is summed.

    Args:
        device: the adapter's.
        step: the first step that will be added.
        sums: of the steps before it since the last measurement.

    Attributes:
        failed: whether a value was not finite, on the device.
    """

    def __init__(self, device: torch.device, step: int, sums: dict[str, float]) -> None:
        self.failed = torch.zeros((), dtype=torch.bool, device=device)
        self._good = torch.zeros((), dtype=torch.int64, device=device)
        self._first, self._names = step, list(sums)
        self._totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=device)
        self._last = torch.zeros_like(self._totals)

    @property
    def sums(self) -> dict[str, float]:
        """What was added since the last :meth:`means`, by name."""
        return dict(zip(self._names, self._totals.tolist(), strict=True))

    def add(self, losses: Losses, norm: torch.Tensor) -> None:
        """A step's losses, and its gradient's norm before clipping."""
        named = losses | {"gradient_norm": norm}
        values = torch.stack([value.detach() for value in named.values()]).double()
        if not self._names:
            self._names, self._totals, self._last = list(named), torch.zeros_like(values), values
        self._last = torch.where(self.failed, self._last, values)
        self.failed = self.failed | ~values.isfinite().all()
        self._totals = self._totals + values.masked_fill(self.failed, 0.0)
        self._good = self._good + ~self.failed

    def failure(self) -> tuple[int, str] | None:
        """The first step with a value that is not finite, and which that is; None if there is none."""
        if not bool(self.failed):
            return None
        values = zip(self._names, self._last.tolist(), strict=True)
        name, value = next((name, value) for name, value in values if not math.isfinite(value))
        return self._first + int(self._good), f"{name.replace('_', ' ')} is {value}"

    def means(self, steps: int) -> dict[str, float]:
        """The mean losses of so many steps, which are all that were added; the next sums begin at zero."""
        means = {f"train_{name}": total / steps for name, total in self.sums.items()}
        self._totals = torch.zeros_like(self._totals)
        return means


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
    budget: TokenBudget | None = None,
) -> list[dict[str, Any]]:
    """Train ``adapter`` in place.

    Args:
        adapter: what is trained, on its device.
        loss_at: the losses of a step; ``loss`` is minimised, the others are logged.
        steps: optimiser steps.
        steps_per_epoch: for the log.
        settings: optimiser and schedule.
        checkpoints: where to continue from and to save to, when one is due and at the end; asked before every step
            whether to stop.
        measure: held-out metrics after so many steps, logged before the first step, every ``measure_every``
            steps, and after the last.
        measure_every: steps between two of those.
        diagnostics: JSONL file for :func:`log_diagnostics`, written anew at every measurement.
        description: of the progress bar.
        budget: of the steps' micro-batches, which a continued run takes up as it was; None if steps have none.

    Returns:
        The diagnostics, one dictionary per measurement.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the state before that step is kept as a
            checkpoint. On a GPU it is noticed up to :data:`READ_EVERY` steps later, which change nothing.
        Stopped: the run was told to stop; the state is kept as a checkpoint.
    """
    device = next(adapter.parameters()).device
    read_every = 1 if device.type == "cpu" else READ_EVERY
    optimiser = make_optimiser(adapter, settings)
    factor = _factor(settings, steps)
    history: list[dict[str, Any]] = []
    sums: dict[str, float] = {}
    start = 0

    def save(step: int) -> None:
        state = {
            "adapter": adapter.state_dict(),
            "optimiser": optimiser.state_dict(),
            "random": random_state(device),
            "history": history,
            "sums": observed.sums,
            "parts": None if budget is None else budget.parts,
        }
        checkpoints.save(step, state)

    def check_finite() -> None:
        if (failure := observed.failure()) is None:
            return
        step, what = failure
        save(step)
        raise FloatingPointError(
            f"{description}: the {what} at step {step}; the state before it is kept in {checkpoints.folder}. "
            "Lower the learning rate or look for bad rows in the embedding table"
        )

    def keep(step: int) -> None:
        check_finite()
        save(step)

    def record(step: int, losses: dict[str, float]) -> None:
        history.append({"step": step, "epoch": step / steps_per_epoch} | losses | measure(step))
        _write_diagnostics(diagnostics, history)

    if (found := checkpoints.load()) is not None:
        start, stored = found
        adapter.load_state_dict(stored["adapter"])
        optimiser.load_state_dict(stored["optimiser"])
        set_random_state(stored["random"], device)
        history, sums = stored["history"], stored["sums"]
        if budget is not None:
            budget.parts = stored["parts"]
        _write_diagnostics(diagnostics, history)
        log.info("%s: continuing at step %d of %d", description, start, steps)
    observed = _Observed(device, start, sums)
    if not history:
        record(0, {})
    bar = tqdm(range(start, steps), desc=description, initial=start, total=steps, unit="step", mininterval=5)
    for step in bar:
        checkpoints.check(partial(keep, step))
        losses = loss_at(step)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(adapter.parameters(), settings.gradient_clip)
        observed.add(losses, norm)
        # What a gradient scaler tells a fused optimiser: 1 on the device, and the step changes nothing.
        optimiser.found_inf = observed.failed.float()  # type: ignore[attr-defined]
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * factor(step)
        optimiser.step()
        done = step + 1
        measured = done % measure_every == 0 or done == steps
        if measured or done % read_every == 0:
            check_finite()
        if measured:
            means = observed.means(done - history[-1]["step"])
            bar.set_postfix(loss=f"{means['train_loss']:.4f}")
            record(done, means)
        if done == steps or checkpoints.due:
            keep(done)
    return history
