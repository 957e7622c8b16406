"""What is trained to rebuild embeddings: the adapter, a position-wise network from codes, and a linear bottleneck.

x̂ = μ + s·(W z + MLP(z / σ)), with μ and s of the standardised space and σ the codes' standard deviations, all
three constants. The hidden width is D/2, so that 512 → 4096 has 19.9 M parameters (3.8% of a 128,256-row table).
On rows that a quantiser has rebuilt, W is the identity and not stored. The bottleneck is x̂ = μ + s·B A x.

Shape suffixes: D embedding dimensions, K code dimensions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.files import atomic_path
from latentwire.integrity import reading


class Rebuilder(nn.Module):
    """A position-wise map to embeddings ``[.., D]``, in the space in which training measures errors."""

    mean_D: torch.Tensor
    scale: torch.Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.register_buffer("mean_D", torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def standardised(self, z: torch.Tensor) -> torch.Tensor:
        """Rebuilt embeddings in the standardised space, ``[.., D]``."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Rebuilt embeddings ``[.., D]``."""
        return self.mean_D + self.scale * self.standardised(z)

    @property
    def parameter_count(self) -> int:
        """Trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


class Adapter(Rebuilder):
    """Map codes ``[.., K]`` to embeddings ``[.., D]``.

    The bare constructor gives an ordinary start in a space with zero mean and unit scale;
    :meth:`from_compressor` starts at the compressor's linear inverse.

    Args:
        d_z: K, the code's dimension.
        d_model: D, the embedding's dimension.
        hidden: width of the three hidden layers; D/2 by default.
        residual: codes are rows already (K = D), to which the network adds what it learns.
    """

    code_std_K: torch.Tensor

    def __init__(
        self, d_z: int = 512, d_model: int = 4096, *, hidden: int | None = None, residual: bool = False
    ) -> None:
        super().__init__(d_model)
        hidden = max(1, d_model // 2) if hidden is None else hidden
        self.d_z, self.hidden = d_z, hidden
        self.linear = nn.Identity() if residual else nn.Linear(d_z, d_model, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(d_z, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, d_model),
        )
        self.register_buffer("code_std_K", torch.ones(d_z))

    @classmethod
    def from_compressor(
        cls, compressor: EmbeddingCompressor, *, hidden: int | None = None, residual: bool = False
    ) -> Adapter:
        """An adapter whose output is the compressor's linear inverse, so that training can only improve on it."""
        adapter = cls(compressor.output_dim, compressor.input_dim, hidden=hidden, residual=residual)
        with torch.no_grad():
            adapter.mean_D.copy_(compressor.mean_D)
            adapter.scale.copy_(compressor.scale)
            # Axes without variance hold rounding noise (about 1e-7 of the largest variance), which must not be blown
            # up to the size of the others.
            adapter.code_std_K.copy_(compressor.code_std_K.clamp_min(1e-3 * float(compressor.code_std_K.max())))
            if isinstance(adapter.linear, nn.Linear):
                adapter.linear.weight.copy_(compressor.components_KD.T)
            last = adapter.mlp[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.zero_()
        return adapter

    def standardised(self, z: torch.Tensor) -> torch.Tensor:
        """Rebuilt embeddings in the standardised space, ``[.., D]``, of codes ``[.., K]``."""
        if z.shape[-1] != self.d_z:
            raise ValueError(f"expected codes [.., {self.d_z}], got {tuple(z.shape)}")
        z = z.to(self.code_std_K.dtype)
        rebuilt: torch.Tensor = self.linear(z) + self.mlp(z / self.code_std_K)
        return rebuilt

    def stored(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """What is stored: the trained parameters rounded to a dtype, and the constants as they are."""
        trained = {name for name, _ in self.named_parameters()}
        return {
            name: tensor.detach().cpu().to(dtype if name in trained else tensor.dtype).contiguous()
            for name, tensor in self.state_dict().items()
        }

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write :meth:`stored` as safetensors, atomically."""
        with atomic_path(path) as temporary:
            save_file(self.stored(dtype), temporary)

    @classmethod
    def load(cls, path: str | Path) -> Adapter:
        """A saved adapter."""
        with reading(path):
            return cls.from_state(load_file(path))

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor]) -> Adapter:
        """An adapter with these tensors, which tell its sizes."""
        hidden, d_z = state["mlp.0.weight"].shape
        residual = "linear.weight" not in state
        adapter = cls(d_z, len(state["mean_D"]), hidden=hidden, residual=residual)
        adapter.load_state_dict(dict(state))
        return adapter


class LinearBottleneck(Rebuilder):
    """Map standardised embeddings ``[.., D]`` through K numbers to embeddings ``[.., D]``, both ways trained."""

    def __init__(self, compressor: EmbeddingCompressor) -> None:
        super().__init__(compressor.input_dim)
        self.encoder = nn.Linear(compressor.input_dim, compressor.output_dim, bias=False)
        self.decoder = nn.Linear(compressor.output_dim, compressor.input_dim, bias=False)
        with torch.no_grad():
            self.mean_D.copy_(compressor.mean_D)
            self.scale.copy_(compressor.scale)
            self.encoder.weight.copy_(compressor.components_KD)
            self.decoder.weight.copy_(compressor.components_KD.T)

    def standardised(self, z: torch.Tensor) -> torch.Tensor:
        """Rebuilt embeddings in the standardised space, ``[.., D]``, of standardised embeddings ``[.., D]``."""
        rebuilt: torch.Tensor = self.decoder(self.encoder(z))
        return rebuilt
