"""Final validation: one verdict over all code dimensions of an experiment."""

from __future__ import annotations

from typing import Any

from safetensors import safe_open

from latentwire.decisions.evidence import explained_variance, read_dimension
from latentwire.decisions.final_reads import is_confirmatory, record_read, recorded_configurations
from latentwire.decisions.verdict import VerdictSettings, bits, correct_exploratory, dimension_verdict
from latentwire.files import read_json
from latentwire.layout import Layout
from latentwire.provenance import code_commit, provenance_path, utc_day


def validate(
    root: str,
    compress_dims: list[int],
    seeds: dict[int, list[int]],
    configuration: str,
    settings: VerdictSettings,
) -> dict[str, Any]:
    """The verdict, an entry a code dimension.

    Args:
        root: the experiment's folder of results.
        compress_dims: code dimensions; the first is the primary test.
        seeds: training seeds at each of them.
        configuration: hash of the frozen configuration; the read of ``final`` is recorded under it.
        settings: thresholds and intervals.
    """
    paths = Layout(root)
    record_read(paths.final_reads, configuration)
    ceiling = read_json(paths.ceiling)
    vocab_size, width, number_bits = _table_shape(paths.table)
    entries = [
        dimension_verdict(
            read_dimension(paths, k, seeds[k]),
            ceiling=ceiling,
            variance=explained_variance(paths.spectrum, k),
            bits_per_token=bits(k, width, vocab_size, number_bits),
            settings=settings,
        )
        for k in compress_dims
    ]
    correct_exploratory(entries)
    return {
        "experiment": settings.experiment,
        **_origin(paths),
        "seeds": seeds[compress_dims[0]],
        "configuration": configuration,
        "confirmatory": is_confirmatory(paths.final_reads, configuration),
        "configurations_that_read_final": recorded_configurations(paths.final_reads),
        "outcome": entries[0]["outcome"],
        "wording": entries[0]["wording"],
        "ceiling": ceiling,
        "entries": entries,
    }


def _origin(paths: Layout) -> dict[str, Any]:
    """What the verdict is about, as the data were prepared for it, and when and by which commit it is written."""
    record = read_json(provenance_path(paths.manifest))
    prepared = record["settings"]
    data = {name: prepared[name] for name in ("source", "path", "train_file", "dev_file")}
    return {
        "model": {"path": prepared["model"], "revision": prepared["revision"], "made_from": record["model"]},
        "data": data | {"revision": prepared["data_revision"]},
        "date": utc_day(),
        "commit": code_commit(),
    }


def _table_shape(path: str) -> tuple[int, int, int]:
    """Rows, columns and bits a number of the embedding table, from its header."""
    with safe_open(path, framework="np") as stored:
        part = stored.get_slice("table_VD")
        rows, columns = part.get_shape()
        return rows, columns, int("".join(filter(str.isdigit, part.get_dtype())))
