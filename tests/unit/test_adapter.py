"""The adapter: its size, its start at the compressor's inverse, and that it sees nothing but the code."""

import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.adapter import Adapter
from latentwire.compression.compressor import EmbeddingCompressor

D, K = 24, 6


@pytest.fixture
def table_VD() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.01 * torch.randn(200, D, generator=generator) * 0.9 ** torch.arange(D) + 0.003


@pytest.fixture
def compressor(table_VD: torch.Tensor) -> EmbeddingCompressor:
    return EmbeddingCompressor(D, K).fit(table_VD)


def trained(compressor: EmbeddingCompressor) -> Adapter:
    """An adapter whose every weight has moved."""
    adapter = Adapter.from_compressor(compressor)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_the_experiments_adapter_has_19_9_million_parameters():
    with torch.device("meta"):
        adapter = Adapter(d_z=512, d_model=4096)
    assert adapter.parameter_count == pytest.approx(19.9e6, rel=0.01)


def test_the_interface_that_the_plan_names():
    adapter = Adapter(d_z=512, d_model=4096)
    assert adapter(torch.randn(8, 20, 512)).shape == (8, 20, 4096)


@given(k=st.integers(1, 12), d=st.integers(1, 12), rows=st.integers(0, 3))
def test_any_dimensions(k, d, rows):
    adapter = Adapter(d_z=k, d_model=d)
    assert adapter(torch.randn(rows, k)).shape == (rows, d)
    assert adapter(torch.randn(k)).shape == (d,)
    assert adapter.hidden == max(1, d // 2)


def test_codes_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"\[\.\., 6\], got \(3, 5\)"):
        Adapter(K, D)(torch.zeros(3, K - 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_starts_exactly_at_the_compressors_inverse(table_VD, dtype):
    table_VD = table_VD.to(dtype)
    compressor = EmbeddingCompressor(D, K).fit(table_VD)
    codes_VK = compressor.compress(table_VD)
    rebuilt_VD = Adapter.from_compressor(compressor)(codes_VK)
    torch.testing.assert_close(rebuilt_VD, compressor.decompress(codes_VK), atol=1e-8, rtol=1e-6)


def test_all_of_it_can_learn_from_there(table_VD, compressor):
    adapter = Adapter.from_compressor(compressor)
    (adapter(compressor.compress(table_VD)) - table_VD).square().sum().backward()
    last = adapter.mlp[-1]
    assert adapter.linear.weight.grad is not None and adapter.linear.weight.grad.abs().sum() >= 0
    assert last.weight.grad.abs().sum() > 0  # the one that is zero moves first, and the others follow
    assert {name for name, _ in adapter.named_buffers()} == {"mean_D", "scale", "code_std_K"}


def test_the_last_layer_alone_is_zero(compressor):
    adapter = Adapter.from_compressor(compressor)
    *hidden, last = (layer for layer in adapter.mlp if isinstance(layer, torch.nn.Linear))
    assert not last.weight.any() and not last.bias.any()
    assert all(layer.weight.any() for layer in hidden)


def test_the_mlp_reads_codes_of_unit_variance(table_VD, compressor):
    adapter, read = Adapter.from_compressor(compressor), []
    adapter.mlp.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    adapter(compressor.compress(table_VD))
    torch.testing.assert_close(read[0].std(dim=0), torch.ones(K))


def test_it_is_position_wise(table_VD, compressor):
    adapter = trained(compressor)
    codes = compressor.compress(table_VD).reshape(10, 20, K)
    whole = adapter(codes)
    order = torch.randperm(20)
    torch.testing.assert_close(adapter(codes[:, order]), whole[:, order])
    changed = codes.clone()
    changed[3, 7] += 1
    moved = (adapter(changed) != whole).any(dim=-1)
    assert moved[3, 7]
    assert moved.sum() == 1


def test_it_sees_the_code_and_never_the_tokens_norm(table_VD, compressor):
    assert list(inspect.signature(Adapter.forward).parameters) == ["self", "z"]
    outside_D = torch.randn(D, generator=torch.Generator().manual_seed(2))
    outside_D -= compressor.components_KD.T @ (compressor.components_KD @ outside_D)
    longer_VD = table_VD + 0.05 * outside_D  # several times as long, but the same code
    assert (longer_VD.norm(dim=1) > 2 * table_VD.norm(dim=1)).all()
    adapter = trained(compressor)
    there, here = adapter(compressor.compress(longer_VD)), adapter(compressor.compress(table_VD))
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)


def test_an_axis_without_variance_is_not_blown_up():
    """A table of rank 3: the other axes' codes are rounding noise, and an eigenvalue of zero divides nothing."""
    generator = torch.Generator().manual_seed(0)
    rotation_DD = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    flat_VD = torch.randn(200, 3, generator=generator) @ rotation_DD[:3]
    compressor = EmbeddingCompressor(D, D).fit(flat_VD)
    assert compressor.code_std_K.min() == 0
    adapter, codes_VD = Adapter.from_compressor(compressor), compressor.compress(flat_VD)
    assert ((codes_VD / adapter.code_std_K)[:, 3:].abs() < 0.1).all()
    torch.testing.assert_close(adapter(codes_VD), compressor.decompress(codes_VD), atol=1e-6, rtol=1e-5)


def test_it_comes_back_from_disk(tmp_path, table_VD, compressor):
    adapter = Adapter.from_compressor(compressor, hidden=9)
    torch.nn.init.normal_(adapter.mlp[-1].weight)
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = Adapter.load(tmp_path / "adapter.safetensors")
    assert (loaded.d_z, loaded.d_model, loaded.hidden) == (K, D, 9)
    codes = compressor.compress(table_VD)
    assert torch.equal(loaded(codes), adapter(codes))
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "adapter.safetensors").read_bytes()
