"""The verdict in a screenful: what a run ends with."""

from __future__ import annotations

from pathlib import Path

from latentwire.layout import Layout
from latentwire.report.verdict_text import data_name, model_name, percent
from latentwire.results import Verdict

# Ratios of compression that have their line; the verdict has all.
RATIOS = 4


def summarise_verdict(verdict: Verdict, root: str) -> list[str]:
    """At most fifteen lines: question, answer, threshold, ceiling, ratios, the next command, where everything is.

    Args:
        verdict: of an experiment.
        root: the experiment's folder of results.
    """
    entries, paths = verdict["entries"], Layout(root)
    primary, ceiling = entries[0], verdict["ceiling"]
    model, data = (name(verdict).replace("`", "") for name in (model_name, data_name))
    ratio = f"{primary['bits_per_token']['ratio']:g}x"
    lines = [
        f"Question   does {model} still answer when its prompt is compressed {ratio}? Data: {data}",
        f"Answer     {primary['wording']} ({ratio}, K = {primary['k']}, arm {primary['chosen']})",
        f"Threshold  F1 {100 * primary['threshold']:g}%, for the whole 95% interval",
        f"Ceiling    F1 {percent(primary['arms']['text']['f1'])}% of the uncompressed text",
    ]
    if ceiling["override"] or not verdict["confirmatory"]:
        weak = ["the ceiling check is overridden"] if ceiling["override"] else []
        weak += [] if verdict["confirmatory"] else ["not confirmatory: final was read before"]
        lines.append(f"Weakness   {'; '.join(weak)}")
    for entry in entries[:RATIOS]:
        head = f"{entry['bits_per_token']['ratio']:g}x"
        route = f"{entry['chosen']}, gate {entry['gate']['reading']}, {entry['outcome']}"
        lines.append(f"{head:<10} F1 {percent(entry['f1'])}%: {route}")
    if len(entries) > RATIOS:
        lines.append(f"           and {len(entries) - RATIOS} more, in the verdict")
    for kept in verdict["kept"][:1]:
        share = f"{100 * kept['share']:g}% of the text's F1"
        best = kept["cheapest"]
        said = f"{best} keeps {share}, at {kept['bits'][best]:.2f} bits per table parameter" if best else None
        lines.append(f"Cheapest   {said or f'no codec is shown to keep {share}'}")
    lines.append(f"Next       {primary['next']['why']}")
    if primary["next"]["command"]:
        lines.append(f"           {primary['next']['command']}")
    lines.append(f"Verdict    {Path(paths.verdict).with_suffix('.md')}")
    lines.append(f"Report     {paths.report}")
    return lines
