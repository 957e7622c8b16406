"""The verdict as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentwire.arms_table import arm_row, ordered_arms
from latentwire.decisions.kept import codec_name
from latentwire.decisions.methods import TOLERANCE
from latentwire.results import (
    OTHER_DOMAIN,
    ArmVerdict,
    DimensionVerdict,
    Divergence,
    Evidence,
    HarmOfError,
    IntervalRecord,
    MethodAtRate,
    SubsetF1,
    Verdict,
)

TWO_RATES = (
    "This measures how well the language model tolerates errors in its input embeddings. Two rates: *bits per prompt "
    "token* is what a code instead of a token would cost, which shortens no prompt: no code of a single token beats "
    "the token's id. *Bits per table parameter* is what a codec stores of the embedding table, everything counted, "
    "which is memory; a model whose output head is tied to the table saves nothing unless the head is compressed too."
)
"""What each rate is good for, as Markdown."""


def percent(interval: IntervalRecord) -> str:
    """An interval of fractions as percent: ``71.2 [68.0, 74.1]``."""
    if interval["estimate"] is None:
        return "–"
    text = f"{100 * interval['estimate']:.1f}"
    if interval["lower"] is None or interval["upper"] is None:
        return text
    return f"{text} [{100 * interval['lower']:.1f}, {100 * interval['upper']:.1f}]"


def _number(interval: IntervalRecord | None, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return str(value)
    text = f"{value:.4g}"
    if interval is None or interval["lower"] is None:
        return text
    return f"{text} [{interval['lower']:.4g}, {interval['upper']:.4g}]"


def _with_count(found: SubsetF1 | None) -> str:
    return "–" if found is None else f"{100 * found['estimate']:.1f} (n = {found['questions']})"


def _at(name: str, revision: str | None) -> str:
    return f"`{name}`" + (f" at revision `{revision}`" if revision else "")


def model_name(verdict: Verdict) -> str:
    """The language model, as Markdown."""
    name = _at(verdict["model"]["path"], verdict["model"]["revision"])
    made_from = verdict["model"].get("made_from")
    if made_from is None:
        return name
    base = made_from["base"]
    parts = [base.get("requirement") or _at(base["model"], base["revision"])]
    parts += [f"LoRA adapter `{made_from['lora']['name']}`"] if made_from["lora"] else []
    return f"{name} ({' and '.join(parts)})"


def data_name(verdict: Verdict) -> str:
    """The data set, as Markdown."""
    data = verdict["data"]
    if data["source"] == "demo":
        return "the embedded corpus"
    if data["source"] == "hub":
        return _at(str(data["path"]), data["revision"])
    return " and ".join(f"`{name}`" for name in (data["train_file"], data["dev_file"]) if name)


def origin(verdict: Verdict) -> str:
    """Model, data set, date and commit in one line of Markdown."""
    commit = f"commit `{verdict['commit']}`" if verdict["commit"] else "not from a git checkout"
    return f"Model {model_name(verdict)}; data {data_name(verdict)}; {verdict['date']}; {commit}."


def rate(arm: ArmVerdict) -> str:
    """What an arm stores of the embedding table, and in which dtypes; a dash for one that is no codec."""
    found = arm["rate"]
    if found is None:
        return "–"
    counted = [
        f"{own:.3g} {dtype}" for dtype, own in found["megabytes_by_dtype"].items() if own > 0.01 * found["megabytes"]
    ]
    return f"{found['bits_per_parameter']:.2f} ({found['megabytes']:.3g} MB: {', '.join(counted)})"


# Of another domain's text, beside the KL at the prompts' positions.
OTHER_HEADS = " KL, other domain (nats) | over that at the prompt | same top token, other domain % |"


def other_cells(kl: IntervalRecord, ratio: IntervalRecord, same_top: IntervalRecord) -> str:
    """A row's cells under :data:`OTHER_HEADS`."""
    return f" {value(kl)} | {value(ratio)} | {percent(same_top)} |"


def divergence_table(entry: DimensionVerdict) -> list[str]:
    """How far every arm moves the model's predictions, as Markdown lines; none if nothing was measured."""
    arms = entry["arms"]
    measured = {arm: found for arm in ordered_arms(arms) if (found := arms[arm]["divergence"])}
    if not measured:
        return []
    first = next(iter(measured.values()))["prompt"]["kl"]
    elsewhere = any(OTHER_DOMAIN in found for found in measured.values())
    lines = [
        f"The model's predictions on {first['questions']} questions with their reference answers, against those from "
        "the uncompressed prompt; the last columns by how often training saw the token that is read:",
        "",
        "| arm | bits per table parameter | KL, prompt (nats) | same top token, prompt % | KL, answer (nats) "
        "| answer's log-likelihood (nats per token) | KL, unseen token | seen 1–9 times | 10–99 | 100–999 | ≥ 1,000 "
        f"|{OTHER_HEADS if elsewhere else ''}",
        f"|---|---|---|---|---|---|---|---|---|---|---|{'---|---|---|' if elsewhere else ''}",
    ]
    for arm, found in measured.items():
        prompt, answer = found["prompt"], found["answer"]
        buckets = (found.get(name) for name in ("unseen", "1-9", "10-99", "100-999", "1000+"))
        counts = " | ".join("–" if own is None else value(own["kl"]) for own in buckets)
        lines.append(
            f"| `{arm}` | {rate(entry['arms'][arm])} | {value(prompt['kl'])} | {percent(prompt['same_top'])} | "
            f"{value(answer['kl'])} | {value(answer['log_likelihood_change'], '+')} | {counts} |"
            + (_elsewhere(found.get(OTHER_DOMAIN)) if elsewhere else "")
        )
    return lines


def _elsewhere(found: Divergence | None) -> str:
    """An arm's cells on the other domain's text."""
    if found is None:
        return " – | – | – |"
    return other_cells(found["kl"], found["kl_over_prompt"], found["same_top"])


def predictive_lines(entry: DimensionVerdict) -> list[str]:
    """Whether reconstruction predicts generation, and what makes errors harmful, as Markdown lines; may be none."""
    lines: list[str] = []
    if found := entry["predictive"]:
        first = found["measures"][0]["kl"]
        lines += [
            f"Does reconstruction (on `gate`) predict generation (on `final`, {first['questions']} questions)? "
            f"Spearman's rank correlation over {len(found['arms'])} codecs, with intervals over articles (for these "
            "codecs):",
            "",
            "| error of reconstruction | with KL at prompt positions | with the F1 that is lost |",
            "|---|---|---|",
            *(f"| {own['measure']} | {value(own['kl'])} | {value(own['f1'])} |" for own in found["measures"]),
            "",
        ]
    if entry["harm_of_error"]:
        lines += [
            "KL at prompt positions, as a multiple of that of Gaussian noise of equal FVU: how much of it is due to "
            "which tokens carry the error (noise as large row by row, over equal noise), and how much to the error's "
            "direction (the codec over that noise), of which a part to rows that it shrinks (noise as large that "
            "shrinks them alike, over noise that does not):",
            "",
            "| codec | times | due to allocation | due to direction | of which to shrinkage | draws of noise |",
            "|---|---|---|---|---|---|",
            *(
                f"| `{own['codec']}` | {value(own['total'])} | {value(own['allocation'])} | {value(own['direction'])} "
                f"| {value(own['shrinkage'])} | {draws(own)} |"
                for own in entry["harm_of_error"]
            ),
            "",
        ]
    return lines


def draws(own: HarmOfError) -> str:
    """How many draws of noise there are, and by how much their KL differs."""
    deviation = own["draw_deviation"]
    return str(own["draws"]) if deviation is None else f"{own['draws']} (deviation ≤ {100 * deviation:.1f}%)"


def value(interval: IntervalRecord, sign: str = "") -> str:
    """A value with its interval; a dash for none."""
    if interval["estimate"] is None:
        return "–"
    value = f"{interval['estimate']:{sign}.3g}"
    return value if interval["lower"] is None else f"{value} [{interval['lower']:.3g}, {interval['upper']:.3g}]"


def f1_table(entries: list[DimensionVerdict]) -> list[str]:
    """F1 of every arm at every code dimension, as Markdown lines."""
    arms = ordered_arms(arm for entry in entries for arm in entry["arms"])
    heads = [f"{entry['bits_per_token']['ratio']:g}× (K = {entry['k']})" for entry in entries]
    lines = [f"| F1 %, final | {' | '.join(heads)} |", "|---|" + "---|" * len(entries)]
    for arm in arms:
        cells = [percent(entry["arms"][arm]["f1"]) if arm in entry["arms"] else "–" for entry in entries]
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    outcomes = [f"{entry['gate']['reading']} → `{entry['outcome']}`" for entry in entries]
    lines.append(f"| gate → outcome | {' | '.join(outcomes)} |")
    return lines


def render_verdict(verdict: Verdict) -> str:
    """The verdict as a Markdown page."""
    primary = verdict["entries"][0]
    text = verdict["ceiling"]["arms"]["text"]["f1"]
    lines = [
        f"# Verdict: {verdict['experiment']}",
        "",
        origin(verdict),
        "",
        f"**{primary['wording']}** (K = {primary['k']}, {primary['bits_per_token']['ratio']:g}× compression, "
        f"arm `{primary['chosen']}`, threshold {100 * primary['threshold']:.0f}%; outcome `{primary['outcome']}`)",
        "",
        f"Ceiling: the uncompressed text has F1 {percent(text)}% on `gate` "
        f"({'passed' if verdict['ceiling']['passed'] else 'FAILED'}).",
    ]
    if verdict["ceiling"]["override"]:
        lines += ["", "**The ceiling check is overridden** (`gate.override_ceiling`)."]
    if not verdict["confirmatory"]:
        lines += ["", "**Not confirmatory**: `final` had been read under another configuration before this one."]
    for warning in verdict["warnings"]:
        lines += ["", f"**Warning**: {warning}."]
    lines += ["", TWO_RATES]
    lines += ["", f"Next: {primary['next']['why']}."]
    if primary["next"]["command"]:
        lines += ["", f"    {primary['next']['command']}"]
    if (other := primary["instead"]) is not None:
        lines += ["", f"Instead: {other['why']}.", "", f"    {other['command']}"]
    lines += ["", *f1_table(verdict["entries"])]
    lines += ["", *kept_lines(verdict)]
    lines += ["", *own] if (own := method_lines(verdict["methods"])) else []
    shown = ordered_arms(arm for entry in verdict["entries"] for arm in entry["arms"])
    lines += ["", "| arm | what the model reads |", "|---|---|"]
    lines += [f"| `{arm}` | {arm_row(arm).legend} |" for arm in shown]
    for entry in verdict["entries"]:
        lines += _entry_lines(entry)
    return "\n".join(lines) + "\n"


def kept_lines(verdict: Verdict) -> list[str]:
    """Which codecs are shown to keep what share of the uncompressed text's F1, as Markdown lines."""
    lines: list[str] = []
    retention = {
        codec_name(arm, entry["k"]): percent(own["retention"])
        for entry in verdict["entries"]
        for arm, own in entry["arms"].items()
    }
    for found in verdict["kept"]:
        share = f"{100 * found['share']:g}%"
        shown = [
            f"`{name}` {retention[name]} ({found['bits'][name]:.2f} bits, p = {found['p'][name]:.3f})"
            for name in found["shown"]
        ]
        others = [f"`{name}` {retention[name]}" for name in found["bits"] if name not in found["shown"]]
        lines.append(
            f"- Keeps {share} of the uncompressed text's F1 (retention in %)? "
            + (f"Shown for {'; '.join(shown)}, of which the first is the cheapest. " if shown else "")
            + (f"Not shown at {share}: {'; '.join(others)}." if others else "")
        )
    text = verdict["entries"][0]["arms"]["text"]["f1"]
    if verdict["kept"] and (detectable := verdict["kept"][0]["detectable"]) is not None:
        lines.append(
            f"- Tests are one-sided at 2.5%, with Holm's correction over {len(verdict['kept'][0]['bits'])} codecs. "
            f"With these {text['questions']} questions in {text['articles']} articles, losses under "
            f"{100 * detectable:.1f} points are mostly not seen (four of five such samples find that one; the median "
            "over codecs)."
        )
        lines += [
            f"- A codec that answers every question like the text is shown to keep {100 * found['share']:g}% by "
            f"{found['needed']:,} questions in as many articles, not by fewer."
            for found in verdict["kept"]
            if found["needed"] is not None
        ]
    return lines


def method_lines(methods: Sequence[MethodAtRate]) -> list[str]:
    """Which codec to take at which rate, as Markdown lines; none if no KL was measured."""
    if not methods:
        return []
    lines = [
        f"Which codec at which rate: the least KL at prompt positions among codecs of at most {100 * TOLERANCE:.0f}% "
        "more bits per table parameter than the rate. An interval below 1 tells it from the next best:",
        "",
        "| bits | take | its bits | KL, prompt (nats) | next best (its bits) | KL over the next best's |",
        "|---|---|---|---|---|---|",
    ]
    for own in methods:
        other, ratio = own["next_best"], own["ratio"]
        beside = "– | –" if other is None or ratio is None else f"`{other}` ({own['next_bits']:.2f}) | {value(ratio)}"
        lines.append(
            f"| {own['bits']:g} | `{own['codec']}` | {own['codec_bits']:.2f} | {value(own['kl'])} | {beside} |"
        )
    return lines


def comparisons_table(entry: DimensionVerdict) -> list[str]:
    """The arms that isolate one variable each: differences in F1 and, if it was measured, ratios of KL."""
    lines = ["| | difference in F1 (points) | KL at prompt positions, over the other's |", "|---|---|---|"]
    for name, difference in entry["comparisons"].items():
        ratio = entry["kl_ratios"].get(name)
        lines.append(f"| {name} | {percent(difference)} | {'–' if ratio is None else value(ratio)} |")
    return lines


def gate_kl(gate: Evidence) -> str:
    """How far Phase 1 moves predictions on ``gate``, in words that follow its F1; nothing if it was not measured."""
    if gate["kl"] is None or gate["same_top"] is None:
        return ""
    return f", KL {value(gate['kl'])} nats and same top token {percent(gate['same_top'])}% at prompt positions"


def reconstruction_table(entry: DimensionVerdict) -> list[str]:
    """FVU on ``gate`` by how often the training prompts held the token type, as Markdown lines."""
    subsets = [name for name in next(iter(entry["reconstruction"].values())) if name not in ("all", "answer", "seen")]
    lines = [
        f"| FVU on `gate`, tokens by occurrences in training | all | in answers | {' | '.join(subsets)} |",
        "|---|" + "---|" * (2 + len(subsets)),
    ]
    for arm in ordered_arms(entry["reconstruction"]):
        own = entry["reconstruction"][arm]
        cells = [own[name] for name in ("all", "answer", *subsets)]
        values = ["–" if cell is None else f"{cell['fvu']:.3f}" for cell in cells]
        lines.append(f"| {arm} | {' | '.join(values)} |")
    tokens = [own[name] for name in ("all", "answer", *subsets)]
    counts = [f"{0 if cell is None else cell['tokens']:,}" for cell in tokens]
    return [*lines, f"| tokens | {' | '.join(counts)} |"]


def _entry_lines(entry: DimensionVerdict) -> list[str]:
    bits, gate = entry["bits_per_token"], entry["gate"]
    lines = [
        "",
        f"## K = {entry['k']} ({entry['role']})",
        "",
        f"- {entry['wording']}",
        f"- outcome `{entry['outcome']}`; gate: {gate['reading']} at F1 {percent(gate['f1'])}%{gate_kl(gate)}"
        + ("; the interval straddles a threshold" if gate["straddles"] else "")
        + ("; Phase 2 was forced" if gate["forced"] else "")
        + ("" if entry["agrees_with_gate"] else "; **`final` disagrees with the gate's decision**"),
        f"- bits per prompt token: {bits['code']:g} in the code, {bits['embedding']:g} in the embedding, "
        f"{bits['token_id']:.1f} in the token id",
        *(
            f"- `{arm}` saw {own['prompts_seen']:,} prompts in {own['steps']:,} steps, of {own['train_prompts']:,} "
            "training prompts"
            for arm, own in entry["training"].items()
            if arm in ("phase1", "phase2")
        ),
        f"- PCA keeps {100 * entry['explained_variance_ratio']:.1f}% of the variance",
        "",
        "| criterion | threshold | value | | |",
        "|---|---|---|---|---|",
    ]
    for c in entry["criteria"]:
        value = _number(c["interval"], c["value"])
        lines.append(
            f"| {c['criterion']} | {c['threshold']} | {value} | {'pass' if c['passed'] else 'FAIL'} | {c['note']} |"
        )
    lines += [
        "",
        "| arm | bits per table parameter | F1 % | EM % | retention % | above floor % | F1 %, unseen answer type "
        "| empty / capped / degenerate / wrapped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in ordered_arms(entry["arms"]):
        own = entry["arms"][arm]
        unseen = own.get("f1_unseen_answer_type")
        above = own.get("retention_above_floor")
        counts = own["counts"]
        lines.append(
            f"| {arm} | {rate(own)} | {percent(own['f1'])} | {percent(own['em'])} | {percent(own['retention'])} | "
            f"{'–' if above is None else percent(above)} | "
            f"{_with_count(unseen)} | "
            f"{counts['empty']} / {counts['length_capped']} / {counts['degenerate']} / {counts['wrapped']} |"
        )
    first = entry["arms"]["text"]["f1"]
    lines += [
        "",
        f"n = {first['questions']} questions in {first['articles']} articles of `final`; "
        f"{100 * first['confidence']:.0f}% studentised bootstrap over articles, B = {first['resamples']}, "
        f"seed {first['seed']}; trained arms averaged over {entry['arms'][entry['chosen']]['seeds']} seed(s).",
        "",
        *comparisons_table(entry),
    ]
    lines += ["", *divergence_table(entry)]
    lines += ["", *predictive_lines(entry), *reconstruction_table(entry)]
    if entry["phase2"]:
        lines += ["", "Prompt cross-entropy above the text's (nats; all / first mentions / repeated mentions):", ""]
        for run, found in enumerate(entry["phase2"], 1):
            loss = found["prompt_loss"]
            excess = {
                when: " / ".join(f"{loss[when][m] - loss['text'][m]:.3f}" for m in ("all", "first", "repeated"))
                for when in ("start", "end", "control")
            }
            lines.append(
                f"- run {run}: {excess['start']} at the start, {excess['end']} after Phase 2, "
                f"{excess['control']} after the control"
            )
        calibration = entry["phase2"][0]["calibration"]
        lines.append(
            f"- gradient norms at calibration: reconstruction {calibration['gradient_norm_reconstruction']:.3g}, "
            f"prompt cross-entropy {calibration['gradient_norm_prompt_loss']:.3g}; "
            f"α = {calibration['alpha']:.4g}, β = {calibration['beta']:.4g}"
        )
    if entry["causes"]:
        lines += ["", "### Possible causes, and how to tell them apart", ""]
        for cause in entry["causes"]:
            evidence = ", ".join(f"{n} {_number(None, v)}" for n, v in cause["evidence"].items())
            lines += [
                f"- **{cause['cause']}?** {evidence}. {cause['reading'].capitalize()}.",
                "",
                f"  `{cause['command']}`",
                "",
            ]
    return lines
