"""Runs of prompts that begin alike, and batches that hold one after another."""

import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latentwire.evaluation import prefixes
from latentwire.evaluation.prefixes import PrefixRuns, batches_by_prefix, prefix_runs

# Few letters and short prompts: many begin alike.
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(np.array), min_size=1, max_size=20)


@given(PROMPTS)
def test_a_run_shares_its_prefix_and_leaves_each_prompt_a_token(prompts):
    runs = prefix_runs(prompts)
    assert runs.run_of[0] == 0 and set(np.diff(runs.run_of)) <= {0, 1}
    assert [runs.run_of[start] for start in runs.starts] == list(range(len(runs.shared)))
    for run, shared in enumerate(runs.shared):
        members = [ids.tolist() for ids, owner in zip(prompts, runs.run_of, strict=True) if owner == run]
        assert all(ids[:shared] == members[0][:shared] and len(ids) > shared for ids in members)
        # Nothing longer would do.
        assert shared == min(len(os.path.commonprefix(members)), *(len(ids) - 1 for ids in members), 99)


def test_a_prompt_joins_a_run_with_half_of_its_tokens():
    first = np.arange(10)
    assert prefix_runs([first, np.array([0, 1, 2, 3, 4, 9, 9, 9])]) == PrefixRuns([0, 0], [5])
    assert prefix_runs([first, np.array([0, 1, 2, 3, 9, 9, 9, 9, 9])]) == PrefixRuns([0, 1], [9, 8])
    # A short one does not take from longer ones what they share.
    assert prefix_runs([first, first, np.array([0, 1, 9])]) == PrefixRuns([0, 0, 1], [9, 2])


def test_sharing_saves_where_it_is_fewer_tokens_with_padding():
    context = np.arange(50)
    questions = [np.concatenate([context, np.full(length, 99 + length)]) for length in (3, 4, 5)]
    assert prefix_runs(questions).saves([53, 54, 55])  # 50 + 3 * 5 against 3 * 55
    strangers = [context, context + 50]
    assert not prefix_runs(strangers).saves([50, 50])  # 2 * 49 + 2 * 1 is no less than 2 * 50


@given(PROMPTS, st.integers(1, 7))
def test_batches_cover_every_prompt_once_and_hold_run_after_run(prompts, batch_size):
    batches = batches_by_prefix(prompts, batch_size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(prompts)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert batches == batches_by_prefix(prompts, batch_size)
    # Sorted by their bytes, prompts that begin alike are neighbours, and stay so in the batches.
    alike = sorted(range(len(prompts)), key=lambda index: (prompts[index].tobytes(), index))
    run_of = dict(zip(alike, prefix_runs([prompts[index] for index in alike]).run_of, strict=True))
    owners = [run_of[index] for index in flat]
    assert sum(a != b for a, b in zip(owners, owners[1:], strict=False)) == len(set(owners)) - 1


def test_prompts_that_share_nothing_are_batched_by_length():
    prompts = [np.full(length, length) for length in (5, 2, 9, 7, 1)]
    assert batches_by_prefix(prompts, 2) == [[4, 1], [0, 3], [2]]


def test_a_batch_of_long_prompts_holds_fewer(monkeypatch):
    monkeypatch.setattr(prefixes, "BATCH_TOKENS", 100)
    prompts = [np.full(length, length) for length in (10, 20, 30, 40, 45, 90, 200)]
    batches = batches_by_prefix(prompts, 4)
    assert batches == [[0, 1, 2], [3, 4], [5], [6]]
