"""Steps that fit into memory: the same loss and gradient in parts, and with activations that are computed again."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from latentwire.errors import InputError
from latentwire.packing import prompt_batch
from latentwire.processes import Processes
from latentwire.training import memory
from latentwire.training.memory import LossInParts, checkpoint_activations, micro_batches
from latentwire.training.phase2 import PromptScorer


def cross_entropy_of(model, sequences, label_masks):
    """A loss over prompts as Phase 2 adds it up, from rows of the whole table."""
    scorer = PromptScorer(model)
    labels = sum(int(mask[1:].sum()) for mask in label_masks)

    def loss_of(rows_VD, prompts):
        batch = prompt_batch([sequences[i] for i in prompts], [label_masks[i] for i in prompts])
        return scorer.cross_entropy(rows_VD[batch.ids_BL], batch, "sum") / labels

    return loss_of


@pytest.fixture
def table_VD(tiny_model):
    return tiny_model().get_input_embeddings().weight.detach().double()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_a_loss_in_parts_has_the_value_and_the_gradient_of_the_whole(
    parts, table_VD, tiny_model, sequences, label_masks, monkeypatch
):
    monkeypatch.setattr(memory, "MICRO_BATCH_TOKENS", sum(map(len, sequences[:7])))
    loss_of = cross_entropy_of(tiny_model(dtype=torch.float64), sequences[:7], label_masks[:7])
    whole_VD, parted_VD = table_VD.clone().requires_grad_(), table_VD.clone().requires_grad_()
    whole = loss_of(whole_VD, range(7))
    (3 * whole).backward()
    in_parts = LossInParts(Processes(), [len(ids) for ids in sequences[:7]])
    in_parts.budget.parts = parts
    found = in_parts(parted_VD, range(7), loss_of)
    (3 * found).backward()
    torch.testing.assert_close(found, whole.detach().to(found), rtol=1e-6, atol=0)
    torch.testing.assert_close(parted_VD.grad, whole_VD.grad, rtol=1e-5, atol=1e-7)  # the head's is float32


class Scarce:
    """A loss for which memory suffices if no more than so many prompts are read at once."""

    def __init__(self, most):
        self.most, self.read = most, []

    def __call__(self, rows_UD, prompts):
        self.read.append(list(prompts))
        if len(prompts) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rows_UD[list(prompts)].square().sum()


def test_out_of_memory_halves_micro_batches_for_the_rest_of_the_run_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(memory, "MICRO_BATCH_TOKENS", 40)
    rows_UD, loss_of, in_parts = torch.ones(8, 3, requires_grad=True), Scarce(2), LossInParts(Processes(), [5] * 8)
    with caplog.at_level(logging.WARNING):
        loss = in_parts(rows_UD, range(8), loss_of)
    loss.backward()
    assert loss == 24 and torch.equal(rows_UD.grad, torch.full((8, 3), 2.0))
    assert in_parts.budget.parts == 4 and "micro-batches have at most 10 tokens from now on" in caplog.messages[-1]
    loss_of.read.clear()
    in_parts(rows_UD, range(8), loss_of)
    assert loss_of.read == [[0, 1], [2, 3], [4, 5], [6, 7]]
    loss_of.read.clear()
    in_parts(rows_UD, range(2), loss_of)
    assert loss_of.read == [[0, 1]], "a step that fits is not cut"


def test_one_prompt_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        LossInParts(Processes(), [5, 7, 3])(torch.ones(3, 3, requires_grad=True), range(3), Scarce(0))


def test_a_step_is_cut_by_tokens_so_that_its_batch_may_be_as_large_as_the_plan_asks(monkeypatch):
    monkeypatch.setattr(memory, "MICRO_BATCH_TOKENS", 100)
    loss_of, rows_UD = Scarce(8), torch.ones(6, 3, requires_grad=True)
    loss = LossInParts(Processes(), [60, 40, 30, 120, 10, 10])(rows_UD, range(6), loss_of)
    loss.backward()
    assert loss_of.read == [[0, 1], [2], [3], [4, 5]]
    assert loss == 18 and torch.equal(rows_UD.grad, torch.full((6, 3), 2.0))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_micro_batches_hold_every_prompt_once_within_the_budget(lengths, budget):
    batches = micro_batches(range(len(lengths)), lengths, budget)
    assert [prompt for batch in batches for prompt in batch] == list(range(len(lengths)))
    tokens = [sum(lengths[prompt] for prompt in batch) for batch in batches]
    assert all(total <= budget or len(batch) == 1 for total, batch in zip(tokens, batches, strict=True))
    firsts = [lengths[batch[0]] for batch in batches[1:]]
    assert all(total + first > budget for total, first in zip(tokens, firsts, strict=False)), "none is cut too early"


def saved_bytes(run):
    """The bytes that a forward pass keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda own: kept.append(own.nbytes) or own, lambda own: own):
        loss = run()
    loss.backward()
    return sum(kept)


def test_with_activation_checkpointing_a_step_keeps_less_and_has_the_same_bits(
    table_VD, tiny_model, sequences, label_masks
):
    found = []
    for checkpointing in (False, True):
        model, rows_VD = tiny_model(num_hidden_layers=4), table_VD.float().requires_grad_()
        if checkpointing:
            checkpoint_activations(model)
        loss_of = cross_entropy_of(model, sequences, label_masks)
        kept = saved_bytes(lambda loss_of=loss_of, rows_VD=rows_VD: loss_of(rows_VD, range(4)))
        found.append((rows_VD.grad, kept))
    (expected_VD, much), (gradient_VD, little) = found
    assert torch.equal(gradient_VD, expected_VD)
    assert little < 0.3 * much


def test_a_model_without_known_layers_is_refused():
    with pytest.raises(InputError, match=r"Linear names no layers.*phase2\.activation_checkpointing to false"):
        checkpoint_activations(nn.Linear(2, 2))
