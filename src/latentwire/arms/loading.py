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
    for variant in variants:
        folder = Layout(root).codec(variant)
        if folder is None:
            yield variant, ArmInputs(table_VD, counts_V), []
            continue
        files = codec_files(folder)
        try:
            yield variant, ArmInputs(table_VD, counts_V, load_codec(folder, families)), files
        except NotApplicable as reason:
            yield variant, reason, files
