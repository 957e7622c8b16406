"""The report's page, from an experiment's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from latentwire.artefacts import read_json, read_parquet, read_tsv
from latentwire.decisions.evidence import read_dimension
from latentwire.integrity import reading
from latentwire.layout import Layout
from latentwire.provenance import provenance_path
from latentwire.report.figures import arms_figure, curves_figure, spectrum_figure
from latentwire.report.tables import Table, criteria_table, outcomes_table, scores_table, splits_table
from latentwire.report.verdict_text import TWO_RATES, data_name, gate_kl, kept_lines, model_name, percent
from latentwire.results import VERDICT_KEYS, Verdict

EXAMPLES = 8


def render_report(root: Path) -> str:
    """The page as HTML; everything that comes from data is escaped.

    Args:
        root: the experiment's folder of results, with its verdict.
    """
    paths = Layout(str(root))
    verdict: Verdict = read_json(paths.verdict, VERDICT_KEYS)
    prompts = read_parquet(paths.data("final"), columns=["id", "source", "answers"])
    spectrum, splits = read_tsv(paths.spectrum), splits_table(read_json(paths.manifest))
    versions = Table(("package", "version"), list(read_json(provenance_path(paths.manifest))["versions"].items()))
    read = [(entry, read_dimension(paths, entry["k"], entry["seeds"])) for entry in verdict["entries"]]
    figures, tables = {}, {}
    for entry, results in read:
        figures[entry["k"]] = {"arms": arms_figure(entry), "curves": curves_figure(results.histories)}
        tables[entry["k"]] = {
            "arms": scores_table(entry),
            "criteria": criteria_table(entry),
            "examples": _examples(prompts, results.arms, entry["chosen"]),
        }
    return _template().render(
        verdict=verdict,
        model=model_name(verdict).replace("`", ""),
        data=data_name(verdict).replace("`", ""),
        outcomes=outcomes_table(verdict),
        kept=[line.removeprefix("- ").replace("`", "") for line in kept_lines(verdict)],
        figures=figures,
        tables=tables,
        spectrum=spectrum_figure(spectrum, [entry["k"] for entry in verdict["entries"]]),
        splits=splits,
        versions=versions,
        times=_times(root),
        percent=percent,
        gate_kl=gate_kl,
        two_rates=TWO_RATES.replace("*", ""),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latentwire.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _examples(prompts: pd.DataFrame, arms: dict[str, Any], chosen: str) -> Table:
    """The first questions of ``final`` with the answers of the ceiling, the untrained inverse and the chosen arm."""
    shown = [arm for arm in ("text", "pca", chosen) if arm in arms]
    answers = {arm: arms[arm].rows.drop_duplicates("id").set_index("id")["prediction"] for arm in shown}
    rows = [
        (row["source"], " | ".join(row["answers"]), *(answers[arm].get(row["id"], "") for arm in shown))
        for row in prompts.head(EXAMPLES).to_dict("records")
    ]
    return Table(("prompt", "references", *shown), rows)


def _times(root: Path) -> Table:
    """Time and memory of every job, from Snakemake's benchmark files."""
    rows = []
    for path in sorted((root / "benchmarks").rglob("*.tsv")):
        table = read_tsv(path)
        job = str(path.relative_to(root / "benchmarks").with_suffix(""))
        with reading(path):
            rows.append((job, str(round(float(table["s"].iloc[-1]), 1)), str(table["max_rss"].iloc[-1])))
    heads = ("job", "seconds", "peak memory, MB")
    return Table(heads, rows, heads[1:])
