"""The compressor: standardise, project on K axes; and its linear inverse.

x is standardised to (x − μ)/s with one scalar s = √(tr Σ / D), so the projection is scikit-learn's PCA up to that
scalar. Codes take the dtype of what is compressed: a bf16 table has bf16 codes.

Shape suffixes: D embedding dimensions, K code dimensions.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Literal, Self, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from latentwire.compression.pca import fit_pca, weighted_moments
from latentwire.files import atomic_path
from latentwire.integrity import reading

Method = Literal["pca", "random", "identity"]
BLOCK_ROWS = 8192
_TENSORS = ("mean_D", "scale", "components_KD", "code_std_K", "spectrum_D")


class EmbeddingCompressor:
    """Linear compression of embeddings from ``input_dim`` to ``output_dim`` numbers.

    Args:
        input_dim: D.
        output_dim: K, at most D.
        method: ``pca`` (the principal axes), ``random`` (random orthonormal axes, a control) or ``identity`` (the
            embedding's own axes, K = D: nothing is compressed, and the inverse gives every row back to the bit).
        seed: of the random axes.

    Attributes (after :meth:`fit`, float32):
        mean_D: μ over the fitted occurrences.
        scale: s, a scalar: root mean variance per dimension.
        components_KD: orthonormal axes.
        code_std_K: standard deviation of each code dimension over the fitted occurrences.
        spectrum_D: eigenvalues of the covariance in raw units (``pca`` only).
        explained_variance_ratio: share of the *total* variance that the axes keep.
    """

    mean_D: torch.Tensor
    scale: torch.Tensor
    components_KD: torch.Tensor
    code_std_K: torch.Tensor
    spectrum_D: torch.Tensor

    def __init__(self, input_dim: int, output_dim: int, method: Method = "pca", *, seed: int = 0) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
        if not 1 <= output_dim <= input_dim:
            raise ValueError(f"output_dim (compress_dim) {output_dim} must be between 1 and input_dim {input_dim}")
        if method == "identity" and output_dim != input_dim:
            raise ValueError(f"the identity keeps all {input_dim} dimensions, not {output_dim}")
        self.input_dim, self.output_dim, self.method, self.seed = input_dim, output_dim, method, seed
        self.explained_variance_ratio = math.nan

    def fit(self, embeddings: torch.Tensor, counts: torch.Tensor | None = None, smoothing: float = 0.0) -> Self:
        """Fit to embeddings, exactly.

        Args:
            embeddings: float ``[.., D]``; every leading axis counts as rows.
            counts: occurrences of each row, or other weights, ``[rows]``; None counts each row once.
            smoothing: occurrences added to every row, so that rows that don't occur count a little.

        Returns:
            The compressor itself.

        Raises:
            ValueError: another D, fewer than K + 1 rows, or no variance at all.
        """
        if embeddings.shape[-1] != self.input_dim:
            raise ValueError(f"expected embeddings [.., {self.input_dim}], got {tuple(embeddings.shape)}")
        table_VD = embeddings.detach().cpu().reshape(-1, self.input_dim)
        counts_V = torch.ones(len(table_VD), dtype=torch.int64) if counts is None else counts.cpu()
        if self.method == "pca":
            pca = fit_pca(table_VD, counts_V, self.output_dim, smoothing)
            mean_D, axes_KD, spectrum_D = pca.mean_D, pca.components_KD, pca.spectrum_D
            total, kept_K = pca.total_variance, pca.spectrum_D[: self.output_dim]
        else:
            moments = weighted_moments(table_VD, counts_V, smoothing)
            axes_KD = (
                self._random_axes() if self.method == "random" else torch.eye(self.input_dim, dtype=torch.float64)
            )
            mean_D, spectrum_D = moments.mean_D, torch.zeros(0, dtype=torch.float64)
            total = float(moments.covariance_DD.trace())
            kept_K = ((axes_KD @ moments.covariance_DD) * axes_KD).sum(dim=1)
        if total <= 1e-20 * float(mean_D.square().sum()):  # equal rows leave the rounding of their mean
            raise ValueError("the embeddings do not vary: there is nothing to compress")
        scale = math.sqrt(total / self.input_dim)
        if self.method == "identity":
            # No mean, and a power of two: a code is its row with other exponents, and rounds nothing in any dtype.
            mean_D, scale = torch.zeros_like(mean_D), 2.0 ** round(math.log2(scale))
        self.mean_D, self.components_KD, self.spectrum_D = mean_D.float(), axes_KD.float(), spectrum_D.float()
        self.scale = torch.tensor(scale, dtype=torch.float32)
        self.code_std_K = (kept_K.sqrt() / scale).float()
        self.explained_variance_ratio = float(kept_K.sum() / total)
        return self

    def _random_axes(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        gaussian_DK = torch.randn(self.input_dim, self.output_dim, dtype=torch.float64, generator=generator)
        return torch.linalg.qr(gaussian_DK).Q.T.contiguous()

    def to(self, device: torch.device) -> Self:
        """The same compressor with its tensors on a device."""
        moved = copy.copy(self)
        for name in _TENSORS:
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        """(x − μ)/s in float32, ``[.., D]``."""
        return (x.float() - self.mean_D.to(x.device)) / self.scale.to(x.device)

    def compress(self, x: torch.Tensor) -> torch.Tensor:
        """Codes ``[.., K]`` of embeddings ``[.., D]``, rounded to the dtype of ``x``."""
        if x.shape[-1] != self.input_dim:
            raise ValueError(f"expected embeddings [.., {self.input_dim}], got {tuple(x.shape)}")
        return (self.standardise(x) @ self.components_KD.T.to(x.device)).to(x.dtype)

    def codes(self, table_VD: torch.Tensor) -> torch.Tensor:
        """Codes ``[V, K]`` of a whole table: a product of another shape rounds a row's code differently."""
        return torch.cat([self.compress(block) for block in table_VD.split(BLOCK_ROWS)])

    def decompress(self, z: torch.Tensor) -> torch.Tensor:
        """The linear inverse: float32 embeddings ``[.., D]`` of codes ``[.., K]``."""
        standardised = z.float() @ self.components_KD.to(z.device)
        return self.mean_D.to(z.device) + self.scale.to(z.device) * standardised

    def truncate(self, output_dim: int) -> EmbeddingCompressor:
        """The compressor of the first ``output_dim`` axes: for ``pca``, what a fit of that size gives."""
        if output_dim > self.output_dim:
            raise ValueError(f"compress_dim {output_dim} is larger than the fitted {self.output_dim}")
        cut = EmbeddingCompressor(self.input_dim, output_dim, self.method, seed=self.seed)
        cut.mean_D, cut.scale, cut.spectrum_D = self.mean_D, self.scale, self.spectrum_D
        cut.components_KD = self.components_KD[:output_dim].contiguous()
        cut.code_std_K = self.code_std_K[:output_dim].contiguous()
        cut.explained_variance_ratio = float(cut.code_std_K.double().square().sum() / self.input_dim)
        return cut

    def spectrum_table(self) -> str:
        """Eigenvalues, and the share of the total variance that the first k keep, as tab-separated text."""
        values_D = self.spectrum_D.double()
        kept_D = (values_D.cumsum(0) / values_D.sum()).tolist()
        rows = [
            f"{k}\t{value:.9e}\t{kept:.9f}"
            for k, (value, kept) in enumerate(zip(values_D.tolist(), kept_D, strict=True), 1)
        ]
        return "\n".join(["k\teigenvalue\texplained_variance_ratio", *rows]) + "\n"

    def save(self, path: str | Path) -> None:
        """Write as safetensors, atomically."""
        facts = {"method": self.method, "seed": self.seed, "explained": self.explained_variance_ratio}
        # One entry alone: safetensors writes several in a random order, and the same fit must give the same bytes.
        header = {"compressor": json.dumps(facts, sort_keys=True)}
        with atomic_path(path) as temporary:
            save_file({name: getattr(self, name).contiguous() for name in _TENSORS}, temporary, metadata=header)

    @classmethod
    def load(cls, path: str | Path, output_dim: int | None = None) -> EmbeddingCompressor:
        """A saved compressor, cut to ``output_dim`` axes if that is given."""
        with reading(path), safe_open(path, framework="pt") as stored:
            facts = json.loads(stored.metadata()["compressor"])
            tensors = {name: stored.get_tensor(name) for name in _TENSORS}
        k, d = tensors["components_KD"].shape
        loaded = cls(d, k, facts["method"], seed=facts["seed"])
        for name, tensor in tensors.items():
            setattr(loaded, name, tensor)
        loaded.explained_variance_ratio = facts["explained"]
        return loaded if output_dim is None else loaded.truncate(output_dim)
