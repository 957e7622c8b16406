"""An experiment's findings as Markdown tables, for pages that quote them."""

from __future__ import annotations

from pathlib import Path

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.artefacts import read_json, read_parquet
from latentwire.decisions.evidence import read_dimension
from latentwire.layout import Layout
from latentwire.report.verdict_text import (
    comparisons_table,
    divergence_table,
    f1_table,
    percent,
    predictive_lines,
    reconstruction_table,
)
from latentwire.results import VERDICT_KEYS, DimensionVerdict, Verdict

EXAMPLES = 6
# The context around a question is left out of an example.
QUESTION = "\nQuestion: "


def findings(root: Path) -> str:
    """The tables of an experiment's verdict: F1, reconstruction beside it, differences, failures side by side.

    Args:
        root: the experiment's folder of results, with its verdict.
    """
    paths = Layout(str(root))
    verdict: Verdict = read_json(paths.verdict, VERDICT_KEYS)
    first = verdict["entries"][0]
    text = first["arms"]["text"]["f1"]
    lines = [
        f"{text['questions']} questions in {text['articles']} articles of `final`; "
        f"{100 * text['confidence']:.0f}% studentised bootstrap over articles, {text['resamples']} resamples; "
        f"ceiling on `gate`: F1 {percent(verdict['ceiling']['arms']['text']['f1'])}%.",
        "",
        *f1_table(verdict["entries"]),
        "",
        *_reconstruction_beside_f1(verdict["entries"]),
    ]
    for entry in verdict["entries"]:
        lines += ["", f"K = {entry['k']}, seeds {', '.join(map(str, entry['seeds']))}:", ""]
        lines += comparisons_table(entry)
        lines += ["", *divergence_table(entry), "", *predictive_lines(entry), *reconstruction_table(entry)]
    return "\n".join([*lines, "", *_failures(paths, first)]) + "\n"


def _reconstruction_beside_f1(entries: list[DimensionVerdict]) -> list[str]:
    """Does reconstruction predict generation? Every arm that rebuilds embeddings, best reconstruction first."""
    rows = [
        (everywhere["fvu"], arm, entry, everywhere, answers)
        for entry in entries
        for arm, found in entry["reconstruction"].items()
        if arm in entry["arms"] and (everywhere := found["all"]) and (answers := found["answer"])
    ]
    lines = ["| arm | K | FVU | FVU in answers | cosine | F1 % | of the ceiling % |", "|---|---|---|---|---|---|---|"]
    for fvu, arm, entry, everywhere, answers in sorted(rows, key=lambda row: row[0]):
        own = entry["arms"][arm]
        lines.append(
            f"| `{arm}` | {entry['k']} | {fvu:.3f} | {answers['fvu']:.3f} | {everywhere['cosine']:.3f} | "
            f"{percent(own['f1'])} | {percent(own['retention'])} |"
        )
    return lines


def _failures(paths: Layout, entry: DimensionVerdict) -> list[str]:
    """The first questions that the uncompressed text answers exactly and the chosen arm does not, all arms beside."""
    arms = read_dimension(paths, entry["k"], entry["seeds"]).arms
    shown = [arm for arm in ordered_arms(arms) if arm == "text" or arm_row(arm).kind in ("codec", "bound")]
    by_id = {arm: arms[arm].rows.drop_duplicates("id").set_index("id") for arm in shown}
    prompts = read_parquet(paths.data("final"), columns=["id", "source", "answers"]).set_index("id")
    lost = [
        name
        for name in prompts.index
        if by_id["text"].loc[name, "em"] == 1 and by_id[entry["chosen"]].loc[name, "em"] == 0
    ]
    lines = [f"| question | reference | {' | '.join(f'`{arm}`' for arm in shown)} |", "|---" * (len(shown) + 2) + "|"]
    for name in lost[:EXAMPLES]:
        question = prompts.loc[name, "source"].rpartition(QUESTION)[2]
        cells = [question, prompts.loc[name, "answers"][0], *(by_id[arm].loc[name, "prediction"] for arm in shown)]
        lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
    return [
        f"{len(lost)} questions that `text` answers exactly and `{entry['chosen']}` does not; the first:",
        "",
        *lines,
    ]


def _cell(text: str) -> str:
    """Text of a data set as the cell of a Markdown table."""
    plain = " ".join(text.split()).replace("\\", "\\\\")
    for mark in "|<>*_`[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain or "–"
