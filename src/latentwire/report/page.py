"""The report's page, from an experiment's results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from latentwire.arms_table import GROUP_ARMS
from latentwire.decisions.evidence import read_dimension
from latentwire.decisions.verdict_text import ordered_arms, percent
from latentwire.files import read_json
from latentwire.layout import Layout
from latentwire.provenance import provenance_path
from latentwire.report.figures import arms_figure, curves_figure, spectrum_figure

EXAMPLES = 8


def render_report(root: Path) -> str:
    """The page as HTML; everything that comes from data is escaped.

    Args:
        root: the experiment's folder of results, with its verdict.
    """
    paths = Layout(str(root))
    verdict = read_json(paths.verdict)
    prompts = pd.read_parquet(paths.data("final"), columns=["id", "source", "answers"])
    figures, examples = {}, {}
    for entry in verdict["entries"]:
        linear = any(arm in entry["arms"] for arm in GROUP_ARMS["linear"])
        results = read_dimension(paths, entry["k"], verdict["seeds"], linear=linear)
        figures[entry["k"]] = {"arms": arms_figure(entry), "curves": curves_figure(results.histories)}
        examples[entry["k"]] = _examples(prompts, results.arms, entry["chosen"])
    spectrum = pd.read_csv(paths.spectrum, sep="\t")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("latentwire.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.jinja").render(
        verdict=verdict,
        figures=figures,
        examples=examples,
        spectrum=spectrum_figure(spectrum, [entry["k"] for entry in verdict["entries"]]),
        manifest=read_json(paths.manifest),
        versions=read_json(provenance_path(paths.manifest))["versions"],
        times=_times(root),
        percent=percent,
        ordered_arms=ordered_arms,
    )


def _examples(prompts: pd.DataFrame, arms: dict[str, Any], chosen: str) -> dict[str, Any]:
    """The first questions of ``final`` with the answers of the ceiling, the untrained inverse and the chosen arm."""
    shown = [arm for arm in ("text", "pca", chosen) if arm in arms]
    answers = {arm: arms[arm].rows.drop_duplicates("id").set_index("id")["prediction"] for arm in shown}
    rows = [
        {
            "source": row["source"],
            "answers": list(row["answers"]),
            "predictions": [answers[arm].get(row["id"], "") for arm in shown],
        }
        for row in prompts.head(EXAMPLES).to_dict("records")
    ]
    return {"arms": shown, "rows": rows}


def _times(root: Path) -> list[dict[str, Any]]:
    """Time and memory of every job, from Snakemake's benchmark files."""
    rows = []
    for path in sorted((root / "benchmarks").rglob("*.tsv")):
        table = pd.read_csv(path, sep="\t")
        rows.append(
            {
                "job": str(path.relative_to(root / "benchmarks").with_suffix("")),
                "seconds": round(float(table["s"].iloc[-1]), 1),
                "memory": str(table["max_rss"].iloc[-1]),
            }
        )
    return rows
