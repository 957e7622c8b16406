"""PCA on a table and its counts is scikit-learn's exact PCA on every gathered occurrence."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from preloaded import preloaded_python
from sklearn.decomposition import PCA

from latentwire.compression.counts import fitting_weights
from latentwire.compression.pca import UPDATE_ROWS, fit_pca, leading_eigenpairs, weighted_moments


def drawn_table(seed: int, rows: int, width: int, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A table with a decaying spectrum, and Zipf-like counts of which some are zero."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(width, width)))
    table = rng.normal(size=(rows, width)) * 0.7 ** np.arange(width) @ axes.T + offset
    counts = rng.zipf(1.7, rows).clip(max=40) * (rng.random(rows) < 0.8)
    counts[: width + 2] = counts[: width + 2].clip(min=1)  # enough unique rows for every number of components
    return torch.from_numpy(table).float(), torch.from_numpy(counts).long()


def gathered(table_VD: torch.Tensor, counts_V: torch.Tensor) -> np.ndarray:
    return table_VD.double().repeat_interleave(counts_V, dim=0).numpy()


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(12, 80), width=st.integers(2, 10), offset=st.floats(-3, 3))
def test_it_agrees_with_scikit_learn_on_gathered_occurrences(seed, rows, width, offset):
    table_VD, counts_V = drawn_table(seed, rows, width, offset)
    k = min(4, width)
    ours = fit_pca(table_VD, counts_V, k)
    theirs = PCA(n_components=k, svd_solver="full").fit(gathered(table_VD, counts_V))
    np.testing.assert_allclose(ours.mean_D, theirs.mean_, atol=1e-12, rtol=1e-12)
    # Rows are rounded to float32 after centring: 2⁻²⁴ relative, a few times that after the sums.
    np.testing.assert_allclose(ours.spectrum_D[:k], theirs.explained_variance_, rtol=1e-5)
    kept = [ours.explained_variance_ratio(i + 1) for i in range(k)]
    np.testing.assert_allclose(kept, np.cumsum(theirs.explained_variance_ratio_), rtol=1e-5)
    gaps = -np.diff(ours.spectrum_D.numpy()) / ours.spectrum_D.numpy()[:-1]
    for index in range(k):
        nearest = min(gaps[index], gaps[index - 1] if index else np.inf) if index < width - 1 else gaps[-1]
        cosine = abs(float(ours.components_KD[index].numpy() @ theirs.components_[index]))
        # Axes of nearly equal eigenvalues are any axes of their plane (Davis and Kahan 1970).
        assert cosine > 1 - (1e-5 / nearest) ** 2 - 1e-9


def test_the_ratio_is_over_the_total_variance_not_over_the_kept_one():
    table_VD, counts_V = drawn_table(0, 60, 10)
    fit = fit_pca(table_VD, counts_V, 3)
    total = gathered(table_VD, counts_V).var(axis=0, ddof=1).sum()
    assert fit.total_variance == pytest.approx(total, rel=1e-6)
    assert fit.explained_variance_ratio(3) == pytest.approx(float(fit.spectrum_D[:3].sum()) / total, rel=1e-6)
    assert fit.explained_variance_ratio(3) < 0.99
    assert fit.explained_variance_ratio(10) == pytest.approx(1)


@given(seed=st.integers(0, 2**32 - 1))
def test_components_are_orthonormal_and_their_largest_entry_is_positive(seed):
    table_VD, counts_V = drawn_table(seed, 40, 8)
    components_KD = fit_pca(table_VD, counts_V, 5).components_KD
    torch.testing.assert_close(components_KD @ components_KD.T, torch.eye(5, dtype=torch.float64))
    largest = components_KD.abs().argmax(dim=1, keepdim=True)
    assert (components_KD.gather(1, largest) > 0).all()


def test_a_mirrored_table_has_the_same_axes():
    table_VD, counts_V = drawn_table(1, 60, 8)
    there, mirrored = fit_pca(table_VD, counts_V, 8), fit_pca(-table_VD, counts_V, 8)
    torch.testing.assert_close(there.components_KD, mirrored.components_KD)


def test_fewer_components_are_the_first_ones_of_more():
    table_VD, counts_V = drawn_table(2, 60, 8)
    few, many = fit_pca(table_VD, counts_V, 3), fit_pca(table_VD, counts_V, 7)
    torch.testing.assert_close(few.components_KD, many.components_KD[:3], rtol=0, atol=1e-13)
    assert torch.equal(few.spectrum_D, many.spectrum_D)


@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 40), data=st.data())
def test_the_leading_eigenpairs_are_those_of_a_full_decomposition(seed, width, data):
    """To a few roundings of the largest eigenvalue; ranks below D and repeated eigenvalues included."""
    rng = np.random.default_rng(seed)
    rank, k = data.draw(st.integers(1, width)), data.draw(st.integers(1, width))
    axes_DR, _ = np.linalg.qr(rng.normal(size=(width, rank)))
    eigenvalues_R = rng.integers(1, 4, rank).astype(float) if data.draw(st.booleans()) else rng.exponential(size=rank)
    symmetric_DD = (axes_DR * eigenvalues_R) @ axes_DR.T
    tolerance = 1e-13 * width * eigenvalues_R.max()
    values_D, vectors_DK = leading_eigenpairs(np.array(symmetric_DD, order="F"), k)
    np.testing.assert_allclose(values_D, scipy.linalg.eigvalsh(symmetric_DD), atol=tolerance, rtol=0)
    np.testing.assert_allclose(symmetric_DD @ vectors_DK, vectors_DK * values_D[width - k :], atol=tolerance, rtol=0)
    np.testing.assert_allclose(vectors_DK.T @ vectors_DK, np.eye(k), atol=1e-13 * width)


@pytest.mark.parametrize(
    ("offset", "dtype"),
    [
        (0.0, torch.float32),
        (100.0, torch.float32),
        (10_000.0, torch.float32),
        (0.0, torch.bfloat16),
        (100.0, torch.bfloat16),
        (1e9, torch.float64),
    ],
)
def test_the_blocked_float32_covariance_agrees_with_float64_also_far_from_the_origin(offset, dtype):
    """To 1e-6 of the largest variance; uncentred float32 sums would be wrong in the first digit."""
    rng = np.random.default_rng(0)
    table_VD = torch.from_numpy(rng.normal(size=(UPDATE_ROWS + 500, 6)) + offset).to(dtype)
    counts_V = torch.from_numpy(rng.integers(0, 30, len(table_VD)))
    moments = weighted_moments(table_VD, counts_V)
    rows_ND = gathered(table_VD, counts_V)
    np.testing.assert_allclose(moments.mean_D, rows_ND.mean(axis=0), rtol=1e-12)
    reference_DD = np.cov(rows_ND, rowvar=False)
    np.testing.assert_allclose(moments.covariance_DD, reference_DD, rtol=0, atol=1e-6 * reference_DD.max())


@given(seed=st.integers(0, 2**32 - 1), smoothing=st.floats(0.01, 5))
def test_smoothing_adds_that_many_occurrences_to_every_row(seed, smoothing):
    """Against the definition in float64."""
    table_VD, counts_V = drawn_table(seed, 40, 5)
    moments = weighted_moments(table_VD, counts_V, smoothing)
    weights_V = counts_V.double().numpy() + smoothing
    mean_D = np.average(table_VD.double().numpy(), axis=0, weights=weights_V)
    np.testing.assert_allclose(moments.mean_D, mean_D, atol=1e-12)
    centred_VD = table_VD.double().numpy() - mean_D
    reference_DD = (centred_VD.T * weights_V) @ centred_VD / (weights_V.sum() - 1)
    np.testing.assert_allclose(moments.covariance_DD, reference_DD, rtol=0, atol=1e-6 * reference_DD.max())


@pytest.mark.parametrize("smoothing", [-0.1, float("nan"), float("inf")])
def test_smoothing_that_is_no_number_of_occurrences_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing .* must be a finite number"):
        weighted_moments(*drawn_table(0, 40, 5), smoothing)


def test_smoothing_by_one_is_one_more_occurrence_of_every_row():
    table_VD, counts_V = drawn_table(3, 40, 6)
    smoothed, counted = fit_pca(table_VD, counts_V, 3, smoothing=1), fit_pca(table_VD, counts_V + 1, 3)
    torch.testing.assert_close(smoothed.components_KD, counted.components_KD)
    torch.testing.assert_close(smoothed.spectrum_D, counted.spectrum_D)


@pytest.mark.parametrize(("weighting", "power"), [("root", 0.5), ("type", 0.0)])
def test_other_weights_than_counts_against_the_weighted_covariance_of_numpy(weighting, power):
    table_VD, counts_V = drawn_table(6, 60, 5)
    found = fit_pca(table_VD, fitting_weights(counts_V, weighting), 5)
    weights_V = (counts_V.double().numpy() + 1) ** power
    reference_DD = np.cov(table_VD.double().numpy().T, aweights=weights_V, ddof=0)
    axes_KD = found.components_KD.numpy()
    rebuilt_DD = axes_KD.T * found.spectrum_D.numpy() @ axes_KD
    factor = weights_V.sum() / (weights_V.sum() - 1)
    np.testing.assert_allclose(rebuilt_DD, factor * reference_DD, atol=1e-6 * reference_DD.max())


def test_by_type_it_is_the_pca_of_scikit_learn_on_the_tables_rows():
    table_VD, counts_V = drawn_table(7, 60, 5)
    found = fit_pca(table_VD, fitting_weights(counts_V, "type"), 5)
    expected = PCA().fit(table_VD.double().numpy())
    np.testing.assert_allclose(found.spectrum_D, expected.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(np.abs(found.components_KD @ expected.components_.T), np.eye(5), atol=1e-4)


def test_rows_that_never_occur_are_not_read():
    table_VD, counts_V = drawn_table(3, 30, 4)
    expected = fit_pca(table_VD, counts_V, 4)
    table_VD[counts_V == 0] = torch.nan
    found = fit_pca(table_VD, counts_V, 4)
    assert torch.equal(found.components_KD, expected.components_KD)
    assert torch.equal(found.spectrum_D, expected.spectrum_D)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_occurring_row_that_is_not_finite_is_named(value):
    table_VD, counts_V = drawn_table(4, 30, 4)
    counts_V[17] = 2
    table_VD[17, 2] = value
    with pytest.raises(FloatingPointError, match="row 17 "):
        fit_pca(table_VD, counts_V, 2)


def test_more_components_than_dimensions_are_refused():
    table_VD, counts_V = drawn_table(5, 30, 4)
    with pytest.raises(ValueError, match="compress_dim 5 .* dimension 4"):
        fit_pca(table_VD, counts_V, 5)
    with pytest.raises(ValueError, match="compress_dim 0"):
        fit_pca(table_VD, counts_V, 0)


def test_more_components_than_unique_tokens_allow_are_refused_with_the_way_out():
    table_VD, counts_V = drawn_table(6, 30, 8)
    counts_V[6:] = 0
    assert fit_pca(table_VD, counts_V, 5).components_KD.shape == (5, 8)
    with pytest.raises(ValueError, match=r"compress_dim 6 needs at least 7 unique tokens.* has 6.*raise pca.samples"):
        fit_pca(table_VD, counts_V, 6)


@pytest.mark.parametrize(
    ("counts_V", "message"),
    [
        (torch.ones(4, dtype=torch.int64), "expected table"),
        (torch.tensor([1, 0, 0]), "at least two token occurrences, got 1"),
        (torch.tensor([3, -1, 2]), "row 1 "),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts_V, message):
    with pytest.raises(ValueError, match=message):
        weighted_moments(torch.randn(3, 2), counts_V)


PEAK = """
import sys, torch
from latentwire.compression.pca import fit_pca, weighted_moments
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
rows, width, smoothing, copy = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "copy"
# Without a float32 table on the way, which would hide what the fit takes.
table = torch.empty(rows, width, dtype=torch.bfloat16).normal_()
counts = torch.arange(rows) % 3
fit_pca(table[:64, :32], counts[:64], 8)
before = peak()
weighted_moments(table, counts)
fit_pca(table.float() if copy else table, counts, 8, smoothing)
print((peak() - before) / 2**20)
"""


def peak_above_table(rows: int, width: int, smoothing: float = 0.0, what: str = "table") -> float:
    """MiB that a fit takes beside its table, in a process of its own."""
    command = [preloaded_python(), "-c", PEAK, str(rows), str(width), str(smoothing), what]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_its_memory_does_not_grow_with_the_unique_tokens():
    few, many = peak_above_table(20_000, 512), peak_above_table(200_000, 512)
    assert many - few < 50
    # So the measure sees a float32 copy of the rows.
    assert peak_above_table(200_000, 512, what="copy") - many > 300


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")
def test_at_llamas_width_it_takes_less_than_a_gibibyte_beside_the_table():
    assert peak_above_table(16_000, 4096, smoothing=1) < 1024
