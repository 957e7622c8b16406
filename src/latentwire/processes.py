"""Data-parallel training: processes that ``torchrun`` started, each with a share of every step's prompts.

All of them hold the same adapter and take the same steps; sums over prompts are added up between them. The first one
writes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from latentwire.resuming.stopping import Stopped

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes of one run.

    Attributes:
        rank: this process's number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> Processes:
        """Those that ``torchrun`` started, by its environment; otherwise this one alone."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def follows(self) -> bool:
        """Whether another process writes."""
        return self.rank > 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of them; none, if there are fewer than processes."""
        return items[self.rank :: self.count]

    def add(self, *tensors: torch.Tensor) -> None:
        """The sums over all processes, in place, the same bits in all of them.

        Raises:
            Stopped: another process was lost.
        """
        for tensor in tensors:
            self._reduce(tensor, dist.ReduceOp.SUM)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers.

        Raises:
            Stopped: another process was lost.
        """
        numbers = torch.tensor(number)
        self._reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def _reduce(self, tensor: torch.Tensor, how: Any) -> None:
        if self.count == 1:
            return
        try:
            dist.all_reduce(tensor, how)
        except RuntimeError as error:  # the connection's end
            raise Stopped(
                f"another process of this run was lost ({str(error).splitlines()[0]}); the last checkpoint is kept; "
                "rerun the same command to resume"
            ) from error

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While they can speak to each other: over NCCL about what is on GPUs, over Gloo about what is not."""
        if self.count == 1:
            yield
            return
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield
        finally:
            dist.destroy_process_group()

    @contextmanager
    def output(self, folder: Path) -> Iterator[Path]:
        """Where this process writes: ``folder``, or what nobody will see."""
        if not self.follows:
            yield folder
            return
        with tempfile.TemporaryDirectory() as unseen:
            yield Path(unseen)
