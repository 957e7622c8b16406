"""``quant``: the table itself in 4, 2 or 1 bits a number, at no more bits a token than the code takes.

Each dimension is standardised by its count-weighted mean and deviation and rounded to the levels that are optimal
for a Gaussian (Lloyd 1982, Max 1960). The deviations are shared by all tokens and are not counted as bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.stats import norm

from latentwire.arms import ArmInputs
from latentwire.compression.compressor import EmbeddingCompressor

BITS = (4, 2, 1)


def quantisation_bits(input_dim: int, code_dim: int, code_bits: int) -> int | None:
    """Bits a number that fit into a code of ``code_dim`` numbers of ``code_bits`` bits; None where 1 is too many."""
    return next((bits for bits in BITS if bits * input_dim <= code_dim * code_bits), None)


@cache
def gaussian_levels(bits: int) -> tuple[float, ...]:
    """The 2^bits levels that minimise the squared error of a standard Gaussian, by Lloyd's iteration."""
    levels = norm.ppf((np.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(2000):
        edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        levels = (norm.pdf(edges[:-1]) - norm.pdf(edges[1:])) / np.diff(norm.cdf(edges))
    return tuple(levels.tolist())


def not_applicable(inputs: ArmInputs) -> str | None:
    """Why no quantisation fits into the code, or None where one does."""
    input_dim, code_dim = inputs.table_VD.shape[1], inputs.compress_dim
    assert code_dim is not None
    if quantisation_bits(input_dim, code_dim, inputs.table_VD.element_size() * 8) is not None:
        return None
    return f"one bit for each of {input_dim} numbers is more than a code of {code_dim} numbers takes"


def quant(inputs: ArmInputs, ids_U: torch.Tensor) -> torch.Tensor:
    """Rows of the quantised table.

    Raises:
        ValueError: even one bit a number is more than the code takes.
    """
    compressor = EmbeddingCompressor.load(inputs.compressor, inputs.compress_dim)
    table_VD = inputs.table_VD
    bits = quantisation_bits(compressor.input_dim, compressor.output_dim, table_VD.element_size() * 8)
    if bits is None:
        raise ValueError(not_applicable(inputs))
    used_U = inputs.counts_V.nonzero().flatten()
    weights_U1 = inputs.counts_V[used_U].double()[:, None]
    rows_UD = table_VD[used_U].double()
    mean_D = (weights_U1 * rows_UD).sum(dim=0) / weights_U1.sum()
    std_D = ((weights_U1 * (rows_UD - mean_D).square()).sum(dim=0) / weights_U1.sum()).sqrt().clamp_min(1e-30)
    levels = torch.tensor(gaussian_levels(bits), dtype=torch.float64)
    standardised_UD = (table_VD[ids_U].double() - mean_D) / std_D
    nearest_UD = torch.bucketize(standardised_UD, (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest_UD] * std_D + mean_D).float()


ARMS = {"quant": quant}
