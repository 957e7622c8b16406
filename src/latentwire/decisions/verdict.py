"""The verdict: each success criterion with its threshold, value, interval, and pass or fail; the outcome; the causes.

Decided on ``final``. The first code dimension is the primary test; the others are exploratory, with Holm's
correction. The wording has three values, whatever the point estimate: an interval that straddles the threshold is
inconclusive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from latentwire.arms_table import ALWAYS, ARMS, arm_row, ordered_arms
from latentwire.commands import with_overrides
from latentwire.decisions.divergences import kl_ratio, per_position
from latentwire.decisions.evidence import ArmScores, DimensionResults
from latentwire.decisions.predictive import harm_of_error, predictive
from latentwire.decisions.thresholds import reaches
from latentwire.evaluation.reconstruction_summary import summarise
from latentwire.evaluation.scores import summarise_arm
from latentwire.evaluation.statistics import (
    Interval,
    difference_interval,
    holm,
    independent_ratio_interval,
    mean_interval,
    p_value,
    ratio_interval,
)
from latentwire.results import (
    OTHER_DOMAIN,
    ArmVerdict,
    BitsPerToken,
    Cause,
    Ceiling,
    Criterion,
    DimensionVerdict,
    Divergence,
    Evidence,
    IntervalRecord,
    MeasuredDimension,
    NextStep,
    Outcome,
    Phase1Summary,
    Phase2Summary,
    Reconstruction,
    TrainingLength,
    TrainingSummary,
    estimate_of,
)

LATE_SHARE = 0.2
# Codecs that are tried instead of a linear code: those that others use for embedding tables, at 1 to 4 bits.
IN_USE = ("quant", "pq4", "pq6", "pq8", "int2_asymmetric", "int4")
# Pairs of arms that isolate one variable each.
COMPARED = (
    ("phase1", "pca"),
    ("phase1", "random"),
    ("phase2", "phase1"),
    ("phase2", "control"),
    ("control", "phase1"),
    ("distilled", "phase1"),
    ("distilled", "control"),
    ("distilled", "phase2"),
    ("identity_ppl", "text"),
)
# A relative fall of the held-out FVU over the last fifth of the steps from which on longer training is tried first.
LATE_GAIN = 0.05


@dataclass(frozen=True)
class VerdictSettings:
    """Thresholds (fractions) and how intervals are made.

    Attributes:
        cosine: the raw cosine similarity to exceed.
        fvu: the fraction of variance unexplained to stay below.
        resamples, seed: of the bootstrap.
        experiment: this experiment's name, for the next experiments' commands.
        command: how it is started, but for its ``--config``.
        overrides: its ``--config``.
        epochs, hidden: of Phase 1.
    """

    cosine: float
    fvu: float
    resamples: int
    seed: int
    experiment: str
    command: str
    overrides: dict[str, Any]
    epochs: int
    hidden: int | None

    @property
    def bootstrap(self) -> dict[str, int]:
        """Arguments of every interval."""
        return {"resamples": self.resamples, "seed": self.seed}

    def next_command(self, name: str, changes: dict[str, Any]) -> str:
        """The command of the experiment ``<this one>-<name>``, which differs from this one in ``changes`` alone."""
        config = dict(self.overrides)
        for key, value in changes.items():
            config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
        config["experiment"] = f"{self.experiment}-{name}"
        return with_overrides(self.command, dict(sorted(config.items())))


def _f1_interval(scores: ArmScores, settings: VerdictSettings) -> Interval:
    return mean_interval(scores.f1["f1"].to_numpy(), scores.f1["article"].to_numpy(), **settings.bootstrap)


def _paired(a: ArmScores, b: ArmScores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = a.f1.merge(b.f1[["id", "f1"]], on="id", suffixes=("_a", "_b"), validate="one_to_one")
    return pairs["f1_a"].to_numpy(), pairs["f1_b"].to_numpy(), pairs["article"].to_numpy()


def floor_arm(arms: dict[str, ArmScores]) -> str | None:
    """The higher of the floors ``mean`` and ``question``, if they were evaluated."""
    floors = [arm for arm in ordered_arms(arms) if arm_row(arm).kind == "floor"]
    return max(floors, key=lambda arm: arms[arm].f1["f1"].mean(), default=None)


def arm_verdict(arm: str, results: DimensionResults, settings: VerdictSettings) -> ArmVerdict:
    """F1 and EM with intervals, difference to the ceiling, retention, seed deviation, counters, rate, divergence."""
    arms = results.arms
    own, text = arms[arm], arms["text"]
    a, b, articles = _paired(own, text)
    em = mean_interval(own.em["em"].to_numpy(), own.em["article"].to_numpy(), **settings.bootstrap)
    found = {
        **summarise_arm(own.rows, settings.resamples, settings.seed),
        "f1": _f1_interval(own, settings).to_json(),
        "em": em.to_json(),
        "seeds": own.seeds,
        "f1_seed_deviation": own.f1_seed_deviation,
        "difference_to_text": difference_interval(a, b, articles, **settings.bootstrap).to_json(),
        "retention": ratio_interval(a, b, articles, **settings.bootstrap).to_json(),
        "rate": results.rates.get(arm),
        "divergence": divergence_summary(arm, results.divergence, settings),
    }
    summary = cast("ArmVerdict", found)
    floor = floor_arm(arms)
    if floor is not None:
        _, low, _ = _paired(own, arms[floor])
        if len(low) == len(a):
            above = ratio_interval(a - low, b - low, articles, **settings.bootstrap).to_json()
            summary["retention_above_floor"] = {**above, "floor": floor}
    return summary


def divergence_summary(
    arm: str, divergence: dict[tuple[str, str], pd.DataFrame], settings: VerdictSettings
) -> dict[str, Divergence] | None:
    """How far an arm moves the model's predictions, by subset of positions; None if it was not measured.

    ``kl`` (nats) and ``same_top`` per position with intervals over articles, and of the reference answers
    ``log_likelihood_change`` (nats per token, below 0 if they became less likely). Of another domain's text the
    intervals are over its documents, and ``kl_over_prompt`` is the ratio to the KL at the prompts' positions.
    """
    found: dict[str, Divergence] = {}
    for (name, subset), sums in divergence.items():
        if name != arm or not sums["positions"].sum():
            continue
        change = sums.assign(log_likelihood_change=sums["log_likelihood"] - sums["log_likelihood_text"])
        found[subset] = {
            "kl": per_position(change, "kl", **settings.bootstrap),
            "same_top": per_position(change, "same_top", **settings.bootstrap),
            "positions": int(sums["positions"].sum()),
        }
        if subset == "answer":
            found[subset]["log_likelihood_change"] = per_position(
                change, "log_likelihood_change", **settings.bootstrap
            )
    if OTHER_DOMAIN in found and "prompt" in found:
        other, prompt = (
            (own["kl"].to_numpy(), own["positions"].to_numpy(), own["article"].to_numpy())
            for own in (divergence[arm, OTHER_DOMAIN], divergence[arm, "prompt"])
        )
        found[OTHER_DOMAIN]["kl_over_prompt"] = independent_ratio_interval(
            other, prompt, **settings.bootstrap
        ).to_json()
    return found or None


def comparisons(arms: dict[str, ArmScores], settings: VerdictSettings) -> dict[str, IntervalRecord]:
    """Paired F1 differences between the arms that isolate one variable each."""
    return {
        f"{a} - {b}": difference_interval(*_paired(arms[a], arms[b]), **settings.bootstrap).to_json()
        for a, b in COMPARED
        if a in arms and b in arms
    }


def kl_ratios(results: DimensionResults, settings: VerdictSettings) -> dict[str, IntervalRecord]:
    """Of the same pairs, under the same names, the first one's KL at prompt positions over the second one's."""
    moved = {arm: sums for (arm, subset), sums in results.divergence.items() if subset == "prompt"}
    return {
        f"{a} - {b}": kl_ratio(moved[a], moved[b], **settings.bootstrap)
        for a, b in COMPARED
        if a in moved and b in moved
    }


def _reconstruction_interval(sums: pd.DataFrame, column: str, over: str, settings: VerdictSettings) -> Interval:
    return ratio_interval(
        sums[column].to_numpy(), sums[over].to_numpy(), sums["article"].to_numpy(), **settings.bootstrap
    )


def _criterion(
    name: str, threshold: str, value: float, passed: bool, interval: Interval | None = None, note: str = ""
) -> Criterion:
    return {
        "criterion": name,
        "threshold": threshold,
        "value": value,
        "interval": None if interval is None else interval.to_json(),
        "passed": bool(passed),
        "note": note,
    }


def criteria(results: DimensionResults, chosen: str, settings: VerdictSettings) -> list[Criterion]:
    """The plan's success criteria for the chosen adapter."""
    found = []
    done = min(s["steps"] / s["planned_steps"] for s in results.summaries[chosen])
    found.append(_criterion("training completed", "all planned steps", done, done >= 1))
    shrink = float(np.mean([h[-1]["recon_fvu"] / h[0]["recon_fvu"] for h in results.histories["phase1"]]))
    note = "held-out FVU after Phase 1 over its value at the start (the PCA inverse)"
    found.append(_criterion("loss decreased", "< 1", shrink, shrink < 1, note=note))
    own, untrained = results.reconstruction[(chosen, "all")], results.reconstruction[("pca", "all")]
    for name, column, over, limit, better in (
        ("cosine similarity", "cosine", "tokens", settings.cosine, np.greater),
        ("fraction of variance unexplained", "squared_error", "squared_deviation", settings.fvu, np.less),
    ):
        interval = _reconstruction_interval(own, column, over, settings)
        before = untrained[column].sum() / untrained[over].sum()
        assert interval.estimate is not None
        note = "not attributable to training: the untrained pca arm already meets it" if better(before, limit) else ""
        sign = ">" if better is np.greater else "<"
        passed = bool(better(interval.estimate, limit))
        found.append(_criterion(name, f"{sign} {limit:g}", interval.estimate, passed, interval, note))
    f1 = _f1_interval(results.arms[chosen], settings)
    assert f1.estimate is not None
    threshold = results.gate["threshold"]
    untrained_f1 = float(results.arms["pca"].f1["f1"].mean()) if "pca" in results.arms else 0.0
    note = (
        "not attributable to training: the untrained pca arm already meets it"
        if reaches(untrained_f1, threshold)
        else ""
    )
    found.append(_criterion("F1", f">= {threshold:g}", f1.estimate, reaches(f1.estimate, threshold), f1, note))
    gain = untrained["squared_error"] - own["squared_error"]
    improved = _reconstruction_interval(own.assign(gain=gain), "gain", "squared_deviation", settings)
    assert improved.estimate is not None
    note = "FVU of the untrained pca arm minus the adapter's; passes if the paired interval is above 0"
    passed = improved.lower is not None and improved.lower > 0
    found.append(_criterion("metrics improving", "> 0", improved.estimate, passed, improved, note))
    return found


def wording(interval: Interval, threshold: float) -> str:
    """*validated*, *not validated*, or *inconclusive*, by where the whole interval is."""
    value = f"F1 {100 * (interval.estimate or 0):.1f}%"
    if interval.lower is None or interval.upper is None:
        return f"inconclusive: {value}; no interval: {interval.refused}"
    limits = f"[{100 * interval.lower:.1f}, {100 * interval.upper:.1f}]"
    if interval.lower >= threshold:
        return f"validated: {value} {limits}"
    if interval.upper < threshold:
        return f"not validated: {value} {limits}"
    return (
        f"inconclusive: {value} {limits} straddles {100 * threshold:.0f}%; the point estimate alone chose the branch"
    )


def route(f1: float, chosen: str, gate: Evidence, ceiling_passed: bool) -> Outcome:
    """The outcome by the point rule: ``validated_phase1``, ``validated_phase2``, ``partial``, ``failed``, ``void``."""
    if not ceiling_passed:
        return "void"
    if reaches(f1, gate["threshold"]):
        return "validated_phase1" if chosen == "phase1" else "validated_phase2"
    return "partial" if reaches(f1, gate["failing"]) else "failed"


def bits(k: int, input_dim: int, vocab_size: int, number_bits: int) -> BitsPerToken:
    """Bits per prompt token: of the code, of the original embedding, and of the token id itself."""
    return {
        "code": k * number_bits,
        "embedding": input_dim * number_bits,
        "token_id": math.log2(vocab_size),
        "ratio": input_dim / k,
    }


def causes(results: DimensionResults, chosen: str, variance: float, settings: VerdictSettings) -> list[Cause]:
    """For a failure: the evidence for each of the three causes, and the command of the experiment that would tell."""
    arms, k = results.arms, results.k
    f1 = {arm: float(scores.f1["f1"].mean()) for arm, scores in arms.items()}
    seen, unseen = (summarise(results.reconstruction[(chosen, subset)]) for subset in ("seen", "unseen"))
    tail = [_late_gain(history) for history in results.histories["phase1"]]
    summary = cast("Phase1Summary", results.summaries["phase1"][0])
    width = summary["table_width"]
    hidden = 2 * (settings.hidden or width // 2)
    return [
        {
            "cause": "compression too lossy",
            "evidence": {
                "explained_variance_ratio": variance,
                "f1_nearest_code": f1.get("snap"),
                "f1_nearest_to_inverse": f1.get("snap_d"),
                "f1_untrained": f1.get("pca"),
                "f1_chosen": f1[chosen],
            },
            "reading": (
                "a nearest-code look-up that knows the table bounds what any decoder can do with these codes; the "
                "distance from it to the adapter is not lost in the code but not recovered from it"
            ),
            "command": settings.next_command(f"k{k}-twice", {"compress_dims": [min(2 * k, width)]}),
        },
        {
            "cause": "adapter too small",
            "evidence": {
                "parameters": summary["parameters"],
                "share_of_table": summary["parameters"] / summary["table_parameters"],
                "fvu_seen_types": None if seen is None else seen["fvu"],
                "fvu_unseen_types": None if unseen is None else unseen["fvu"],
            },
            "reading": (
                "a high FVU on seen types that longer training does not lower speaks for capacity; a much higher one "
                "on unseen types speaks for memorisation, which more parameters make worse"
            ),
            "command": settings.next_command(f"k{k}-wider", {"compress_dims": [k], "adapter": {"hidden": hidden}}),
        },
        {
            "cause": "too little training",
            "evidence": {
                "epochs": settings.epochs,
                "late_fvu_gain": float(np.mean(tail)),
                "late_share_of_steps": LATE_SHARE,
            },
            "reading": "the relative fall of the held-out FVU over the last fifth of the steps: near 0 is converged",
            "command": settings.next_command(
                f"k{k}-longer", {"compress_dims": [k], "phase1": {"epochs": 3 * settings.epochs}}
            ),
        },
    ]


def next_step(entry: MeasuredDimension, settings: VerdictSettings) -> NextStep:
    """The one command to run next, and why; no command if the uncompressed text is too low.

    A failure asks about the likeliest of its causes: too little training if the held-out FVU still falls; else the
    compression or the adapter, whichever loses more F1 with the nearest code between them.
    """
    k, outcome = entry["k"], entry["outcome"]
    if outcome == "void":
        return {"why": "the uncompressed text is below the threshold: another model or prompt first", "command": None}
    if entry["f1"]["lower"] is None:
        more = settings.next_command(f"k{k}-more-questions", {"compress_dims": [k], "data": {"final_samples": None}})
        return {"why": "too few articles for an interval: all questions of final", "command": more}
    if not entry["causes"]:
        straddles = entry["wording"].startswith("inconclusive")
        width = round(k * entry["bits_per_token"]["ratio"])
        name, dim = ("twice", min(2 * k, width)) if straddles else ("half", max(1, k // 2))
        why = "the interval straddles the threshold: half the compression" if straddles else "twice the compression"
        return {"why": why, "command": settings.next_command(f"k{k}-{name}", {"compress_dims": [dim]})}
    found = {cause["cause"]: cause for cause in entry["causes"]}
    gain = found["too little training"]["evidence"]["late_fvu_gain"] or 0.0
    f1 = {arm: estimate_of(own["f1"]) for arm, own in entry["arms"].items()}
    if gain >= LATE_GAIN:
        cause, why = "too little training", f"the held-out FVU still fell by {100 * gain:.0f}% at the end"
    elif "snap" not in f1:
        cause, why = "compression too lossy", "the nearest code (snap) was not evaluated"
    else:
        code, adapter = (100 * (f1[a] - f1[b]) for a, b in (("text", "snap"), ("snap", entry["chosen"])))
        cause = "compression too lossy" if code > adapter else "adapter too small"
        why = f"the nearest code loses {code:.1f} points of F1, the adapter {adapter:.1f} more"
    return {"why": f"{cause}? {why}", "command": found[cause]["command"]}


def instead(entry: MeasuredDimension, settings: VerdictSettings) -> NextStep:
    """For a failure: the codec of at most the chosen arm's bits that reaches the threshold, and how to try others."""
    k, chosen = entry["k"], entry["arms"][entry["chosen"]]
    assert chosen["rate"] is not None
    most = chosen["rate"]["bits_per_parameter"]
    passing = {
        arm: estimate_of(own["f1"])
        for arm, own in entry["arms"].items()
        if own["rate"] is not None
        and own["rate"]["bits_per_parameter"] <= most
        and reaches(estimate_of(own["f1"]), entry["threshold"])
    }
    best = max(passing, key=lambda arm: passing[arm], default=None)
    # With the codecs whose noise is compared with theirs: the configuration refuses noise of a codec that it lacks.
    noisy = (arm_row(arm).error_of for arm in entry["arms"])
    wanted = [arm for arm in (best, *IN_USE, *noisy) if arm in ARMS and arm not in ALWAYS]
    arms = {"arms": list(dict.fromkeys(wanted))}
    others = settings.next_command(f"k{k}-codecs", {"compress_dims": [k], "evaluate": arms})
    if best is None:
        within = f"within the {most:.2f} bits per table parameter of {entry['chosen']}"
        return {"why": f"no codec that was evaluated reaches the threshold {within}; these may", "command": others}
    rate = entry["arms"][best]["rate"]
    assert rate is not None
    return {
        "why": (
            f"{best} reaches F1 {100 * passing[best]:.1f}% at {rate['bits_per_parameter']:.2f} bits per table "
            f"parameter, while {entry['chosen']} takes {most:.2f}; beside others"
        ),
        "command": others,
    }


def _late_gain(history: list[dict[str, Any]]) -> float:
    """Relative fall of the held-out FVU over the last fifth of the steps."""
    steps = history[-1]["step"]
    late = [row["recon_fvu"] for row in history if row["step"] >= (1 - LATE_SHARE) * steps]
    return float(1 - late[-1] / late[0]) if late[0] else 0.0


def dimension_verdict(
    results: DimensionResults,
    *,
    ceiling: Ceiling,
    variance: float,
    bits_per_token: BitsPerToken,
    settings: VerdictSettings,
) -> DimensionVerdict:
    """The entry of one code dimension."""
    gate = results.gate
    chosen = "phase1" if gate["passed"] else "phase2"
    threshold = gate["threshold"]
    interval = _f1_interval(results.arms[chosen], settings)
    assert interval.estimate is not None
    final_text = float(results.arms["text"].f1["f1"].mean())
    outcome = route(interval.estimate, chosen, gate, ceiling["passed"] and reaches(final_text, threshold))
    phase1_final = float(results.arms["phase1"].f1["f1"].mean())
    agrees = reaches(phase1_final, threshold) == gate["passed"]
    passed_f1 = results.arms[chosen].f1
    measured: MeasuredDimension = {
        "k": results.k,
        "seeds": results.seeds,
        "bits_per_token": bits_per_token,
        "explained_variance_ratio": variance,
        "gate": gate,
        "chosen": chosen,
        "outcome": outcome,
        "f1": interval.to_json(),
        "threshold": threshold,
        "wording": wording(interval, threshold),
        "p_value": p_value(
            passed_f1["f1"].to_numpy(), passed_f1["article"].to_numpy(), threshold, **settings.bootstrap
        ),
        "agrees_with_gate": agrees,
        "criteria": criteria(results, chosen, settings),
        "training": {arm: _training_length(summaries[0]) for arm, summaries in results.summaries.items()},
        "arms": {arm: arm_verdict(arm, results, settings) for arm in results.arms},
        "comparisons": comparisons(results.arms, settings),
        "kl_ratios": kl_ratios(results, settings),
        "reconstruction": _reconstruction_table(results),
        "predictive": predictive(results, settings.bootstrap),
        "harm_of_error": harm_of_error(results, settings.bootstrap),
        "phase2": [
            {"calibration": summary["calibration"], "prompt_loss": summary["prompt_loss"]}
            for summary in cast("list[Phase2Summary]", results.summaries.get("phase2", []))
        ],
        "causes": causes(results, chosen, variance, settings) if outcome in ("partial", "failed") else [],
    }
    return {
        **measured,
        "instead": instead(measured, settings) if outcome in ("partial", "failed") else None,
        "next": next_step(measured, settings),
    }


def _training_length(summary: TrainingSummary) -> TrainingLength:
    return {
        "steps": summary["steps"],
        "planned_steps": summary["planned_steps"],
        "prompts_seen": summary["prompts_seen"],
        "train_prompts": summary["train_prompts"],
    }


def _reconstruction_table(results: DimensionResults) -> dict[str, dict[str, Reconstruction | None]]:
    table: dict[str, dict[str, Reconstruction | None]] = {}
    for (arm, subset), sums in results.reconstruction.items():
        table.setdefault(arm, {})[subset] = summarise(sums)
    return table


def correct_exploratory(entries: list[DimensionVerdict]) -> None:
    """Mark the first entry as primary; add Holm-adjusted p-values of F1 = threshold to the others, in place.

    An exploratory entry whose adjusted p-value is above 0.05 can't be worded as decided.
    """
    for index, entry in enumerate(entries):
        entry["role"] = "primary" if index == 0 else "exploratory"
        entry["p_value_holm"] = None
    tested = {str(entry["k"]): entry["p_value"] for entry in entries[1:] if entry["p_value"] is not None}
    adjusted = holm(tested) if tested else {}
    for entry in entries[1:]:
        entry["p_value_holm"] = adjusted.get(str(entry["k"]))
        undecided = entry["p_value_holm"] is not None and entry["p_value_holm"] > 0.05
        if undecided and not entry["wording"].startswith("inconclusive"):
            value, p = 100 * estimate_of(entry["f1"]), entry["p_value_holm"]
            entry["wording"] = f"inconclusive: F1 {value:.1f}%, Holm-adjusted p = {p:.3f}"
