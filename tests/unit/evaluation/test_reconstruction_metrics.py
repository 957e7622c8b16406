"""Reconstruction metrics against definitions written out token by token."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.arms import ArmInputs
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.nearest import nearest_rows
from latentwire.evaluation.reconstruction import TRAIN_COUNTS, measure_arms, subset_masks
from latentwire.evaluation.reconstruction_metrics import question_sums, summarise_types, type_errors
from latentwire.evaluation.reconstruction_summary import MEANS, summarise

V, D = 40, 6


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sorted ids, a rebuilt row for each, the table, and a mean."""
    generator = torch.Generator().manual_seed(seed)
    table_VD = torch.randn(V, D, generator=generator) + 0.5
    ids_U = torch.randperm(V, generator=generator)[:25].sort().values
    rebuilt_UD = table_VD[ids_U] + 0.7 * torch.randn(25, D, generator=generator)
    return ids_U, rebuilt_UD, table_VD, table_VD.mean(dim=0)


def drawn_prompts(ids_U: torch.Tensor, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sequences = [rng.choice(ids_U.numpy(), size).astype(np.int32) for size in (7, 1, 30, 12)]
    masks = [rng.random(len(ids)) < 0.6 for ids in sequences]
    masks[1][:] = False  # a question without a single token of the subset
    return sequences, masks


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("seed", range(5))
def test_sums_agree_with_a_loop_over_every_token(seed):
    ids_U, rebuilt_UD, table_VD, mean_D = drawn(seed)
    sequences, masks = drawn_prompts(ids_U, seed)
    found = question_sums(type_errors(ids_U, rebuilt_UD, table_VD, mean_D), ids_U, sequences, masks)
    table, mean = table_VD.double().numpy(), mean_D.double().numpy()
    rebuilt = dict(zip(ids_U.tolist(), rebuilt_UD.double().numpy(), strict=True))
    for question, (ids, mask) in enumerate(zip(sequences, masks, strict=True)):
        expected = dict.fromkeys(found.columns, 0.0)
        for token, counts in zip(ids.tolist(), mask, strict=True):
            if not counts:
                continue
            x, y = table[token], rebuilt[token]
            expected["tokens"] += 1
            expected["squared_error"] += float(((x - y) ** 2).sum())
            expected["squared_deviation"] += float(((x - mean) ** 2).sum())
            expected["cosine"] += cosine(x, y)
            expected["centred_cosine"] += cosine(x - mean, y - mean)
            expected["relative_error"] += float(np.linalg.norm(x - y) / np.linalg.norm(x))
            expected["nearest_token"] += float(((table - y) ** 2).sum(axis=1).argmin() == token)
        for name, value in expected.items():
            assert found.loc[question, name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_predicting_the_mean_leaves_all_variance_unexplained():
    ids_U, _, table_VD, _ = drawn()
    sequences, masks = drawn_prompts(ids_U)
    tokens_N = torch.from_numpy(np.concatenate([ids[mask] for ids, mask in zip(sequences, masks, strict=True)])).long()
    mean_D = table_VD[tokens_N].double().mean(dim=0)
    errors = type_errors(ids_U, mean_D.expand(len(ids_U), -1), table_VD, mean_D)
    summary = summarise(question_sums(errors, ids_U, sequences, masks))
    assert summary is not None
    assert summary["fvu"] == pytest.approx(1, rel=1e-9)
    assert summary["centred_cosine"] == 0


def test_a_perfect_reconstruction_is_perfect():
    ids_U, _, table_VD, mean_D = drawn()
    sequences, masks = drawn_prompts(ids_U)
    errors = type_errors(ids_U, table_VD[ids_U], table_VD, mean_D)
    for summary in (
        summarise(question_sums(errors, ids_U, sequences, masks)),
        summarise_types(errors, np.ones(len(ids_U), dtype=bool)),
    ):
        assert summary is not None
        assert summary["fvu"] == summary["relative_error"] == 0
        assert summary["cosine"] == pytest.approx(1)
        assert summary["centred_cosine"] == pytest.approx(1)
        assert summary["nearest_token"] == 1


def test_counts_weigh_occurrences_and_types_weigh_each_type_once():
    table_VD = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    ids_U, mean_D = torch.tensor([0, 1]), torch.zeros(2)
    rebuilt_UD = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # the first is exact, the second lost
    errors = type_errors(ids_U, rebuilt_UD, table_VD, mean_D)
    sums = question_sums(errors, ids_U, [np.array([0, 0, 0, 1])], [np.ones(4, dtype=bool)])
    by_count, by_type = summarise(sums), summarise_types(errors, np.array([True, True]))
    assert by_count is not None and by_type is not None
    assert (by_count["fvu"], by_count["tokens"]) == (0.25, 4)
    assert (by_type["fvu"], by_type["types"]) == (0.5, 2)
    unseen = summarise_types(errors, np.array([False, True]))
    assert unseen is not None and unseen["fvu"] == 1


def test_the_mean_and_the_scale_of_the_pca_split_are_used_not_the_measured_tokens_own():
    ids_U, rebuilt_UD, table_VD, mean_D = drawn()
    near, far = (type_errors(ids_U, rebuilt_UD, table_VD, mean) for mean in (mean_D, mean_D + 10))
    assert (far.squared_deviation_U > near.squared_deviation_U).all()
    assert np.array_equal(far.squared_error_U, near.squared_error_U)


def test_no_token_no_figure():
    ids_U, rebuilt_UD, table_VD, mean_D = drawn()
    errors = type_errors(ids_U, rebuilt_UD, table_VD, mean_D)
    sequences, masks = drawn_prompts(ids_U)
    assert summarise(question_sums(errors, ids_U, sequences, [mask & False for mask in masks])) is None
    assert summarise_types(errors, np.zeros(len(ids_U), dtype=bool)) is None


def test_every_quantity_has_its_denominator():
    sums = question_sums(type_errors(*drawn()), drawn()[0], *drawn_prompts(drawn()[0]))
    assert set(sums.columns) == {"tokens", "squared_error", "squared_deviation", *MEANS}


def test_a_token_that_was_not_measured_is_an_error_not_its_neighbours_figure():
    ids_U, rebuilt_UD, table_VD, mean_D = drawn()
    errors = type_errors(ids_U, rebuilt_UD, table_VD, mean_D)
    for missing in sorted(set(range(V)) - set(ids_U.tolist())):
        with pytest.raises(KeyError, match=f"token id {missing} "):
            question_sums(errors, ids_U, [np.array([int(ids_U[0]), missing])], [np.ones(2, dtype=bool)])


def test_an_equal_row_counts_as_the_tokens_own():
    table_VD = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    errors = type_errors(torch.tensor([0, 1, 2]), table_VD, table_VD, torch.zeros(2))
    assert errors.nearest_token_U.tolist() == [1, 1, 1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(-5, 5))
def test_the_nearest_row_is_the_brute_force_one(seed, width, offset):
    generator = torch.Generator().manual_seed(seed)
    table_VD = torch.randn(60, width, generator=generator) + offset
    queries_UD = torch.randn(33, width, generator=generator) + offset
    distances_UV = torch.cdist(queries_UD.double(), table_VD.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(nearest_rows(queries_UD, table_VD), distances_UV.argmin(dim=1))


def test_of_equal_rows_the_first_is_nearest_and_no_query_has_no_answer():
    table_VD = torch.tensor([[5.0], [1.0], [1.0]])
    assert nearest_rows(torch.tensor([[1.0], [0.5], [9.0]]), table_VD).tolist() == [1, 1, 0]
    assert nearest_rows(torch.zeros(0, 1), table_VD).tolist() == []


def test_rows_that_differ_in_one_last_bit_are_told_apart():
    """bf16 codes of 512 numbers: float32 scores alone mistake half of such twins for each other."""
    generator = torch.Generator().manual_seed(0)
    codes_VK = (3 * torch.randn(200, 512, generator=generator)).bfloat16()
    twins_VK = codes_VK.clone()
    rows, smallest = torch.arange(200), codes_VK.float().abs().argmin(dim=1)
    twins_VK[rows, smallest] = torch.nextafter(codes_VK[rows, smallest], torch.tensor(torch.inf).bfloat16())
    table_VK = torch.cat([codes_VK, twins_VK])
    assert torch.equal(nearest_rows(table_VK, table_VK), torch.arange(400))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40))
def test_every_token_is_unseen_or_in_one_bucket_of_training_counts(counts):
    prompts = pd.DataFrame({"input_ids": [np.arange(len(counts))], "answer_mask": [np.zeros(len(counts), dtype=bool)]})
    masks = {name: own[0] for name, own in subset_masks(prompts, np.array(counts)).items()}
    buckets = [masks["unseen"], *(masks[name] for name in TRAIN_COUNTS)]
    assert (np.sum(buckets, axis=0) == 1).all()
    assert (masks["seen"] == ~masks["unseen"]).all()
    assert [count for count, rare in zip(counts, masks["1-9"], strict=True) if rare] == [
        c for c in counts if 0 < c < 10
    ]


@pytest.mark.parametrize("smoothing", [0.0, 50.0])
def test_smoothing_of_the_compressor_moves_no_yardstick(smoothing):
    """The variance that counts is that around the mean of the PCA split's own occurrences."""
    ids_U, _, table_VD, _ = drawn()
    sequences, masks = drawn_prompts(ids_U)
    counts_V = torch.from_numpy(np.bincount(np.concatenate(sequences), minlength=V))
    codec = LinearCodec.of(EmbeddingCompressor(D, 2).fit(table_VD, counts_V, smoothing), table_VD)
    prompts = pd.DataFrame({"id": list("abcd"), "article": list("xxyy"), "input_ids": sequences, "answer_mask": masks})
    inputs = {"pca": ArmInputs(table_VD, counts_V, codec)}
    sums, _ = measure_arms(inputs, prompts, counts_V.numpy())
    occurrences_ND = table_VD.double()[np.concatenate(sequences)]
    expected = float((occurrences_ND - occurrences_ND.mean(dim=0)).square().sum())
    assert sums[sums["subset"] == "all"]["squared_deviation"].sum() == pytest.approx(expected, rel=1e-9)
