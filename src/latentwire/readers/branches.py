"""Several questions behind one shared context: the context is read once, each question branches off it.

A branch attends to the shared beginning and to itself, and continues the beginning's positions. That is the
computation of one sequence per question, at the cost of one context.

Shape suffixes: B batch, L length, N answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

import torch

IGNORED = -100
PADDING = -1


def branch_mask(branch_BL: torch.Tensor) -> torch.Tensor:
    """Causal attention within a branch and to branch 0, boolean ``[B, 1, L, L]``; padding attends to itself."""
    length = branch_BL.shape[1]
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=branch_BL.device).tril()
    key_B1L, query_BL1 = branch_BL[:, None, :], branch_BL[:, :, None]
    visible_BLL = causal_LL & (((key_B1L == 0) & (query_BL1 > PADDING)) | (key_B1L == query_BL1))
    return visible_BLL[:, None]


@dataclass(frozen=True)
class Branched:
    """Prompts with a common beginning as one sequence ``[L]``, or a padded batch of such ``[B, L]``.

    Attributes:
        ids_L: the beginning, then each prompt's rest and answer.
        positions_L: of each token in its own prompt.
        branch_L: 0 in the beginning, the prompt's number from 1 in its branch.
        labels_L: the next token if that is an answer's, else ``IGNORED``.
    """

    ids_L: torch.Tensor
    positions_L: torch.Tensor
    branch_L: torch.Tensor
    labels_L: torch.Tensor


def padded(sequences: Sequence[Branched]) -> Branched:
    """Sequences as one batch, padded on the right: the same columns, each ``[B, L]``."""
    columns = [
        torch.nn.utils.rnn.pad_sequence([getattr(s, name) for s in sequences], batch_first=True, padding_value=blank)
        for name, blank in (("ids_L", 0), ("positions_L", 0), ("branch_L", PADDING), ("labels_L", IGNORED))
    ]
    return Branched(*columns)


def branched(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Branched:
    """Prompts and their answers, as token ids, behind the prompts' common beginning.

    Args:
        prompts: none of them is empty, nor the whole beginning of another.
        answers: tokens to be predicted after each prompt, the end of turn among them.
    """
    # The last token stays in the branch: it predicts the answer's first.
    shared = len(commonprefix([list(prompt[:-1]) for prompt in prompts]))
    ids, positions = list(prompts[0][:shared]), list(range(shared))
    branch, labels = [0] * shared, [IGNORED] * shared
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), start=1):
        rest = [*prompt[shared:], *answer]
        ids += rest
        positions += range(shared, shared + len(rest))
        branch += [number] * len(rest)
        labels += [IGNORED] * (len(prompt) - shared - 1) + [*answer, IGNORED]
    return Branched(*(torch.tensor(column) for column in (ids, positions, branch, labels)))
