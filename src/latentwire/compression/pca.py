"""Exact PCA of token occurrences from table rows and their counts.

For rows x_v with counts c_v and N = Σ c_v, the covariance over all N occurrences is
Σ c_v (x_v − μ)(x_v − μ)ᵀ / (N − 1) with μ = Σ c_v x_v / N: the same matrix as scikit-learn's PCA sees when every
occurrence is gathered, at the cost of the unique rows alone. Additive smoothing replaces c_v with c_v + λ for
every row of the table, so that rows without an occurrence count a little.

Shape suffixes: V table rows, U rows in a block, D embedding dimensions, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from latentwire.compression.counts import mean_embedding

# Rows per rank-k update: enough for BLAS to reach matrix-multiply throughput.
UPDATE_ROWS = 2048
# Above this share of all eigenvectors, computing them all takes less time: close ones are orthogonalised one by one.
MOST_SHARE = 0.25


@dataclass(frozen=True)
class Moments:
    """Weighted first and second moments in float64: ``mean_D`` and ``covariance_DD``."""

    mean_D: torch.Tensor
    covariance_DD: torch.Tensor


@dataclass(frozen=True)
class PCAFit:
    """Leading principal axes and the whole spectrum.

    Attributes:
        mean_D: μ, float64.
        components_KD: orthonormal rows, float64; each row's entry of largest magnitude is positive.
        spectrum_D: all eigenvalues of the covariance, descending, float64 (raw units squared).
    """

    mean_D: torch.Tensor
    components_KD: torch.Tensor
    spectrum_D: torch.Tensor

    @property
    def total_variance(self) -> float:
        """The trace of the covariance."""
        return float(self.spectrum_D.sum())

    def explained_variance_ratio(self, k: int) -> float:
        """Variance kept by the first ``k`` components over the *total* variance."""
        return float(self.spectrum_D[:k].sum() / self.spectrum_D.sum())


def weighted_moments(table_VD: torch.Tensor, counts_V: torch.Tensor, smoothing: float = 0.0) -> Moments:
    """Mean and covariance of the occurrences.

    The mean is summed in float64. Rows are centred without losing its digits; their weighted products are summed in
    float32 within a block and in float64 over blocks: each entry of the covariance is off by less than 1e-6 of the
    largest variance.

    Args:
        table_VD: embeddings, any float dtype, ``[V, D]``.
        counts_V: occurrences of each row, or other weights, ``[V]``; rows without weight are not read.
        smoothing: λ, occurrences added to every row.

    Raises:
        ValueError: fewer than two occurrences, a negative count or smoothing, or shapes that disagree.
        FloatingPointError: an occurring row holds NaN or an infinity.
    """
    if table_VD.ndim != 2 or counts_V.shape != table_VD.shape[:1]:
        raise ValueError(f"expected table [V, D] and counts [V], got {tuple(table_VD.shape)}, {tuple(counts_V.shape)}")
    if (counts_V < 0).any():
        raise ValueError(f"token counts can't be negative, row {int((counts_V < 0).nonzero()[0])} has one")
    if not 0 <= smoothing < float("inf"):
        raise ValueError(f"smoothing {smoothing} must be a finite number of occurrences, 0 or more")
    if int(counts_V.sum()) < 2:
        raise ValueError(f"PCA needs at least two token occurrences, got {int(counts_V.sum())}")
    weights_V = counts_V.double() + smoothing
    used_U = weights_V.nonzero().flatten()
    total = float(weights_V.sum())
    width = table_VD.shape[1]
    mean_D = mean_embedding(table_VD, weights_V)
    # Subtracted in two parts, the float64 mean loses no digit in float32: near the mean, x - high is exact.
    exact = torch.promote_types(table_VD.dtype, torch.float32)
    high_D = mean_D.to(exact)
    low_D = (mean_D - high_D).to(exact)
    lower_DD = np.zeros((width, width), order="F")
    for rows_U in used_U.split(UPDATE_ROWS):
        centred_UD = table_VD[rows_U].to(exact).sub_(high_D).sub_(low_D)
        centred_UD *= weights_V[rows_U].sqrt().to(exact)[:, None]
        # A symmetric update computes one triangle: half of a full product's work.
        lower_DD += scipy.linalg.blas.ssyrk(1.0, centred_UD.float().numpy().T, lower=1)
    upper_DD = torch.from_numpy(lower_DD.T)
    covariance_DD = upper_DD + upper_DD.T.contiguous()
    covariance_DD.diagonal().div_(2)
    return Moments(mean_D, covariance_DD.div_(total - 1))


def leading_eigenpairs(symmetric_DD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All eigenvalues of a symmetric matrix, and the eigenvectors of the ``k`` largest.

    Householder tridiagonalisation A = QTQᵀ (Golub and Van Loan, Matrix Computations, 8.3), the spectrum of T, the
    leading eigenvectors of T, and Q applied to those alone: ``scipy.linalg.eigh`` gives either all of the vectors or
    only the values of those that it computes.

    Args:
        symmetric_DD: float64 in Fortran order, overwritten; its lower triangle is read.
        k: 1 to D.

    Returns:
        Eigenvalues ``[D]`` and eigenvectors ``[D, k]``, both in ascending order of the eigenvalue.

    Raises:
        numpy.linalg.LinAlgError: LAPACK's iteration does not converge.
    """
    width = len(symmetric_DD)
    if k > MOST_SHARE * width:
        values_D, vectors_DD = scipy.linalg.eigh(symmetric_DD, overwrite_a=True, driver="evd")
        return values_D, vectors_DD[:, width - k :]
    lapack = scipy.linalg.lapack
    work = int(lapack.dsytrd_lwork(width, lower=1)[0])
    reflectors_DD, diagonal, below, tau, _ = lapack.dsytrd(symmetric_DD, lower=1, overwrite_a=1, lwork=work)
    values_D = scipy.linalg.eigvalsh_tridiagonal(diagonal, below)
    _, vectors_DK = scipy.linalg.eigh_tridiagonal(diagonal, below, select="i", select_range=(width - k, width - 1))
    # The first coordinate has no reflector: Q is the identity there.
    reflectors, rest = np.asfortranarray(reflectors_DD[1:, :-1]), np.asfortranarray(vectors_DK[1:])
    work = int(lapack.dormqr("L", "N", reflectors, tau, rest, lwork=-1)[1][0])
    vectors_DK[1:] = lapack.dormqr("L", "N", reflectors, tau, rest, lwork=work, overwrite_c=1)[0]
    return values_D, vectors_DK


def fit_pca(table_VD: torch.Tensor, counts_V: torch.Tensor, components: int, smoothing: float = 0.0) -> PCAFit:
    """Exact PCA of the occurrences that ``counts_V`` describes.

    Args:
        table_VD: embeddings ``[V, D]``.
        counts_V: occurrences of each row, ``[V]``.
        components: K, at most D and at most the rank that the data allow.
        smoothing: λ, occurrences added to every row.

    Raises:
        ValueError: ``components`` is larger than D, or than the number of unique rows − 1.
    """
    width = table_VD.shape[1]
    unique = len(table_VD) if smoothing else int((counts_V > 0).sum())
    if not 1 <= components <= width:
        raise ValueError(f"compress_dim {components} must be between 1 and the embedding dimension {width}")
    if components > unique - 1:
        raise ValueError(
            f"compress_dim {components} needs at least {components + 1} unique tokens, the PCA split has {unique}: "
            "raise pca.samples"
        )
    moments = weighted_moments(table_VD, counts_V, smoothing)
    values_D, vectors_DK = leading_eigenpairs(moments.covariance_DD.numpy().T, components)
    spectrum_D = torch.from_numpy(values_D[::-1].copy()).clamp_min(0)
    components_KD = torch.from_numpy(vectors_DK[:, ::-1].T.copy())
    largest_K1 = components_KD.abs().argmax(dim=1, keepdim=True)
    components_KD *= components_KD.gather(1, largest_K1).sign()
    return PCAFit(moments.mean_D, components_KD, spectrum_D)
