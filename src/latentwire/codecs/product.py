"""Product quantisation: each group of neighbouring dimensions is one of 256 codewords of its own codebook.

Codebooks come from k-means in which a row weighs as often as its token occurs, plus one (Jégou, Douze and Schmid 2011,
with weights): tokens that a prompt is likely to hold are stored most exactly. With the root of that weight, or equal
weights, rare tokens are stored better and frequent ones worse.

Shape suffixes: V table rows, D embedding dimensions, S groups (subspaces), C codewords, N dimensions per group, U ids.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from latentwire.codecs.base import Codec, NotApplicable
from latentwire.errors import InputError

CODEWORDS = 256
ITERATIONS = 25
# Dimensions per codeword, and the power of token counts + 1 that a row weighs, by the codec's name.
FORMATS = {
    "pq4": (4, 1.0),
    "pq4_root": (4, 0.5),
    "pq4_type": (4, 0.0),
    "pq6": (6, 1.0),
    "pq8": (8, 1.0),
    "pq8_type": (8, 0.0),
}


class ProductCodec(Codec):
    """``codes_VS`` in uint8, and ``codebooks_SCN`` in bf16."""

    family: ClassVar[str] = "product"

    @classmethod
    def fit(cls, table_VD: torch.Tensor, weights_V: torch.Tensor, group: int, *, seed: int = 0) -> ProductCodec:
        """Fit one codebook per ``group`` neighbouring dimensions: 8/``group`` bits per parameter, and the codebooks.

        Args:
            table_VD: the embedding table.
            weights_V: of its rows, positive.
            group: dimensions per codeword.
            seed: of the codewords that k-means starts from, rows drawn by weight.

        Raises:
            NotApplicable: the width is no multiple of the group, or the table has fewer rows than codewords.
            InputError: faiss is not installed.
        """
        rows, width = table_VD.shape
        if width % group:
            raise NotApplicable(f"{width} dimensions are no multiple of groups of {group}")
        if rows < CODEWORDS:
            raise NotApplicable(f"{CODEWORDS} codewords for a table of {rows} rows")
        weights = weights_V.double().numpy()
        generator = np.random.default_rng(seed)
        codes, codebooks = [], []
        for part_VN in table_VD.float().split(group, dim=1):
            part = np.ascontiguousarray(part_VN.numpy())
            start = part[generator.choice(rows, CODEWORDS, replace=False, p=weights / weights.sum())]
            codewords_CN = torch.from_numpy(_k_means(part, weights.astype(np.float32), start)).bfloat16()
            codes.append(_nearest(part, codewords_CN.float().numpy()))
            codebooks.append(codewords_CN)
        codes_VS = torch.from_numpy(np.stack(codes, axis=1).astype(np.uint8))
        return cls({"codes_VS": codes_VS}, {"codebooks_SCN": torch.stack(codebooks)}, (rows, width))

    @classmethod
    def fit_named(cls, name: str, table_VD: torch.Tensor, counts_V: torch.Tensor) -> ProductCodec:
        """The codec of :data:`FORMATS`. By counts + 1, tokens that don't occur count a little."""
        group, power = FORMATS[name]
        return cls.fit(table_VD, (counts_V + 1).double() ** power, group)

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        """Each group's codeword."""
        codebooks_SCN = self.decoder["codebooks_SCN"].float()
        codes_US = self.codes["codes_VS"][ids_U].long()
        return codebooks_SCN[torch.arange(len(codebooks_SCN)), codes_US].flatten(1)


def _faiss() -> Any:
    """The library, which a GPU machine's image may lack; decoding does not need it."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise InputError(
            "product quantisers (pq*) are fitted with the package faiss-cpu, which is not installed here: pip install "
            "faiss-cpu, fit them where it is (fit_codec.py takes a CPU) and carry the files, or name no pq* in "
            "evaluate.arms"
        ) from error
    return faiss


def _k_means(points: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Codewords of weighted k-means from a given start, float32."""
    faiss = _faiss()
    faiss.omp_set_num_threads(torch.get_num_threads())
    # Without this, more points than 256 per codeword are sampled. None of its own starts looks at the weights.
    k_means = faiss.Kmeans(
        points.shape[1], len(start), niter=ITERATIONS, max_points_per_centroid=len(points) // len(start) + 1
    )
    k_means.train(points, weights=weights, init_centroids=start)
    return np.asarray(k_means.centroids)


def _nearest(points: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """The nearest codeword of each point."""
    index = _faiss().IndexFlatL2(points.shape[1])
    index.add(codewords)
    return np.asarray(index.search(points, 1)[1][:, 0])
