"""Final validation: one verdict over all code dimensions of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from safetensors import safe_open

from latentwire.artefacts import read_json
from latentwire.decisions.evidence import explained_variance, read_dimension
from latentwire.decisions.final_reads import is_confirmatory, record_read, recorded_configurations
from latentwire.decisions.kept import kept
from latentwire.decisions.methods import methods
from latentwire.decisions.verdict import VerdictSettings, bits, correct_exploratory, dimension_verdict
from latentwire.evaluation.scores import scoring_warnings
from latentwire.integrity import reading
from latentwire.layout import Layout
from latentwire.provenance import code_commit, provenance_path, utc_day
from latentwire.results import AnswerCounts, Ceiling, DataOrigin, ModelOrigin, Verdict, required_keys

if TYPE_CHECKING:
    import pandas as pd

    from latentwire.settings import Scoring

WARNED_SHARE = 0.01


def validate(
    root: str,
    compress_dims: list[int],
    seeds: dict[int, list[int]],
    configuration: str,
    settings: VerdictSettings,
) -> Verdict:
    """The verdict, an entry per code dimension.

    Args:
        root: the experiment's folder of results.
        compress_dims: code dimensions; the first is the primary test.
        seeds: training seeds at each of them.
        configuration: hash of the frozen configuration; the read of ``final`` is recorded under it.
        settings: thresholds and intervals.
    """
    paths = Layout(root)
    record_read(paths.final_reads, configuration)
    ceiling: Ceiling = read_json(paths.ceiling, required_keys(Ceiling))
    vocab_size, width, number_bits = _table_shape(paths.table)
    # All of it before the first interval: a file that is not what was written should not be found after minutes.
    dimensions = [read_dimension(paths, k, seeds[k]) for k in compress_dims]
    variances = [explained_variance(paths.spectrum, k) for k in compress_dims]
    model, data = _origin(paths)
    warnings = read_json(paths.manifest)["warnings"]
    scoring = read_json(provenance_path(paths.scores("final")))["settings"].get("scoring", "squad")
    entries = [
        dimension_verdict(
            results,
            ceiling=ceiling,
            variance=variance,
            bits_per_token=bits(results.k, width, vocab_size, number_bits),
            settings=settings,
        )
        for results, variance in zip(dimensions, variances, strict=True)
    ]
    correct_exploratory(entries)
    return {
        "experiment": settings.experiment,
        "model": model,
        "data": data,
        "date": utc_day(),
        "commit": code_commit(),
        "seeds": seeds[compress_dims[0]],
        "configuration": configuration,
        "confirmatory": is_confirmatory(paths.final_reads, configuration),
        "configurations_that_read_final": recorded_configurations(paths.final_reads),
        "outcome": entries[0]["outcome"],
        "wording": entries[0]["wording"],
        "warnings": [
            *warnings,
            *_answer_warnings(entries[0]["arms"]["text"]["counts"]),
            *_scoring_warnings(dimensions[0].arms["text"].rows, scoring),
        ],
        "ceiling": ceiling,
        "kept": kept(dimensions, **settings.bootstrap),
        "methods": methods(dimensions, **settings.bootstrap),
        "entries": entries,
    }


def _origin(paths: Layout) -> tuple[ModelOrigin, DataOrigin]:
    """What the verdict is about, as the data were prepared for it."""
    record = read_json(provenance_path(paths.manifest))
    prepared = record["settings"]
    return (
        {"path": prepared["model"], "revision": prepared["revision"], "made_from": record["model"]},
        {
            "source": prepared["source"],
            "path": prepared["path"],
            "train_file": prepared["train_file"],
            "dev_file": prepared["dev_file"],
            "revision": prepared["data_revision"],
        },
    )


def _answer_warnings(counts: AnswerCounts) -> list[str]:
    """What of the uncompressed model's answers makes its ceiling a matter of form."""
    kinds = {
        "empty": "are empty",
        "wrapped": "begin with a thinking tag or a code fence, or are a lead-in that ends with a colon",
    }
    return [
        f"{number} of {counts['questions']} answers of the uncompressed model {said}: look at model.system_prompt and "
        "model.template_arguments"
        for name, said in kinds.items()
        if (number := cast("int", counts[name])) > WARNED_SHARE * counts["questions"]  # type: ignore[literal-required]
    ]


def _scoring_warnings(rows: pd.DataFrame, scoring: Scoring) -> list[str]:
    """What F1 is not, or should not be."""
    own = [] if scoring == "squad" else [f"F1 and EM are by the definition '{scoring}', not the official one of SQuAD"]
    return own + scoring_warnings(rows, scoring)


def _table_shape(path: str) -> tuple[int, int, int]:
    """Rows, columns and bits per number of the embedding table, from its header."""
    with reading(path), safe_open(path, framework="np") as stored:
        part = stored.get_slice("table_VD")
        rows, columns = part.get_shape()
        return rows, columns, int("".join(filter(str.isdigit, part.get_dtype())))
