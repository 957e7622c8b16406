"""Phase 1's steps on the rows that product quantisation rebuilds, from prepared files to an adapter on disk."""

from __future__ import annotations

import torch

from latentwire.arms_table import Weighting
from latentwire.codecs.adapted_product import AdaptedProductCodec
from latentwire.codecs.base import NotApplicable
from latentwire.codecs.product import ProductCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.errors import InputError
from latentwire.fingerprint import fingerprint
from latentwire.resuming.work import Work
from latentwire.settings import Phase1
from latentwire.table import load_table
from latentwire.training.run_phase1 import CodecTrainingFiles, train_on_codes


def run_quantised(
    files: CodecTrainingFiles,
    settings: Phase1,
    device: torch.device,
    *,
    seed: int,
    weighting: Weighting = "counts",
    hidden: int | None = None,
    work: Work,
) -> None:
    """Train an adapter that adds to the rebuilt rows, and write it as a codec, with its diagnostics and a summary.

    Args:
        files: inputs and outputs; the compressor is the identity, the codec one of product quantisation.
        settings: Phase 1's, of the configuration.
        device: where to train.
        seed, weighting: see :func:`~latentwire.training.phase1.train_phase1`.
        hidden: the adapter's hidden width; None for D/2.
        work: that this training is a part of; it continues where it was interrupted.

    Raises:
        InputError: the codec does not apply to this table.
    """
    compressor, table_VD = EmbeddingCompressor.load(files.compressor), load_table(files.table)
    try:
        inner = ProductCodec.from_pretrained(files.codec)
    except NotApplicable as reason:
        raise InputError(f"{files.codec}: {reason}; leave the adapters on it out of evaluate.arms") from None
    rows_VD = compressor.compress(inner.decode(torch.arange(len(table_VD))))
    adapter = train_on_codes(
        files,
        table_VD,
        rows_VD,
        compressor,
        settings,
        device,
        {"seed": seed, "recon_weight": 1.0, "hidden": hidden},
        weighting=weighting,
        residual=True,
        code=fingerprint(__name__, "latentwire.cli.set_threads"),
        work=work,
    )
    AdaptedProductCodec.of(inner, adapter, table_VD.dtype).save_pretrained(files.output, codes=files.codes)
