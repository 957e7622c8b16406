"""Arms with what they may use, from an experiment's files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant
from latentwire.codecs.base import NotApplicable
from latentwire.codecs.families import load_codec
from latentwire.codecs.files import codec_files
from latentwire.codecs.own import own_families
from latentwire.compression.counts import load_counts
from latentwire.integrity import check
from latentwire.layout import Layout
from latentwire.table import load_table


def arm_inputs(
    root: str, variants: Iterable[Variant], table: Path, counts: Path, own_codecs: Iterable[Path] = ()
) -> Iterator[tuple[Variant, ArmInputs | NotApplicable, list[Path]]]:
    """Each arm with its inputs, or the reason why it does not apply, and the files of its codec.

    Args:
        root: the experiment's folder of results.
        variants: the arms.
        table: the embedding table.
        counts: token counts.
        own_codecs: Python files of a user's own codecs.
    """
    table_VD, counts_V = load_table(table), load_counts(counts)["pca"]
    families = [family for file in own_codecs for family in own_families(file)]
    folders = [(variant, Layout(root).codec(variant)) for variant in variants]
    # All of them before the first is used: a spoilt one should not be found after hours of the others.
    codecs = {folder: codec_files(folder) for _, folder in folders if folder is not None}
    for file in dict.fromkeys(file for own in codecs.values() for file in own):
        check(file)
    for variant, folder in folders:
        if folder is None:
            yield variant, ArmInputs(table_VD, counts_V), []
            continue
        files = codecs[folder]
        try:
            yield variant, ArmInputs(table_VD, counts_V, load_codec(folder, families), draw=variant.seed or 0), files
        except NotApplicable as reason:
            yield variant, reason, files
