"""Prompts that begin alike: questions about one paragraph repeat its context.

Neighbours are grouped into runs by their token ids alone, so every arm shares the same prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Keys and values of so many tokens of Llama-3.1-8B take 16 GiB.
BATCH_TOKENS = 2**17


@dataclass(frozen=True)
class PrefixRuns:
    """Neighbouring prompts in runs.

    Attributes:
        run_of: for each prompt the number of its run, ascending.
        shared: for each run the length of the prefix that its prompts share, in tokens; the last token of a prompt is
            never in it.
    """

    run_of: list[int]
    shared: list[int]

    @property
    def starts(self) -> list[int]:
        """The first prompt of each run."""
        return [self.run_of.index(run) for run in range(len(self.shared))]

    def saves(self, lengths: Sequence[int]) -> bool:
        """Whether reading shared prefixes once takes fewer tokens than reading every prompt, padding included."""
        suffix = max(length - self.shared[run] for length, run in zip(lengths, self.run_of, strict=True))
        return len(self.shared) * max(self.shared) + len(lengths) * suffix < len(lengths) * max(lengths)


def prefix_runs(prompts: Sequence[np.ndarray]) -> PrefixRuns:
    """Runs of neighbours that share half of each prompt or more."""
    run_of: list[int] = []
    shared: list[int] = []
    first, longest = np.array([]), 0
    for prompt in prompts:
        common = _common(first[: shared[-1]], prompt[:-1]) if shared else 0
        if shared and 2 * common >= max(longest, len(prompt)):
            shared[-1], longest = common, max(longest, len(prompt))
        else:
            first, longest = prompt, len(prompt)
            shared.append(len(prompt) - 1)
        run_of.append(len(shared) - 1)
    return PrefixRuns(run_of, shared)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def batches_by_prefix(prompts: Sequence[np.ndarray], batch_size: int) -> list[list[int]]:
    """Indices in batches, run after run in the order of their length; a batch that is full cuts a run.

    A batch is full at ``batch_size`` prompts, or at :data:`BATCH_TOKENS` with padding. Batches are formed before any
    sharding, so that shards take whole batches.
    """
    # Equal prefixes are neighbours in the order of the bytes, whatever their order among others.
    alike = sorted(range(len(prompts)), key=lambda index: (prompts[index].tobytes(), index))
    run_of = prefix_runs([prompts[index] for index in alike]).run_of
    runs: dict[int, list[int]] = {}
    for index, run in zip(alike, run_of, strict=True):
        runs.setdefault(run, []).append(index)
    by_length = sorted(runs.values(), key=lambda run: (max(len(prompts[index]) for index in run), run))
    batches: list[list[int]] = []
    longest = 0
    for index in (index for run in by_length for index in run):
        longest = max(longest, len(prompts[index]))
        if not batches or len(batches[-1]) == batch_size or (len(batches[-1]) + 1) * longest > BATCH_TOKENS:
            batches.append([])
            longest = len(prompts[index])
        batches[-1].append(index)
    return batches
