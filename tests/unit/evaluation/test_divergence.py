"""Distributions over the vocabulary exist for a block of positions at a time, and the measures don't depend on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentwire.evaluation import divergence
from latentwire.evaluation.divergence import SUMS, DivergenceReader, forced_prompts

POSITIONS = 1100


class MostPositions(TorchDispatchMode):
    """Remembers of how many positions an operation returned something for every token of the vocabulary, at most."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.positions = vocabulary, 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = operation(*args, **(kwargs or {}))
        tensors = [own for own in tree_leaves(found) if isinstance(own, torch.Tensor) and self.vocabulary in own.shape]
        self.positions = max(self.positions, *(own.numel() // self.vocabulary for own in tensors), 0)
        return found


@pytest.fixture(scope="module")
def reader(tiny_model) -> DivergenceReader:
    return DivergenceReader(tiny_model())


@pytest.fixture(scope="module")
def states(reader: DivergenceReader) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Hidden states of the text and of arms, and the tokens that come."""
    generator = torch.Generator().manual_seed(0)
    vocabulary, width = reader.head.weight.shape
    # As wide as the model's distributions are peaked.
    text_ND = torch.randn(POSITIONS, width, generator=generator) * 2
    arms_ND = [text_ND + noise * torch.randn(text_ND.shape, generator=generator) for noise in (0.1, 0.5)]
    return text_ND, arms_ND, torch.randint(vocabulary, (POSITIONS,), generator=generator)


def test_logits_never_stand_whole(reader: DivergenceReader, prompts, tokenizer):
    """256 positions of 128,256 tokens are 131 MB in float32; a batch of prompts has thousands."""
    batch = forced_prompts(prompts, tokenizer, 10**6)
    labels_N = torch.from_numpy(np.concatenate([one.ids[one.predicted] for one in batch]))
    with MostPositions(len(reader.head.weight)) as most:
        text_ND = reader.hidden(batch)
        reader.compare(text_ND, [text_ND, 1.1 * text_ND], labels_N)
    assert len(labels_N) > 1000 and most.positions == 256


@pytest.mark.parametrize("block", [1, 7, 256, POSITIONS])
def test_the_measures_are_float64s_at_any_block(reader: DivergenceReader, states, monkeypatch, block: int):
    text_ND, arms_ND, labels_N = states
    weight_VD = reader.head.weight.detach().double()
    text_NV = (text_ND.double() @ weight_VD.T).log_softmax(dim=1)
    monkeypatch.setattr(divergence, "BLOCK_POSITIONS", block)
    for found, arm_ND in zip(reader.compare(text_ND, arms_ND, labels_N), arms_ND, strict=True):
        arm_NV = (arm_ND.double() @ weight_VD.T).log_softmax(dim=1)
        expected = {
            "kl": torch.nn.functional.kl_div(arm_NV, text_NV, reduction="none", log_target=True).sum(dim=1),
            "same_top": (arm_NV.argmax(dim=1) == text_NV.argmax(dim=1)).double(),
            "log_likelihood": arm_NV.gather(1, labels_N[:, None]).squeeze(1),
            "log_likelihood_text": text_NV.gather(1, labels_N[:, None]).squeeze(1),
        }
        assert tuple(found) == SUMS == tuple(expected)
        for name, expected_N in expected.items():
            assert found[name].dtype == np.float64
            np.testing.assert_allclose(found[name], expected_N.numpy(), rtol=1e-5, atol=5e-6, err_msg=name)
