"""The compressor: scikit-learn's PCA in a standardised space, its linear inverse, and its file."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor

V, D, K = 300, 16, 5


@pytest.fixture
def table_VD() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(V, D, generator=generator) * 0.8 ** torch.arange(D)
    return 0.01 * mixed @ torch.linalg.qr(torch.randn(D, D, generator=generator)).Q + 0.02


@pytest.fixture
def counts_V() -> torch.Tensor:
    return torch.randint(0, 9, (V,), generator=torch.Generator().manual_seed(1))


def test_the_interface_that_the_plan_names():
    x = torch.randn(1000, 128)
    compressor = EmbeddingCompressor(input_dim=128, output_dim=32, method="pca").fit(x)
    assert compressor.compress(x[:100]).shape == (100, 32)


def test_leading_axes_are_kept_and_count_as_rows(table_VD):
    flat = EmbeddingCompressor(D, K).fit(table_VD)
    batched = EmbeddingCompressor(D, K).fit(table_VD.reshape(3, V // 3, D))
    assert torch.equal(flat.components_KD, batched.components_KD)
    codes = flat.compress(table_VD.reshape(3, V // 3, D))
    assert codes.shape == (3, V // 3, K)
    assert flat.decompress(codes).shape == (3, V // 3, D)


def test_codes_and_inverse_are_scikit_learns_up_to_the_scale(table_VD, counts_V):
    compressor = EmbeddingCompressor(D, K).fit(table_VD, counts_V)
    rows = table_VD.repeat_interleave(counts_V, dim=0).double().numpy()
    reference = PCA(n_components=K, svd_solver="full").fit(rows)
    x = table_VD.double().numpy()
    sign = np.sign((reference.components_ * compressor.components_KD.numpy()).sum(axis=1))
    expected = reference.transform(x) * sign / float(compressor.scale)
    np.testing.assert_allclose(compressor.compress(table_VD), expected, atol=1e-4)
    inverse = reference.inverse_transform(reference.transform(x))
    np.testing.assert_allclose(compressor.decompress(compressor.compress(table_VD)), inverse, atol=1e-6)
    assert compressor.explained_variance_ratio == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-5)


def test_in_the_standardised_space_a_dimension_has_mean_0_and_variance_1_on_average(table_VD, counts_V):
    compressor = EmbeddingCompressor(D, K).fit(table_VD, counts_V)
    rows = table_VD.repeat_interleave(counts_V, dim=0)
    standardised = compressor.standardise(rows).double()
    torch.testing.assert_close(standardised.mean(dim=0), torch.zeros(D, dtype=torch.float64), atol=1e-5, rtol=0)
    assert float(standardised.var(dim=0).mean()) == pytest.approx(1, rel=1e-5)


def test_the_codes_standard_deviations_are_known(table_VD, counts_V):
    for method in ("pca", "random"):
        compressor = EmbeddingCompressor(D, K, method).fit(table_VD, counts_V)
        codes = compressor.compress(table_VD.repeat_interleave(counts_V, dim=0))
        torch.testing.assert_close(codes.std(dim=0), compressor.code_std_K, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_take_the_dtype_of_the_table_and_the_inverse_is_float32(table_VD, dtype):
    compressor = EmbeddingCompressor(D, K).fit(table_VD.to(dtype))
    codes = compressor.compress(table_VD.to(dtype))
    assert codes.dtype == dtype
    assert compressor.decompress(codes).dtype == torch.float32


def test_random_axes_are_orthonormal_seeded_and_worse_than_pca(table_VD):
    pca = EmbeddingCompressor(D, K).fit(table_VD)
    first = EmbeddingCompressor(D, K, "random", seed=1).fit(table_VD)
    again = EmbeddingCompressor(D, K, "random", seed=1).fit(table_VD)
    other = EmbeddingCompressor(D, K, "random", seed=2).fit(table_VD)
    torch.testing.assert_close(first.components_KD @ first.components_KD.T, torch.eye(K), atol=1e-6, rtol=0)
    assert torch.equal(first.components_KD, again.components_KD)
    assert not torch.equal(first.components_KD, other.components_KD)
    assert first.explained_variance_ratio < pca.explained_variance_ratio


@pytest.mark.parametrize("method", ["pca", "random"])
def test_the_explained_share_is_what_the_inverse_keeps(table_VD, counts_V, method):
    compressor = EmbeddingCompressor(D, K, method).fit(table_VD, counts_V)
    rows = table_VD.repeat_interleave(counts_V, dim=0).double()
    lost = (compressor.decompress(compressor.compress(rows)) - rows).square().sum()
    share = 1 - float(lost / (rows - rows.mean(dim=0)).square().sum())
    assert compressor.explained_variance_ratio == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("k", [1, 3, K])
def test_a_truncated_compressor_is_the_one_fitted_at_that_size(table_VD, counts_V, k):
    cut = EmbeddingCompressor(D, K).fit(table_VD, counts_V).truncate(k)
    fitted = EmbeddingCompressor(D, k).fit(table_VD, counts_V)
    assert cut.output_dim == k
    for name in ("mean_D", "scale", "components_KD", "code_std_K", "spectrum_D"):
        assert torch.equal(getattr(cut, name), getattr(fitted, name)), name
    assert cut.explained_variance_ratio == pytest.approx(fitted.explained_variance_ratio, rel=1e-6)
    assert torch.equal(cut.compress(table_VD), fitted.compress(table_VD))


def test_a_compressor_can_not_be_truncated_to_more_axes_than_it_has(table_VD):
    with pytest.raises(ValueError, match="compress_dim 6 is larger than the fitted 5"):
        EmbeddingCompressor(D, K).fit(table_VD).truncate(K + 1)


@pytest.mark.parametrize("method", ["pca", "random"])
@pytest.mark.parametrize("k", [None, 2])
def test_a_compressor_comes_back_from_disk(tmp_path, table_VD, counts_V, method, k):
    compressor = EmbeddingCompressor(D, K, method, seed=3).fit(table_VD, counts_V)
    compressor.save(tmp_path / "pca.safetensors")
    loaded = EmbeddingCompressor.load(tmp_path / "pca.safetensors", k)
    expected = compressor if k is None else compressor.truncate(k)
    assert (loaded.method, loaded.seed, loaded.output_dim) == (method, 3, expected.output_dim)
    assert loaded.explained_variance_ratio == expected.explained_variance_ratio
    assert torch.equal(loaded.compress(table_VD), expected.compress(table_VD))
    assert torch.equal(loaded.decompress(loaded.compress(table_VD)), expected.decompress(expected.compress(table_VD)))


def test_the_same_fit_writes_the_same_bytes(tmp_path, table_VD, counts_V):
    written = set()
    for _ in range(10):  # a header in random order is equal now and then
        EmbeddingCompressor(D, K).fit(table_VD, counts_V).save(tmp_path / "pca.safetensors")
        written.add((tmp_path / "pca.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((D, D + 1), "compress_dim.* 17 must be between 1 and input_dim 16"),
        ((D, 0), "compress_dim.* 0 must be"),
        ((D, K, "svd"), "method must be one of pca, random, identity, got 'svd'"),
        ((D, K, "identity"), "the identity keeps all 16 dimensions, not 5"),
    ],
)
def test_impossible_sizes_and_methods_are_refused_before_any_data(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingCompressor(*arguments)


def test_embeddings_of_another_width_are_refused(table_VD):
    compressor = EmbeddingCompressor(D, K)
    with pytest.raises(ValueError, match=r"\[\.\., 16\], got \(300, 15\)"):
        compressor.fit(table_VD[:, 1:])
    with pytest.raises(ValueError, match=r"\[\.\., 16\], got \(300, 15\)"):
        compressor.fit(table_VD).compress(table_VD[:, 1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_identity_gives_every_row_back_to_the_bit_and_starts_an_adapter_that_does(table_VD, counts_V, dtype):
    rows_VD = table_VD.to(dtype)
    compressor = EmbeddingCompressor(D, D, "identity").fit(rows_VD, counts_V)
    codes_VK = compressor.codes(rows_VD)
    assert codes_VK.dtype == dtype
    assert torch.equal(compressor.decompress(codes_VK), rows_VD.float())
    assert torch.equal(Adapter.from_compressor(compressor)(codes_VK), rows_VD.float())
    # Its unit is that of the other compressors' standardised space, up to the power of two.
    scale = EmbeddingCompressor(D, K).fit(rows_VD, counts_V).scale
    assert 0.7 < float(compressor.scale / scale) < 1.42
    assert compressor.explained_variance_ratio == pytest.approx(1)


@pytest.mark.parametrize("method", ["pca", "random", "identity"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.56])
def test_embeddings_that_do_not_vary_are_refused(method, value):
    with pytest.raises(ValueError, match="do not vary"):
        EmbeddingCompressor(D, D if method == "identity" else K, method).fit(
            torch.full((1000, D), value), torch.arange(1000) % 7
        )


def test_a_small_variance_far_from_the_origin_is_variance():
    table_VD = 1000 + 0.01 * torch.randn(200, D, generator=torch.Generator().manual_seed(0))
    compressor = EmbeddingCompressor(D, K).fit(table_VD)
    assert float(compressor.scale) == pytest.approx(0.01, rel=0.1)
