"""Codecs: what is stored is what is counted, and rows come from it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import norm
from sklearn.cluster import KMeans

from latentwire.adapter import Adapter
from latentwire.arms_table import ARMS, COMPRESSORS
from latentwire.codecs.adapted import AdapterCodec
from latentwire.codecs.adapted_product import AdaptedProductCodec
from latentwire.codecs.base import Codec, NotApplicable
from latentwire.codecs.families import FAMILIES, load_codec
from latentwire.codecs.files import CODES_FILE, codec_files, decline
from latentwire.codecs.fitting import fit_codec
from latentwire.codecs.fp8 import Float8Codec
from latentwire.codecs.integers import IntegerCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.codecs.nf4 import LEVELS, NormalFloatCodec
from latentwire.codecs.own import own_families
from latentwire.codecs.packing import pack, unpack
from latentwire.codecs.product import CODEWORDS, ITERATIONS, ProductCodec
from latentwire.codecs.residual import ResidualCodec
from latentwire.codecs.rotated import RotatedCodec, random_rotation, rotate, rotate_back
from latentwire.codecs.rounded import FRACTIONS, RoundedLinearCodec
from latentwire.codecs.scalar import ScalarCodec, gaussian_levels, quantisation_bits
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.errors import InputError
from latentwire.files import bytes_by_dtype

V, D = 300, 16


def table(seed: int, dtype: torch.dtype = torch.float32, rows: int = V) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, D, generator=generator) * 0.85 ** torch.arange(D) + 0.3).to(dtype)


def counts(seed: int, rows: int = V) -> torch.Tensor:
    return torch.randint(0, 6, (rows,), generator=torch.Generator().manual_seed(seed))


def linear(table_VD: torch.Tensor, counts_V: torch.Tensor, k: int) -> LinearCodec:
    return LinearCodec.of(EmbeddingCompressor(D, k).fit(table_VD, counts_V), table_VD)


def rounded(table_VD: torch.Tensor, counts_V: torch.Tensor, k: int, bits: int | None = None) -> RoundedLinearCodec:
    compressor = EmbeddingCompressor(D, k).fit(table_VD, counts_V)
    return RoundedLinearCodec.of(compressor, table_VD, counts_V, bits or (4, 8)[k % 2])


def adapted(table_VD: torch.Tensor, counts_V: torch.Tensor, k: int) -> AdapterCodec:
    compressor = EmbeddingCompressor(D, k).fit(table_VD, counts_V)
    adapter = Adapter.from_compressor(compressor)
    with torch.random.fork_rng():
        torch.manual_seed(k)
        torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1)
    return AdapterCodec.of(LinearCodec.of(compressor, table_VD).codes, adapter, len(table_VD))


def adapted_product(table_VD: torch.Tensor, counts_V: torch.Tensor, k: int) -> AdaptedProductCodec:
    adapter = Adapter.from_compressor(EmbeddingCompressor(D, D, "identity").fit(table_VD, counts_V), residual=True)
    with torch.random.fork_rng():
        torch.manual_seed(k)
        torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1)
    return AdaptedProductCodec.of(ProductCodec.fit(table_VD, counts_V + 1, 4), adapter)


Fit = Callable[[torch.Tensor, torch.Tensor, int], Codec]
# One way to make each family, at a code dimension between 2 and D.
FITS: dict[str, Fit] = {
    "linear": linear,
    "rounded": rounded,
    "adapter": adapted,
    "scalar": ScalarCodec.fit,
    "integers": lambda table_VD, _, k: IntegerCodec.fit(table_VD, (2, 4, 8)[k % 3], 8, symmetric=k % 2 == 0),
    "fp8": lambda table_VD, counts_V, k: Float8Codec.fit(table_VD),
    "nf4": lambda table_VD, counts_V, k: NormalFloatCodec.fit(table_VD, (4, 8, 16)[k % 3]),
    "rotated": lambda table_VD, counts_V, k: RotatedCodec.fit(table_VD, (1, 2, 4)[k % 3], seed=k),
    "product": lambda table_VD, counts_V, k: ProductCodec.fit(table_VD, counts_V + 1, (2, 4, 8)[k % 3], seed=k),
    "adapted_product": adapted_product,
    "residual": lambda table_VD, counts_V, k: ResidualCodec.fit(table_VD, counts_V + 1, 1 + k % 3, 4, seed=k),
}


def test_every_family_is_tested():
    assert {family.family for family in FAMILIES} == FITS.keys()


@pytest.mark.parametrize("family", sorted(FITS))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.bfloat16]), k=st.integers(2, D))
def test_what_is_saved_is_all_there_is(tmp_path_factory, family: str, seed: int, dtype: torch.dtype, k: int):
    folder = tmp_path_factory.mktemp(family)
    table_VD, counts_V = table(seed, dtype), counts(seed)
    codec = FITS[family](table_VD, counts_V, k)
    assert all(len(tensor) == V for tensor in codec.codes.values())
    ids = torch.tensor([[0, 5, V - 1], [7, 7, 100]])
    rows = codec.decode(ids)
    assert rows.shape == (2, 3, D) and rows.dtype == torch.float32 and not rows.requires_grad
    codec.save_pretrained(folder)
    # The table is gone, for the codec that was fitted and for the one that is loaded.
    table_VD.fill_(torch.nan)
    assert torch.equal(codec.decode(ids), rows)
    loaded = load_codec(folder)
    assert type(loaded) is type(codec) and loaded.shape == (V, D)
    assert torch.equal(loaded.decode(ids), rows)
    assert torch.equal(loaded.decode(torch.arange(V)), codec.decode(torch.arange(V)))
    config = json.loads((folder / "config.json").read_text())
    stored = sum(sum(bytes_by_dtype(folder / config[part]).values()) for part in ("codes", "decoder"))
    assert stored == codec.stored_bytes == loaded.stored_bytes
    assert codec.bits_per_parameter == 8 * stored / (V * D)
    # Beside the tensors, a file has only its header.
    assert stored <= sum((folder / config[part]).stat().st_size for part in ("codes", "decoder")) <= stored + 4000


def test_codecs_that_share_their_codes_count_them_whole(tmp_path: Path):
    table_VD, counts_V = table(0), counts(0)
    base, trained = linear(table_VD, counts_V, 4), adapted(table_VD, counts_V, 4)
    base.save_pretrained(tmp_path / "pca")
    trained.save_pretrained(tmp_path / "seed0/phase1", codes=tmp_path / "pca" / CODES_FILE)
    assert not (tmp_path / "seed0/phase1" / CODES_FILE).exists()
    loaded = load_codec(tmp_path / "seed0/phase1")
    assert loaded.stored_bytes == trained.stored_bytes > base.codes["codes_VK"].nbytes
    assert torch.equal(loaded.decode(torch.arange(V)), trained.decode(torch.arange(V)))
    files = codec_files(tmp_path / "seed0/phase1")
    assert files[1] == tmp_path / "pca" / CODES_FILE and all(file.is_file() for file in files)


def test_a_codec_that_is_declined_says_why(tmp_path: Path):
    decline(tmp_path, "a code of 1 numbers is too small")
    with pytest.raises(NotApplicable, match="a code of 1 numbers is too small"):
        load_codec(tmp_path)
    assert codec_files(tmp_path) == [tmp_path / "config.json"]


def test_another_family_is_refused(tmp_path: Path):
    linear(table(0), counts(0), 4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a codec of the family 'linear', not 'scalar'"):
        ScalarCodec.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("linear", "cubic"))
    with pytest.raises(ValueError, match="no codec family 'cubic'"):
        load_codec(tmp_path)


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 40), st.integers(0, 2**32))
def test_packed_numbers_come_back(bits: int, width: int, seed: int):
    numbers = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (5, width)))
    packed = pack(numbers, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (5, -(-width * bits // 8))
    assert torch.equal(unpack(packed, bits, width), numbers)


# Linear codecs and adapters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_codec_is_the_compressors_inverse_of_its_codes(dtype: torch.dtype):
    table_VD, counts_V = table(1, dtype), counts(1)
    compressor = EmbeddingCompressor(D, 5).fit(table_VD, counts_V)
    codec = LinearCodec.of(compressor, table_VD)
    assert codec.codes_VK.dtype == dtype
    ids = torch.arange(0, V, 3)
    assert torch.equal(codec.decode(ids), compressor.decompress(compressor.codes(table_VD)[ids]))


def test_an_adapters_codec_is_its_output_on_the_codes():
    codec = adapted(table(2), counts(2), 4)
    ids = torch.arange(0, V, 7)
    assert torch.equal(codec.decode(ids), codec.adapter(codec.codes["codes_VK"][ids]).detach())


def test_the_headlines_rate():
    """512 numbers per row and the adapter, all in bf16."""
    with torch.device("meta"):
        adapter = Adapter(512, 4096).bfloat16()
        codes = {"codes_VK": torch.empty(128_256, 512, dtype=torch.bfloat16)}
        codec = AdapterCodec(codes, dict(adapter.named_parameters()), (128_256, 4096))
    assert codec.bits_per_parameter == pytest.approx(2.61, abs=0.005)
    assert codec.stored_bytes == pytest.approx(171e6, rel=0.005)


def test_an_untrained_adapter_on_rebuilt_rows_leaves_them_as_they_are():
    table_VD, counts_V = table(2), counts(2)
    inner = ProductCodec.fit(table_VD, counts_V + 1, 4)
    adapter = Adapter.from_compressor(EmbeddingCompressor(D, D, "identity").fit(table_VD, counts_V), residual=True)
    codec = AdaptedProductCodec.of(inner, adapter)
    assert torch.equal(codec.decode(torch.arange(V)), inner.decode(torch.arange(V)))
    assert adapter.parameter_count == sum(p.numel() for p in adapter.mlp.parameters()) == 4 * 8 * 8 + 2 * 8 * 8 + 40
    assert codec.stored_bytes == inner.stored_bytes + 4 * (adapter.parameter_count + 2 * D + 1)


def test_a_trained_adapters_rows_are_those_of_its_files_in_float64(tmp_path: Path):
    """x̂ = μ + s·(z + MLP(z / σ)), z the rebuilt row in the standardised space; from the files alone, written out."""
    table_VD, counts_V = table(15), counts(15)
    inner = ProductCodec.fit(table_VD, counts_V + 1, 8)
    adapter = Adapter.from_compressor(EmbeddingCompressor(D, D, "identity").fit(table_VD, counts_V), residual=True)
    rows_VD = inner.decode(torch.arange(V))
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        (adapter((rows_VD - adapter.mean_D) / adapter.scale) - table_VD).square().mean().backward()
        optimiser.step()
    AdaptedProductCodec.of(inner, adapter, torch.bfloat16).save_pretrained(tmp_path)

    files = {name: load_file(tmp_path / f"{name}.safetensors") for name in ("codes", "adapter")}
    assert {path.name for path in codec_files(tmp_path)} == {"config.json", *(f"{name}.safetensors" for name in files)}
    stored = {name.removeprefix("adapter."): own.double().numpy() for name, own in files["adapter"].items()}
    codes_VS, codebooks_SCN = files["codes"]["codes_VS"].numpy(), stored["codebooks_SCN"]
    expected_VD = np.concatenate(
        [words[codes] for words, codes in zip(codebooks_SCN, codes_VS.T, strict=True)], axis=1
    )
    z_VD = (expected_VD - stored["mean_D"]) / stored["scale"]
    layer = z_VD / stored["code_std_K"]
    for number in (0, 2, 4, 6):
        layer = layer @ stored[f"mlp.{number}.weight"].T + stored[f"mlp.{number}.bias"]
        layer = layer * norm.cdf(layer) if number < 6 else layer
    expected_VD = stored["mean_D"] + stored["scale"] * (z_VD + layer)

    found_VD = load_codec(tmp_path).decode(torch.arange(V))
    np.testing.assert_allclose(found_VD.numpy(), expected_VD, rtol=0, atol=1e-5)
    assert (found_VD - table_VD).square().mean() < 0.9 * (rows_VD - table_VD).square().mean()


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_codes_are_the_nearest_multiples_of_their_step(bits: int):
    table_VD, counts_V = table(1, torch.bfloat16), counts(1)
    codec, half = rounded(table_VD, counts_V, 5, bits), 2 ** (bits - 1)
    compressor = EmbeddingCompressor(D, 5).fit(table_VD, counts_V)
    axes_KD = compressor.components_KD.double()

    def coded(x_VD: torch.Tensor) -> torch.Tensor:
        return ((x_VD.double() - compressor.mean_D) / compressor.scale) @ axes_KD.T

    z_VK, found_VK = coded(table_VD), coded(codec.decode(torch.arange(V)))
    levels_KL = codec.decoder["step_K"].double()[:, None] * torch.arange(-half, half)
    expected_VK = (z_VK[..., None] - levels_KL).abs().amin(dim=2)
    torch.testing.assert_close((found_VK - z_VK).abs(), expected_VK, atol=1e-5, rtol=0)
    # Five numbers of 4 bits end with a whole byte; step, μ, s and axes in float32, and the number of bits.
    assert codec.stored_bytes == V * (5 if bits == 8 else 3) + 4 * (5 + D + 1 + 5 * D) + 1


def test_no_other_fraction_of_the_whole_step_has_a_smaller_weighted_error():
    table_VD, counts_V = table(2), counts(2)
    table_VD[3] *= 20  # an outlier, at which no step that is best for the others reaches
    codec = rounded(table_VD, counts_V, 6, 4)
    compressor = EmbeddingCompressor(D, 6).fit(table_VD, counts_V)
    z_VK = compressor.compress(table_VD).double().numpy()
    weights_V = counts_V.numpy() + 1
    for dimension, step in enumerate(codec.decoder["step_K"].tolist()):
        z_V = z_VK[:, dimension]
        steps = np.abs(z_V).max() / 7.5 * np.array(FRACTIONS)
        errors = [(weights_V * (np.clip(np.round(z_V / s), -8, 7) * s - z_V) ** 2).sum() for s in steps]
        assert step == pytest.approx(steps[np.argmin(errors)], rel=1e-5)
    assert codec.decoder["step_K"][0] < np.abs(z_VK[:, 0]).max() / 7.5


# Scalar quantisation


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (4, 0.009497)])
def test_levels_are_max_and_lloyds_for_a_gaussian(bits: int, error: float):
    """Max (1960), table I."""
    levels = np.array(gaussian_levels(bits))
    assert len(levels) == 2**bits
    np.testing.assert_allclose(levels, -levels[::-1], atol=1e-9)
    x, step = np.linspace(-9, 9, 400_001, retstep=True)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    assert float(((x - nearest) ** 2 * density).sum() * step) == pytest.approx(error, rel=5e-4)


@pytest.mark.parametrize(("k", "bits", "error"), [(4, 4, 0.009497), (2, 2, 0.1175), (1, 1, 0.3634)])
def test_a_gaussian_table_loses_what_max_says(k: int, bits: int, error: float):
    table_VD = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 17) + 5
    table_VD = table_VD.bfloat16()
    found_VD = ScalarCodec.fit(table_VD, torch.ones(20_000, dtype=torch.int64), k).decode(torch.arange(20_000))
    original_VD = table_VD.double()
    share_D = (found_VD.double() - original_VD).square().mean(dim=0) / original_VD.var(dim=0)
    assert float(share_D.mean()) == pytest.approx(error, rel=0.02)
    assert all(len(found_VD[:, column].unique()) == 2**bits for column in range(16))


@given(st.integers(1, 8192), st.integers(1, 8192), st.sampled_from([8, 16, 32]))
def test_quantisation_takes_no_more_bits_than_the_code_and_the_most_that_fit(d: int, k: int, code_bits: int):
    bits = quantisation_bits(d, k, code_bits)
    if bits is None:
        assert d > k * code_bits
    else:
        assert bits in (4, 2, 1)
        assert bits * d <= k * code_bits
        assert bits == 4 or 2 * bits * d > k * code_bits


@pytest.mark.parametrize(("k", "bits"), [(512, 2), (1024, 4), (256, 1), (255, None), (4096, 4)])
def test_bits_at_the_experiments_sizes(k: int, bits: int | None):
    assert quantisation_bits(4096, k, 16) == bits


def test_a_code_too_small_for_one_bit_per_number_is_refused():
    table_VD = torch.randn(50, 24).bfloat16()
    with pytest.raises(NotApplicable, match="one bit for each of 24 numbers is more than a code of 1 numbers takes"):
        ScalarCodec.fit(table_VD, torch.ones(50, dtype=torch.int64), 1)


# Integers in groups


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("group", [4, 16])
def test_symmetric_integers_are_the_published_formula(bits: int, group: int):
    table_VD = table(3, torch.bfloat16)
    codec = IntegerCodec.fit(table_VD, bits, group)
    expected_VD = torch.empty(V, D)
    for row in range(V):
        for start in range(0, D, group):
            part = table_VD[row, start : start + group]
            scale = (part.float().abs().max() / ((2**bits - 1) / 2)).bfloat16()
            integers = (part / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            expected_VD[row, start : start + group] = integers.float() * scale.float()
    assert torch.equal(codec.decode(torch.arange(V)), expected_VD)
    assert codec.stored_bytes == V * D * bits // 8 + 2 * V * D // group + 1


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_asymmetric_integers_are_the_published_formula(bits: int, group: int, dtype: torch.dtype):
    """scale = (max − min) / (2^b − 1) and q = round((x − min) / scale) in float64, scale and min stored in bf16."""
    generator = torch.Generator().manual_seed(16)
    # On a grid, so that float32 finds the same quotients to be ties.
    table_VD = ((2 * torch.randn(200, 256, generator=generator) + 3) * 64).round().div(64).to(dtype)
    codec = IntegerCodec.fit(table_VD, bits, group, symmetric=False)

    def bf16(values: np.ndarray) -> np.ndarray:
        return torch.from_numpy(values).bfloat16().double().numpy()

    x_VGN = table_VD.double().numpy().reshape(200, -1, group)
    minimum_VG1 = bf16(x_VGN.min(axis=2, keepdims=True))
    scale_VG1 = bf16((x_VGN.max(axis=2, keepdims=True) - minimum_VG1) / (2**bits - 1))
    integers_VGN = np.rint((x_VGN - minimum_VG1) / scale_VG1).clip(0, 2**bits - 1)

    digits = np.unpackbits(codec.codes["codes_VB"].numpy(), axis=1, bitorder="little").reshape(200, 256, bits)
    np.testing.assert_array_equal(digits @ 2 ** np.arange(bits), integers_VGN.reshape(200, 256))
    assert set(np.unique(integers_VGN)) == set(range(2**bits))
    np.testing.assert_array_equal(codec.codes["minimum_VG"].double().numpy(), minimum_VG1[..., 0])
    np.testing.assert_array_equal(codec.codes["scale_VG"].double().numpy(), scale_VG1[..., 0])
    expected_VD = (integers_VGN * scale_VG1 + minimum_VG1).reshape(200, 256).astype(np.float32)
    np.testing.assert_array_equal(codec.decode(torch.arange(200)).numpy(), expected_VD)
    assert codec.stored_bytes == 200 * 256 * bits // 8 + 4 * 200 * 256 // group + 1


def test_asymmetric_integers_by_name_have_the_bits_and_the_group_that_it_says():
    table_VD = torch.randn(20, 256, generator=torch.Generator().manual_seed(17))
    for bits in (4, 2):
        for suffix, group in (("", 64), ("_g32", 32), ("_g128", 128)):
            found = IntegerCodec.fit_named(f"int{bits}_asymmetric{suffix}", table_VD)
            expected = IntegerCodec.fit(table_VD, bits, group, symmetric=False)
            assert found.tensors.keys() == expected.tensors.keys()
            assert all(torch.equal(found.tensors[part], expected.tensors[part]) for part in expected.tensors)


def test_rows_of_zeros_stay_zeros():
    zeros_VD = torch.zeros(3, 8)
    for codec in (
        IntegerCodec.fit(zeros_VD, 4, 8),
        IntegerCodec.fit(zeros_VD, 4, 8, symmetric=False),
        NormalFloatCodec.fit(zeros_VD, 8),
        Float8Codec.fit(zeros_VD),
        RotatedCodec.fit(zeros_VD, 4),
    ):
        assert torch.equal(codec.decode(torch.arange(3)), zeros_VD)


def test_groups_have_to_divide_the_width():
    for fit in (
        lambda: IntegerCodec.fit(table(0), 4, 6),
        lambda: NormalFloatCodec.fit(table(0), 6),
        lambda: ProductCodec.fit(table(0), counts(0) + 1, 6),
        lambda: ResidualCodec.fit(table(0), counts(0) + 1, 2, 6),
    ):
        with pytest.raises(NotApplicable, match="16 dimensions are no multiple of groups of 6"):
            fit()


# Floating-point numbers


def test_normal_floats_levels_are_the_published_ones():
    """As bitsandbytes makes them (create_normal_map): quantiles of a Gaussian, one more above zero than below."""
    offset = 0.9677083
    above, below = (norm.ppf(np.linspace(offset, 0.5, number)[:-1]) for number in (9, 8))
    levels = np.sort(np.concatenate([above, [0], -below]))
    np.testing.assert_allclose(LEVELS, levels / levels.max(), atol=1e-7)


def nearest_level_errors(x_VD: torch.Tensor, levels: torch.Tensor, scale_VD: torch.Tensor) -> torch.Tensor:
    """The distance of every number to the nearest of all levels times its scale, by trying each."""
    return (x_VD.double()[..., None] - scale_VD.double()[..., None] * levels.double()).abs().amin(dim=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("group", [4, 16])
def test_normal_floats_are_the_nearest_level_times_the_groups_largest(group: int, dtype: torch.dtype):
    table_VD = table(10, dtype)
    codec = NormalFloatCodec.fit(table_VD, group)
    scale_VD = table_VD.unflatten(1, (-1, group)).abs().amax(dim=2).bfloat16().repeat_interleave(group, dim=1)
    expected_VD = nearest_level_errors(table_VD, torch.tensor(LEVELS), scale_VD)
    found_VD = codec.decode(torch.arange(V))
    torch.testing.assert_close((found_VD - table_VD).abs().double(), expected_VD, atol=1e-6, rtol=0)
    assert codec.stored_bytes == V * D // 2 + 2 * V * D // group + 4 * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float8_numbers_are_the_nearest_of_all_256(dtype: torch.dtype):
    table_VD = table(11, dtype)
    codec = Float8Codec.fit(table_VD)
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    numbers = numbers[numbers.isfinite()]
    assert len(numbers) == 254 and numbers.max() == 448
    scale_V1 = (table_VD.float().abs().amax(dim=1, keepdim=True) / 448).bfloat16()
    expected_VD = nearest_level_errors(table_VD, numbers, scale_V1.expand(-1, D))
    found_VD = codec.decode(torch.arange(V))
    torch.testing.assert_close((found_VD - table_VD).abs().double(), expected_VD, atol=1e-6, rtol=0)
    assert codec.stored_bytes == V * D + 2 * V


def test_float8_numbers_with_a_scale_among_the_smallest_are_finite():
    table_VD = torch.tensor([[2e-36, -1e-36], [5e-38, 1e-38], [6e-38, 0], [1e-44, 0]])
    assert Float8Codec.fit(table_VD).decode(torch.arange(4)).isfinite().all()


# Rotations


@pytest.mark.parametrize("width", [1, 7, 16, 24, 576, 896])
def test_the_rotation_is_orthogonal_and_the_kronecker_product_that_it_says(width: int):
    factor_MM, signs_D = random_rotation(width, 3)
    power = width // len(factor_MM)
    dense_DD = np.kron(factor_MM.double().numpy(), scipy.linalg.hadamard(power) / power**0.5) * signs_D.numpy()
    assert set(signs_D.tolist()) <= {-1, 1} and len(factor_MM) % 2 == 1
    np.testing.assert_allclose(dense_DD @ dense_DD.T, np.eye(width), atol=1e-6)
    rows_UD = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    rotated_UD = rotate(rows_UD, factor_MM, signs_D)
    np.testing.assert_allclose(rotated_UD.numpy(), rows_UD.numpy() @ dense_DD.T, atol=2e-6)
    torch.testing.assert_close(rotate_back(rotated_UD, factor_MM, signs_D), rows_UD, atol=2e-6, rtol=0)


def test_rotations_differ_by_seed_and_repeat():
    one, again, other = (RotatedCodec.fit(table(12), 4, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(one.tensors[name], again.tensors[name]) for name in one.tensors)
    assert not torch.equal(one.decoder["signs_D"], other.decoder["signs_D"])


@pytest.mark.parametrize("bits", [4, 2])
def test_rotated_numbers_are_the_nearest_level_times_the_rows_root_mean_square(bits: int):
    table_VD = torch.randn(200, 24, generator=torch.Generator().manual_seed(1)).bfloat16() + 0.5
    codec = RotatedCodec.fit(table_VD, bits)
    factor_MM, signs_D = codec.decoder["factor_MM"].double().numpy(), codec.decoder["signs_D"].numpy()
    dense_DD = np.kron(factor_MM, scipy.linalg.hadamard(8) / 8**0.5) * signs_D
    rotated_VD = torch.from_numpy(table_VD.double().numpy() @ dense_DD.T)
    scale_V1 = codec.codes["scale_V1"].double()
    # A rotation keeps norms, and bf16 eight bits of them.
    torch.testing.assert_close(
        scale_V1, table_VD.double().square().mean(dim=1, keepdim=True).sqrt(), rtol=2**-8, atol=0
    )
    expected_VD = nearest_level_errors(rotated_VD, torch.tensor(gaussian_levels(bits)), scale_V1.expand(-1, 24))
    found_VD = torch.from_numpy(codec.decode(torch.arange(200)).double().numpy() @ dense_DD.T)
    torch.testing.assert_close((found_VD - rotated_VD).abs(), expected_VD, atol=1e-5, rtol=0)
    assert codec.stored_bytes == 200 * (24 * bits // 8 + 2) + 4 * 3 * 3 + 24 + 4 * 2**bits


@pytest.mark.parametrize(("bits", "error"), [(4, 0.009497), (2, 0.1175)])
def test_any_table_loses_what_max_says_of_a_gaussian(bits: int, error: float):
    """One number in ten differs from 0. Of so few, rotated ones have slightly lighter tails than a Gaussian."""
    generator = torch.Generator().manual_seed(2)
    table_VD = torch.randn(2000, 576, generator=generator) * (torch.arange(576) % 10 == 0)
    rows_VD = RotatedCodec.fit(table_VD, bits).decode(torch.arange(2000))
    assert float((rows_VD - table_VD).square().sum() / table_VD.square().sum()) == pytest.approx(error, rel=0.05)


# Product quantisation


def test_every_code_is_the_nearest_codeword():
    table_VD = table(5)
    codec = ProductCodec.fit(table_VD, counts(5) + 1, 4)
    codebooks_SCN = codec.decoder["codebooks_SCN"].double()
    for subspace, codewords_CN in enumerate(codebooks_SCN):
        part_VN = table_VD[:, 4 * subspace : 4 * subspace + 4].double()
        distances_VC = torch.cdist(part_VN, codewords_CN)
        chosen_V = distances_VC.gather(1, codec.codes["codes_VS"][:, subspace, None].long()).squeeze(1)
        assert torch.allclose(chosen_V, distances_VC.min(dim=1).values, atol=1e-4)


def test_codebooks_are_as_good_as_another_implementations():
    """scikit-learn's k-means from the same start, in float64."""
    table_VD, weights_V = table(6, rows=3000), counts(6, 3000) + 1
    codec = ProductCodec.fit(table_VD, weights_V, 8, seed=3)
    weights = weights_V.double().numpy()
    generator = np.random.default_rng(3)
    ours_VD = codec.decode(torch.arange(3000)).double().numpy()
    for start in (0, 8):
        part = table_VD[:, start : start + 8].numpy()
        first = part[generator.choice(3000, CODEWORDS, replace=False, p=weights / weights.sum())]
        other = KMeans(CODEWORDS, init=first, n_init=1, max_iter=ITERATIONS, algorithm="lloyd", tol=0)
        theirs = other.fit(part.astype(np.float64), sample_weight=weights).inertia_
        ours = float((weights[:, None] * (ours_VD[:, start : start + 8] - part) ** 2).sum())
        assert ours == pytest.approx(theirs, rel=0.03)


def test_product_quantisation_repeats_and_stores_frequent_rows_most_exactly():
    table_VD = table(7, rows=3000)
    weights_V = torch.ones(3000, dtype=torch.int64)
    weights_V[:200] = 1000
    ids = torch.arange(3000)
    first, second = (ProductCodec.fit(table_VD, weights_V, 8).decode(ids) for _ in range(2))
    assert torch.equal(first, second)
    equal = ProductCodec.fit(table_VD, torch.ones(3000, dtype=torch.int64), 8).decode(ids)
    errors = [(rows - table_VD).square().sum(dim=1) for rows in (first, equal)]
    assert errors[0][:200].mean() < 0.5 * errors[1][:200].mean()
    assert errors[0][200:].mean() > errors[1][200:].mean()


def test_every_row_is_trained_on_also_above_256_per_codeword():
    """faiss would sample; so many rows in a sample would miss half of those that weigh everything."""
    rows = 2 * 256 * CODEWORDS
    generator = torch.Generator().manual_seed(18)
    table_VD = torch.randn(rows, 4, generator=generator).bfloat16()
    frequent_C = torch.randperm(rows, generator=generator)[:CODEWORDS]
    table_VD[frequent_C] *= 10
    weights_V = torch.ones(rows, dtype=torch.int64)
    weights_V[frequent_C] = 10**9
    codec = ProductCodec.fit(table_VD, weights_V, 4)
    assert torch.equal(codec.decode(frequent_C), table_VD[frequent_C].float())


def test_a_table_with_fewer_rows_than_codewords_is_refused():
    with pytest.raises(NotApplicable, match="256 codewords for a table of 255 rows"):
        ProductCodec.fit(table(0, rows=255), counts(0, 255) + 1, 4)


def test_weights_by_name_are_powers_of_counts_and_one():
    table_VD, counts_V = table(8, rows=1000), 10 * counts(8, 1000)
    for name, weights_V in (
        ("pq4", counts_V + 1),
        ("pq4_root", (counts_V + 1).double().sqrt()),
        ("pq4_type", torch.ones(1000)),
    ):
        found, expected = ProductCodec.fit_named(name, table_VD, counts_V), ProductCodec.fit(table_VD, weights_V, 4)
        assert all(torch.equal(found.tensors[part], expected.tensors[part]) for part in expected.tensors)
    residual = ResidualCodec.fit_named("rq8", table_VD, counts_V)
    expected_VD = ResidualCodec.fit(table_VD, counts_V + 1, 2, 8).decode(torch.arange(1000))
    assert torch.equal(residual.decode(torch.arange(1000)), expected_VD)


# Residual quantisation


def test_each_stage_is_product_quantisation_of_what_the_ones_before_leave():
    table_VD, weights_V, ids = table(13), counts(13) + 1, torch.arange(V)
    codec = ResidualCodec.fit(table_VD, weights_V, 2, 8)
    first = ProductCodec.fit(table_VD, weights_V, 8)
    second = ProductCodec.fit(table_VD - first.decode(ids), weights_V, 8)
    for number, stage in enumerate((first, second)):
        assert torch.equal(codec.codes["codes_VTS"][:, number], stage.codes["codes_VS"])
        assert torch.equal(codec.decoder["codebooks_TSCN"][number], stage.decoder["codebooks_SCN"])
    torch.testing.assert_close(codec.decode(ids), first.decode(ids) + second.decode(ids), rtol=0, atol=1e-6)
    assert codec.stored_bytes == 2 * (V * 2 + 2 * 2 * CODEWORDS * 8)


def test_every_code_of_the_second_stage_is_the_nearest_codeword_to_the_residual():
    table_VD = table(14)
    codec = ResidualCodec.fit(table_VD, counts(14) + 1, 2, 8)
    codebooks_TSCN, codes_VTS = codec.decoder["codebooks_TSCN"].double(), codec.codes["codes_VTS"].long()
    for group in range(2):
        left_VN = table_VD[:, 8 * group : 8 * group + 8].double()
        for stage in range(2):
            distances_VC = torch.cdist(left_VN, codebooks_TSCN[stage, group])
            chosen_V = codes_VTS[:, stage, group]
            found_V = distances_VC.gather(1, chosen_V[:, None]).squeeze(1)
            assert torch.allclose(found_V, distances_VC.amin(dim=1), atol=1e-4)
            left_VN = left_VN - codebooks_TSCN[stage, group, chosen_V]


# By name, and a user's own


# A multiple of every codec's group.
WIDTH = 384
# Bits per parameter of a table in float32 without what all rows share; of PCA's at K = 6.
RATES = {
    "identity_ppl": 32, **dict.fromkeys(("pca", "pca_root", "pca_type"), 32 * 6 / WIDTH),
    "pca_int8": 8 * 6 / WIDTH, "pca_int4": 4 * 6 / WIDTH,
    "int8": 8.25, "int4": 4.25, "int4_asymmetric": 4.5, "int2": 2.25, "int2_asymmetric": 2.5,
    "int8_g32": 8.5, "int4_g32": 4.5, "int4_asymmetric_g32": 5, "int2_g32": 2.5, "int2_asymmetric_g32": 3,
    "int8_g128": 8.125, "int4_g128": 4.125, "int4_asymmetric_g128": 4.25, "int2_g128": 2.125,
    "int2_asymmetric_g128": 2.25,
    "fp8": 8 + 16 / WIDTH, "nf4": 4.25, "rotated4": 4 + 16 / WIDTH, "rotated2": 2 + 16 / WIDTH,
    "pq4": 2, "pq4_root": 2, "pq4_type": 2, "pq6": 8 / 6, "pq8": 1, "pq8_type": 1, "rq8": 2,
}  # fmt: skip


def test_every_codec_of_the_table_is_fitted_by_its_name_at_its_rate(tmp_path: Path):
    table_VD, counts_V = torch.randn(300, WIDTH), counts(8)
    for name in ("pca", "pca_root", "pca_type"):
        EmbeddingCompressor(WIDTH, 9).fit(table_VD, counts_V).save(tmp_path / f"{name}.safetensors")
    EmbeddingCompressor(WIDTH, WIDTH, "identity").fit(table_VD, counts_V).save(tmp_path / "identity.safetensors")
    assert {row.codec for row in ARMS.values() if row.codec} == {*RATES, "quant", "random"}
    assert {*COMPRESSORS.values()} == {"pca", "pca_root", "pca_type", "random", "identity"}
    for name, rate in RATES.items():
        dim = 6 if ARMS[name].sized else None
        compressor = tmp_path / f"{COMPRESSORS[name]}.safetensors" if name in COMPRESSORS else None
        codec = fit_codec(name, table_VD, counts_V, dim, compressor=compressor)
        assert 8 * sum(tensor.nbytes for tensor in codec.codes.values()) / table_VD.numel() == pytest.approx(rate)
        assert type(codec).__module__ == f"latentwire.codecs.{ARMS[name].family}"


def test_codecs_are_fitted_by_name(tmp_path: Path):
    table_VD, counts_V = torch.randn(300, WIDTH), counts(8)
    compressor = EmbeddingCompressor(WIDTH, 9).fit(table_VD, counts_V)
    compressor.save(tmp_path / "pca.safetensors")
    found = fit_codec("pca", table_VD, counts_V, 6, compressor=tmp_path / "pca.safetensors")
    assert isinstance(found, LinearCodec) and found.codes_VK.shape == (300, 6)
    EmbeddingCompressor(WIDTH, WIDTH, "identity").fit(table_VD, counts_V).save(tmp_path / "identity.safetensors")
    whole = fit_codec("identity_ppl", table_VD, counts_V, None, compressor=tmp_path / "identity.safetensors")
    assert torch.equal(whole.decode(torch.arange(len(table_VD))), table_VD.float())
    assert isinstance(fit_codec("quant", table_VD, counts_V, 48), ScalarCodec)
    with pytest.raises(NotApplicable, match="192 dimensions are no multiple of groups of 128"):
        fit_codec("int4_g128", table_VD[:, :192], counts_V, None)
    product = fit_codec("pq6", table_VD, counts_V, None)
    assert product.codes["codes_VS"].shape == (300, 64)
    for name, message in (("quant", "needs a code dimension"), ("pca", "needs a code dimension")):
        with pytest.raises(InputError, match=message):
            fit_codec(name, table_VD, counts_V, None)
    for name in COMPRESSORS:
        with pytest.raises(InputError, match="needs a fitted compressor"):
            fit_codec(name, table_VD, counts_V, 6)
    for name in ("phase1", "noise_rows_pq4", "pq5"):
        with pytest.raises(InputError, match=f"there is no codec '{name}'"):
            fit_codec(name, table_VD, counts_V, 6)


OWN = """
import torch
from latentwire.codecs import Codec, NotApplicable


class Signs(Codec):
    family = "signs"

    def decode_rows(self, ids_U):
        return torch.where(self.codes["positive"][ids_U], 1.0, -1.0) * self.decoder["size"]


def fit(table_VD, counts_V, compress_dim):
    if compress_dim < 2:
        raise NotApplicable("signs need two dimensions")
    size = table_VD.float().abs().mean(dim=0)
    return Signs({"positive": table_VD > 0}, {"size": size}, tuple(table_VD.shape))
"""


def test_a_codec_of_ones_own_is_fitted_saved_and_loaded(tmp_path: Path):
    (tmp_path / "signs.py").write_text(OWN)
    table_VD = table(9)
    codec = fit_codec("signs", table_VD, counts(9), 4, file=tmp_path / "signs.py")
    codec.save_pretrained(tmp_path / "saved")
    loaded = load_codec(tmp_path / "saved", own_families(tmp_path / "signs.py"))
    assert torch.equal(loaded.decode(torch.arange(V)), codec.decode(torch.arange(V)))
    assert torch.equal(loaded.decode(torch.arange(V)).sign(), torch.where(table_VD > 0, 1.0, -1.0))
    with pytest.raises(NotApplicable, match="signs need two"):
        fit_codec("signs", table_VD, counts(9), 1, file=tmp_path / "signs.py")
    with pytest.raises(ValueError, match="no codec family 'signs'"):
        load_codec(tmp_path / "saved")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise RuntimeError('no')", "can't be imported: RuntimeError"),
        ("def fit(", "can't be imported: SyntaxError"),
        (OWN.replace("def fit", "def make"), "must define fit"),
        ("def fit(table_VD, counts_V, compress_dim):\n    return None\n", "a subclass of Codec"),
        (OWN.replace("return Signs(", "return str("), None),
        (OWN.replace("tuple(table_VD.shape)", "(1, 1)"), "of the table's shape"),
    ],
)
def test_a_file_that_is_no_codec_is_named(tmp_path: Path, text: str, message: str | None):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError if message else Exception, match=message and rf"mine\.py.*{message}"):
        fit_codec("mine", table(0), counts(0), 4, file=tmp_path / "mine.py")


@pytest.mark.parametrize("name", ["README.md", "signs"])
def test_a_codec_in_no_python_file_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text(OWN)
    with pytest.raises(InputError, match=rf"{name} \(codecs\) should be a Python file"):
        fit_codec("signs", table(9), counts(9), 4, file=tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.py \(codecs\) can't be imported"):
        fit_codec("none", table(0), counts(0), 4, file=tmp_path / "none.py")
