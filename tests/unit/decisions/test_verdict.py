"""The verdict: its wording, its routes, its criteria, and for a failure commands that can be run."""

import copy
import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config

from latentwire.arms_table import ARMS, arm_row
from latentwire.configuration import checked
from latentwire.decisions.evidence import ArmScores, DimensionResults
from latentwire.decisions.final_validation import _answer_warnings
from latentwire.decisions.predictive import harm_of_error, predictive
from latentwire.decisions.verdict import (
    IN_USE,
    VerdictSettings,
    bits,
    comparisons,
    correct_exploratory,
    criteria,
    dimension_verdict,
    floor_arm,
    route,
    wording,
)
from latentwire.evaluation.statistics import Interval
from latentwire.report.verdict_text import method_lines, origin, percent, render_verdict
from latentwire.settings import Evaluate

ROOT = Path(__file__).parents[3]
ARTICLES, PER_ARTICLE = 25, 8
QUESTIONS = ARTICLES * PER_ARTICLE
SETTINGS = VerdictSettings(
    cosine=0.9, fvu=0.5, resamples=400, seed=0, experiment="demo",
    command=".venv/bin/snakemake --profile profiles/local --configfile config/demo.yaml", overrides={}, epochs=20, hidden=None,
)  # fmt: skip
GATE = {"threshold": 0.7, "failing": 0.5, "kl": None, "same_top": None}
ORIGIN = {
    "model": {"path": "owner/model", "revision": "abc"},
    "data": {"source": "hub", "path": "owner/squad", "revision": "def", "train_file": None, "dev_file": None},
    "date": "2026-11-24",
    "commit": "0123abc",
    "warnings": ["2 of 60 questions of final were dropped: no part of the context fits"],
}
CEILING = {"passed": True, "override": False, "arms": {"text": {"f1": {"estimate": 0.9, "lower": None}}}}
METHOD = {
    "bits": 2.0, "codec": "pq4", "codec_bits": 2.08, "kl": {"estimate": 0.097, "lower": 0.085, "upper": 0.108},
    "next_best": "rq8", "next_bits": 2.17, "ratio": {"estimate": 0.92, "lower": 0.9, "upper": 0.94},
}  # fmt: skip


def interval(estimate, lower, upper, refused=None):
    return Interval(estimate, lower, upper, 0.01, 0.95, 200, 25, 400, 0, refused)


def questions():
    return pd.DataFrame({"id": [f"q{n}" for n in range(QUESTIONS)], "article": np.arange(QUESTIONS) % ARTICLES})


def arm(share, *, seed=0, seeds=1):
    """An arm that answers this share of the questions right, at random."""
    right = np.random.default_rng(seed).permutation(QUESTIONS) < round(share * QUESTIONS)
    scores = questions().assign(f1=right.astype(float), em=right.astype(float))
    rows = scores.assign(unseen_answer_type=np.arange(QUESTIONS) % 5 == 0, prediction="an answer", finished="stop")
    return ArmScores(
        scores[["id", "article", "f1"]], scores[["id", "article", "em"]], None, pd.concat([rows] * seeds), seeds
    )


def sums(fvu, cosine):
    """Reconstruction sums a question with this FVU and cosine, with some spread between articles."""
    spread = 1 + 0.05 * np.sin(np.arange(QUESTIONS) % ARTICLES)
    tokens = np.full(QUESTIONS, 10.0)
    means = dict.fromkeys(("cosine", "centred_cosine", "relative_error", "nearest_token"), cosine * tokens)
    return questions().assign(
        tokens=tokens, squared_deviation=tokens * spread, squared_error=fvu * tokens * spread**2, **means
    )


def moved(size):
    """Divergence sums per question with a mean KL of this size, and answers that are as much less likely."""
    spread = 1 + 0.1 * np.cos(np.arange(QUESTIONS) % ARTICLES)
    positions = np.full(QUESTIONS, 5.0)
    return questions().assign(
        positions=positions, kl=size * positions * spread, same_top=0.8 * positions,
        log_likelihood=-size * positions * spread, log_likelihood_text=0.0,
    )  # fmt: skip


def results(
    *, gate_passed=False, phase1=0.6, phase2=0.65, text=0.9, pca=0.2, fvu=0.3, cosine=0.95, pca_fvu=0.6, pca_cosine=0.8,
    k=16, forced=False,
):  # fmt: skip
    """Results at one code dimension; Phase 2's if the gate failed or it is forced."""
    shares = {"text": text, "mean": 0.05, "question": 0.1, "pca": pca, "snap": 0.8, "phase1": phase1, "random": 0.4}
    trained = ["phase1", "random"]
    if forced or not gate_passed:
        shares |= {"phase2": phase2, "control": phase1}
        trained += ["phase2", "control"]
    summary = {
        "settings": {"epochs": 20, "batch_size": 32}, "steps": 20 * 4, "planned_steps": 20 * 4, "prompts_seen": 2560,
        "train_prompts": 128, "parameters": 1000, "table_parameters": 10_000,
        "table_width": 128, "calibration": {"gradient_norm_reconstruction": 1.0, "gradient_norm_prompt_loss": 1.0,
        "alpha": 1.0, "beta": 1.0}, "prompt_loss": {when: {"all": 1.0, "first": 1.0, "repeated": 1.0} for when in
        ("text", "start", "end", "control")},
    }  # fmt: skip
    history = [{"step": step, "recon_fvu": 0.6 - 0.3 * step / 80} for step in range(0, 81, 8)]
    reconstruction = {
        (name, subset): sums(pca_fvu, pca_cosine) if name == "pca" else sums(fvu, cosine)
        for name in ("pca", *trained)
        for subset in ("all", "answer", "seen", "unseen")
    }
    gate = GATE | {
        "passed": gate_passed, "forced": forced, "reading": "validated" if gate_passed else "partial", "straddles": [],
        "f1": {"estimate": 0.8 if gate_passed else 0.6, "lower": None},
    }  # fmt: skip
    return DimensionResults(
        k=k,
        gate=gate,
        run_phase2=forced or not gate_passed,
        arms={name: arm(share, seed=number) for number, (name, share) in enumerate(shares.items())},
        reconstruction=reconstruction,
        divergence={
            (name, subset): moved(size)
            for name, size in (("pca", 2.0), ("phase1", 0.5))
            for subset in ("prompt", "answer")
        },
        kl_by_seed={},
        rates={
            name: {"bits_per_parameter": 2.0, "megabytes": 1.0, "megabytes_by_dtype": {"bf16": 1.0}}
            for name in shares
            if arm_row(name).kind == "codec"
        },
        summaries={name: [copy.deepcopy(summary)] for name in trained},
        histories={name: [history] for name in trained},
        seeds=[0],
    )


def verdict_on(found, *, ceiling=CEILING, settings=SETTINGS):
    return dimension_verdict(
        found, ceiling=ceiling, variance=0.6,
        bits_per_token=bits(found.k, 128, 2048, 16), settings=settings,
    )  # fmt: skip


def kept_at(k):
    """What is shown of three of the codecs at a code dimension."""
    pca, phase1, random = (f"{name}:{k}" for name in ("pca", "phase1", "random"))
    return {
        "share": 0.99, "detectable": 0.031, "needed": 1027, "cheapest": phase1, "shown": [phase1, random],
        "bits": {pca: 2.1, phase1: 2.08, random: 8.25}, "p": {pca: 1.0, phase1: 0.012, random: 0.002},
    }  # fmt: skip


def page(*entries, confirmatory=True, ceiling=CEILING):
    correct_exploratory(list(entries))
    return render_verdict(
        ORIGIN
        | {
            "experiment": "demo",
            "confirmatory": confirmatory,
            "ceiling": ceiling,
            "kept": [kept_at(entries[0]["k"])],
            "methods": [METHOD],
            "entries": list(entries),
        }
    )


def criterion(found, name, chosen="phase1"):
    return next(c for c in criteria(found, chosen, SETTINGS) if c["criterion"] == name)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (interval(0.75, 0.71, 0.79), "validated: F1 75.0% [71.0, 79.0]"),
        (interval(0.75, 0.70, 0.79), "validated: F1 75.0% [70.0, 79.0]"),
        (interval(0.65, 0.61, 0.69), "not validated: F1 65.0% [61.0, 69.0]"),
        (interval(0.65, 0.61, 0.70), "inconclusive: F1 65.0% [61.0, 70.0] straddles 70%; the point estimate alone chose the branch"),
        (interval(0.72, 0.69, 0.75), "inconclusive: F1 72.0% [69.0, 75.0] straddles 70%; the point estimate alone chose the branch"),
        (interval(0.72, None, None, "5 articles"), "inconclusive: F1 72.0%; no interval: 5 articles"),
    ],
)  # fmt: skip
def test_the_wording_has_three_values(given, expected):
    assert wording(given, 0.70) == expected


@pytest.mark.parametrize(
    ("f1", "chosen", "ceiling_passed", "expected"),
    [
        (0.71, "phase1", True, "validated_phase1"),
        (0.70, "phase2", True, "validated_phase2"),
        (0.7 - 1e-12, "phase2", True, "validated_phase2"),  # the rounding of a mean
        (0.6999, "phase1", True, "partial"),
        (0.50, "phase2", True, "partial"),
        (0.4999, "phase2", True, "failed"),
        (0.95, "phase1", False, "void"),
        (0.10, "phase2", False, "void"),
    ],
)
def test_the_point_rule_routes(f1, chosen, ceiling_passed, expected):
    assert route(f1, chosen, GATE, ceiling_passed) == expected


@pytest.mark.parametrize(
    ("arguments", "chosen", "outcome"),
    [
        ({"gate_passed": True, "phase1": 0.8}, "phase1", "validated_phase1"),
        ({"gate_passed": True, "phase1": 0.8, "phase2": 0.9, "forced": True}, "phase1", "validated_phase1"),
        ({"phase1": 0.6, "phase2": 0.8}, "phase2", "validated_phase2"),
        ({"phase1": 0.8, "phase2": 0.6}, "phase2", "partial"),  # the gate chose, and final does not choose again
        ({"phase1": 0.3, "phase2": 0.4}, "phase2", "failed"),
        ({"phase1": 0.6, "phase2": 0.65, "text": 0.6}, "phase2", "void"),
    ],
)
def test_the_chosen_adapter_and_the_outcome(arguments, chosen, outcome):
    entry = verdict_on(results(**arguments))
    assert (entry["chosen"], entry["outcome"]) == (chosen, outcome)
    assert entry["f1"]["estimate"] == pytest.approx(arguments.get(chosen, 0.65))


def test_a_ceiling_that_failed_on_gate_makes_it_void():
    assert verdict_on(results(phase2=0.9), ceiling=CEILING | {"passed": False})["outcome"] == "void"


@pytest.mark.parametrize(
    ("gate_passed", "phase1", "agrees"),
    [(True, 0.8, True), (True, 0.6, False), (False, 0.6, True), (False, 0.8, False), (True, 0.7, True)],
)
def test_a_disagreement_with_the_gate_is_stated(gate_passed, phase1, agrees):
    entry = verdict_on(results(gate_passed=gate_passed, phase1=phase1))
    assert entry["agrees_with_gate"] is agrees
    assert ("**`final` disagrees with the gate's decision**" in page(entry)) is not agrees


def test_the_criteria_are_those_of_the_plan():
    found = {c["criterion"]: c for c in criteria(results(), "phase1", SETTINGS)}
    assert {name: c["threshold"] for name, c in found.items()} == {
        "training completed": "all planned steps",
        "loss decreased": "< 1",
        "cosine similarity": "> 0.9",
        "fraction of variance unexplained": "< 0.5",
        "F1": ">= 0.7",
        "metrics improving": "> 0",
    }
    assert {name for name, c in found.items() if not c["passed"]} == {"F1"}
    assert {name for name, c in found.items() if c["interval"]} == set(found) - {
        "training completed",
        "loss decreased",
    }


def test_training_that_stopped_early_is_not_completed():
    found = results()
    found.summaries["phase1"][0]["steps"] -= 1
    assert not criterion(found, "training completed")["passed"]
    assert criterion(found, "training completed")["value"] == pytest.approx(79 / 80)


@pytest.mark.parametrize(
    ("name", "untrained"),
    [
        ("cosine similarity", {"pca_cosine": 0.92}),
        ("fraction of variance unexplained", {"pca_fvu": 0.4}),
        ("F1", {"pca": 0.75}),
    ],
)
def test_a_criterion_that_the_untrained_inverse_meets_is_not_attributed_to_training(name, untrained):
    note = "not attributable to training: the untrained pca arm already meets it"
    assert criterion(results(), name)["note"] == ""
    assert criterion(results(**untrained), name)["note"] == note


def test_metrics_improve_where_the_paired_interval_is_above_zero():
    assert criterion(results(fvu=0.59), "metrics improving")["passed"]
    worse = criterion(results(fvu=0.61), "metrics improving")
    assert not worse["passed"] and worse["value"] < 0
    assert not criterion(results(fvu=0.6), "metrics improving")["passed"]  # equal: no interval, no improvement


def test_only_exploratory_entries_are_corrected():
    entries = [
        {"k": k, "p_value": p, "wording": f"validated: {k}", "f1": {"estimate": 0.75}}
        for k, p in ((16, 0.2), (8, 0.02), (4, 0.04), (2, None))
    ]
    correct_exploratory(entries)
    assert [entry["role"] for entry in entries] == ["primary"] + ["exploratory"] * 3
    # Holm over the exploratory ones with a p-value: 2 x 0.02, then the larger of that and 0.04.
    assert [entry["p_value_holm"] for entry in entries] == [None, pytest.approx(0.04), pytest.approx(0.04), None]
    assert entries[0]["wording"] == "validated: 16"  # whatever its p-value
    assert [entry["wording"] for entry in entries[1:]] == ["validated: 8", "validated: 4", "validated: 2"]


def test_an_exploratory_entry_that_the_correction_leaves_undecided_is_inconclusive():
    entries = [
        {"k": k, "p_value": p, "wording": text, "f1": {"estimate": 0.75}}
        for k, p, text in (
            (16, 0.9, "validated: 16"),
            (8, 0.03, "not validated: 8"),
            (4, 0.5, "inconclusive: 4"),
        )
    ]
    correct_exploratory(entries)
    assert entries[0]["wording"] == "validated: 16"
    assert entries[1]["wording"] == "inconclusive: F1 75.0%, Holm-adjusted p = 0.060"
    assert entries[2]["wording"] == "inconclusive: 4"


@pytest.mark.parametrize(
    ("arguments", "causes"),
    [
        ({"phase2": 0.65}, 3),
        ({"phase2": 0.3}, 3),
        ({"phase2": 0.8}, 0),
        ({"gate_passed": True, "phase1": 0.8}, 0),
        ({"phase2": 0.3, "text": 0.5}, 0),  # void: the prompt comes first
    ],
)
def test_causes_are_given_for_failures_alone(arguments, causes):
    entry = verdict_on(results(**arguments))
    assert len(entry["causes"]) == causes
    assert ("### Possible causes, and how to tell them apart" in page(entry)) == bool(causes)


def test_the_evidence_for_each_cause():
    causes = {cause["cause"]: cause["evidence"] for cause in verdict_on(results(phase2=0.6))["causes"]}
    assert causes["compression too lossy"] == {
        "explained_variance_ratio": 0.6, "f1_nearest_code": pytest.approx(0.8), "f1_nearest_to_inverse": None,
        "f1_untrained": pytest.approx(0.2), "f1_chosen": pytest.approx(0.6),
    }  # fmt: skip
    assert causes["adapter too small"]["share_of_table"] == 0.1
    # From step 64 of 80 on: 0.6 - 0.3 * 0.8 = 0.36 falls to 0.3.
    assert causes["too little training"]["late_fvu_gain"] == pytest.approx(1 - 0.3 / 0.36)


def configuration_of(command, base=("config.yaml",)):
    """The configuration that a command asks for, checked as the Snakefile does."""
    words = shlex.split(command)
    assert words[:3] == [".venv/bin/snakemake", "--profile", "profiles/local"]
    files, given = words.index("--configfile"), words.index("--config")
    config = {}
    for file in (*base, *words[files + 1 : given]):
        update_config(config, yaml.safe_load((ROOT / file).read_text()))
    before = copy.deepcopy(config)
    update_config(config, parse_config(words[given + 1 :]))
    # Nothing of the demo's model is needed to see that a command is valid.
    return before, checked(config, ROOT / "tests")


def changes(before, after):
    """What differs, by its place."""
    found = {}
    for key in after:
        if isinstance(after[key], dict):
            found |= {f"{key}.{name}": value for name, value in changes(before[key], after[key]).items()}
        elif before[key] != after[key]:
            found[key] = after[key]
    return found


def test_the_next_commands_are_valid_and_change_one_thing():
    commands = [cause["command"] for cause in verdict_on(results(phase2=0.3))["causes"]]
    assert [changes(*configuration_of(command)) for command in commands] == [
        {"experiment": "demo-k16-twice", "compress_dims": [32]},
        {"experiment": "demo-k16-wider", "compress_dims": [16], "adapter.hidden": 128},
        {"experiment": "demo-k16-longer", "compress_dims": [16], "phase1.epochs": 60},
    ]


def test_the_next_commands_keep_what_this_experiment_was_given_on_the_command_line():
    given = {"experiment": "mine", "phase1": {"lr": "0.002", "epochs": "5"}, "model": {"system_prompt": "Say 'it'."}}
    settings = dataclasses.replace(SETTINGS, experiment="mine", overrides=given, epochs=5)
    command = verdict_on(results(phase2=0.3), settings=settings)["causes"][2]["command"]
    assert changes(*configuration_of(command)) == {
        "experiment": "mine-k16-longer", "compress_dims": [16], "phase1.epochs": 15, "phase1.lr": 0.002,
        "model.system_prompt": "Say 'it'.",
    }  # fmt: skip
    assert given["phase1"] == {"lr": "0.002", "epochs": "5"}  # not changed in place


def test_no_more_dimensions_are_proposed_than_the_model_has():
    entry = verdict_on(results(phase2=0.3, k=100))
    assert "'compress_dims=[128]'" in entry["causes"][0]["command"]


@pytest.mark.parametrize(
    ("arguments", "why", "changed"),
    [
        ({"phase2": 0.3}, "too little training? the held-out FVU still fell by 17% at the end", "phase1.epochs"),
        ({"gate_passed": True, "phase1": 0.9}, "twice the compression", "compress_dims"),
        ({"phase2": 0.72}, "the interval straddles the threshold: half the compression", "compress_dims"),
        ({"phase2": 0.3, "text": 0.5}, "the uncompressed text is below the threshold", None),
    ],
)
def test_one_step_comes_next(arguments, why, changed):
    step = verdict_on(results(**arguments))["next"]
    assert step["why"].startswith(why)
    if changed is None:
        assert step["command"] is None
    else:
        assert changed in changes(*configuration_of(step["command"]))


@pytest.mark.parametrize(
    ("snap", "why", "command"),
    [
        (0.8, "adapter too small? the nearest code loses 10.0 points of F1, the adapter 50.0 more", "wider"),
        (0.4, "compression too lossy? the nearest code loses 50.0 points of F1, the adapter 10.0 more", "twice"),
        (None, "compression too lossy? the nearest code (snap) was not evaluated", "twice"),
    ],
)
def test_a_converged_failure_asks_where_f1_is_lost(snap, why, command):
    found = results(phase2=0.3)
    found.histories["phase1"] = [[row | {"recon_fvu": 0.3} for row in found.histories["phase1"][0]]]
    found.arms.pop("snap")
    if snap is not None:
        found.arms["snap"] = arm(snap)
    step = verdict_on(found)["next"]
    assert step["why"] == why and f"experiment=demo-k16-{command}" in step["command"]


def test_the_higher_floor_is_the_floor():
    arms = results().arms
    assert floor_arm(arms) == "question"
    assert floor_arm({"mean": arms["mean"]}) == "mean"
    assert floor_arm({"text": arms["text"]}) is None


def test_comparisons_isolate_one_variable_each():
    assert list(comparisons(results().arms, SETTINGS)) == [
        "phase1 - pca", "phase1 - random", "phase2 - phase1", "phase2 - control", "control - phase1"
    ]  # fmt: skip
    passed = comparisons(results(gate_passed=True).arms, SETTINGS)
    assert list(passed) == ["phase1 - pca", "phase1 - random"]
    assert passed["phase1 - pca"]["estimate"] == pytest.approx(0.4)


def test_ratios_of_kl_stand_beside_the_differences_in_f1():
    entry = verdict_on(results())
    # Of random, phase2 and control no KL was measured.
    assert list(entry["kl_ratios"]) == ["phase1 - pca"]
    assert entry["kl_ratios"]["phase1 - pca"]["estimate"] == pytest.approx(0.5 / 2.0)
    text = page(entry)
    assert f"| phase1 - pca | {percent(entry['comparisons']['phase1 - pca'])} | 0.25 |" in text
    assert f"| phase2 - phase1 | {percent(entry['comparisons']['phase2 - phase1'])} | – |" in text


def test_kl_by_training_count_has_intervals():
    found = results()
    found.divergence["pca", "1-9"] = moved(3.0)
    (row,) = [line for line in page(verdict_on(found)).splitlines() if line.startswith("| `pca` | 2.00 (1 MB")]
    unseen, few = row.split(" | ")[6:8]
    assert unseen == "–" and few.startswith("3") and re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", few)


def test_the_gates_kl_is_part_of_the_page():
    found = results()
    assert "same top token" not in page(verdict_on(found)).partition("gate: partial at F1 60.0%")[2].partition("\n")[0]
    found.gate.update(
        kl={"estimate": 0.5, "lower": 0.4, "upper": 0.6}, same_top={"estimate": 0.6, "lower": None, "upper": None}
    )
    said = "gate: partial at F1 60.0%, KL 0.5 [0.4, 0.6] nats and same top token 60.0% at prompt positions"
    assert said in page(verdict_on(found))


def test_retention_is_a_share_of_the_ceiling_and_above_the_floor():
    own = verdict_on(results(phase2=0.65))["arms"]["phase2"]
    assert own["retention"]["estimate"] == pytest.approx(0.65 / 0.9)
    assert own["retention_above_floor"]["estimate"] == pytest.approx((0.65 - 0.1) / (0.9 - 0.1))
    assert own["retention_above_floor"]["floor"] == "question"


def test_bits_per_token_stand_beside_the_token_id():
    assert bits(512, 4096, 2**17, 16) == {"code": 8192, "embedding": 65536, "token_id": 17.0, "ratio": 8.0}


def test_the_page_says_what_weakens_the_verdict():
    entry = verdict_on(results(phase2=0.3))
    plain = page(entry)
    assert "Not confirmatory" not in plain and "overridden" not in plain
    assert "no code of a single token beats" in plain and "bits per prompt token: 256 in the code" in plain
    weak = page(entry, confirmatory=False, ceiling=CEILING | {"override": True, "passed": False})
    assert "**Not confirmatory**" in weak and "**The ceiling check is overridden**" in weak and "FAILED" in weak


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {},
            "Model `owner/model` at revision `abc`; data `owner/squad` at revision `def`; 2026-11-24; commit `0123abc`.",
        ),
        (
            {"model": {"path": "resources/reader", "revision": None}, "data": {"source": "demo"}, "commit": None},
            "Model `resources/reader`; data the embedded corpus; 2026-11-24; not from a git checkout.",
        ),
        (
            {
                "model": {
                    "path": "models/real",
                    "revision": None,
                    "made_from": {"base": {"requirement": "a-model==1"}, "lora": {"name": "tuned"}},
                }
            },
            "Model `models/real` (a-model==1 and LoRA adapter `tuned`); data `owner/squad` at revision `def`; 2026-11-24; "
            "commit `0123abc`.",
        ),
        (
            {"data": {"source": "local", "train_file": "train.json", "dev_file": "dev.json"}},
            "Model `owner/model` at revision `abc`; data `train.json` and `dev.json`; 2026-11-24; commit `0123abc`.",
        ),
    ],
)
def test_the_page_names_model_data_date_and_commit(changed, line):
    assert origin(ORIGIN | changed) == line
    assert origin(ORIGIN) in page(verdict_on(results()))
    assert f"**Warning**: {ORIGIN['warnings'][0]}." in page(verdict_on(results()))


def test_every_arm_has_a_legend_of_one_line():
    assert all(arm.legend and "\n" not in arm.legend and len(arm.legend) <= 100 for arm in ARMS.values())
    readme, page = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/experiment.md"))
    noise = {arm.noise: arm for arm in ARMS.values() if arm.error_of == "pca" and arm.noise}
    spreads = "".join(
        f"| `{arm.name[:-3]}<codec>` | {arm.legend.replace('pca', '<codec>')} |\n" for arm in noise.values()
    )
    lines = {name: f"| `{name}` | {arm.legend} |\n" for name, arm in ARMS.items() if not arm.noise}
    codecs = [name for name in lines if name not in ("identity_ppl", "mean", "question")]
    assert "".join([*map(lines.get, codecs), spreads, *(lines[n] for n in lines if n not in codecs)]) in page
    default = {"text", "phase1", "phase2", "control", *Evaluate().arms}
    table = "".join(line for name, line in lines.items() if name in default)
    assert 0 < readme.index(table) < readme.index("| F1 %, final |"), "README says it before its first figures"


def test_the_page_says_what_every_arm_reads_and_what_comes_next():
    entry = verdict_on(results(phase2=0.3))
    text = page(entry)
    for name in entry["arms"]:
        assert f"| `{name}` | {ARMS[name].legend} |" in text
    assert f"Next: {entry['next']['why']}.\n\n    {entry['next']['command']}\n" in text


def test_the_page_shows_every_arm_criterion_and_command():
    entry = verdict_on(results(phase2=0.3))
    text = page(entry)
    for name in entry["arms"]:
        assert f"\n| {name} | " in text
    for c in entry["criteria"]:
        assert f"| {c['criterion']} | {c['threshold']} |" in text
    for cause in entry["causes"]:
        assert f"`{cause['command']}`" in text
    assert entry["wording"] in text and f"outcome `{entry['outcome']}`" in text


def test_what_an_arm_stores_and_how_far_it_moves_predictions_stand_beside_its_f1():
    entry = verdict_on(results())
    own = entry["arms"]["pca"]
    assert own["rate"] == {"bits_per_parameter": 2.0, "megabytes": 1.0, "megabytes_by_dtype": {"bf16": 1.0}}
    found = own["divergence"]
    assert found["prompt"]["kl"]["estimate"] == pytest.approx(2.0, rel=0.03)
    assert found["prompt"]["kl"]["lower"] < found["prompt"]["kl"]["estimate"] < found["prompt"]["kl"]["upper"]
    assert found["prompt"]["same_top"]["estimate"] == pytest.approx(0.8)
    assert found["answer"]["log_likelihood_change"]["estimate"] == pytest.approx(-2.0, rel=0.03)
    assert found["prompt"]["positions"] == 5 * QUESTIONS
    assert entry["arms"]["text"]["rate"] is None and entry["arms"]["text"]["divergence"] is None
    text = page(entry)
    assert "| `pca` | 2.00 (1 MB: 1 bf16) | " in text and f"predictions on {QUESTIONS} questions" in text


def frontier(**changes):
    """Results with six codecs whose FVU and KL are in the same order, and PCA's noise controls."""
    found = results()
    codecs = {"int8": 0.01, "int4": 0.1, "pq4": 0.2, "pq8": 0.4, "pca": 0.6, "phase1": 0.3}
    kl = {name: 5 * fvu for name, fvu in codecs.items()} | changes
    for subset in ("all", "answer", "seen", "unseen"):
        found.reconstruction.update({(name, subset): sums(fvu, 1 - fvu) for name, fvu in codecs.items()})
    noise = {"noise_rows_pca": 0.5, "noise_shrunk_pca": 1.0, "noise_equal_pca": 0.25}
    found.kl_by_seed.update({name: [0.9 * size, 1.1 * size] for name, size in noise.items()})
    for subset in ("prompt", "answer"):
        found.divergence.update({(name, subset): moved(size) for name, size in (kl | noise).items()})
    found.arms.update({name: arm(1 - fvu, seed=40 + i) for i, (name, fvu) in enumerate((codecs | noise).items())})
    return found


def test_it_says_whether_reconstruction_predicts_generation():
    found = predictive(frontier(), SETTINGS.bootstrap)
    assert found["arms"] == ["phase1", "pca", "int8", "int4", "pq4", "pq8"]
    by_name = {own["measure"]: own for own in found["measures"]}
    for name in ("FVU", "1 − cosine", "1 − nearest-token accuracy"):
        assert by_name[name]["kl"]["estimate"] == pytest.approx(1)
    assert by_name["FVU"]["f1"]["estimate"] > 0.8
    assert by_name["relative error"]["kl"]["estimate"] == pytest.approx(-1)  # the fixture's falls where FVU rises
    assert "FVU of tokens seen 10–99 times" not in by_name  # not measured for all of them
    other = predictive(frontier(int8=5.0, pca=0.01), SETTINGS.bootstrap)
    assert other["measures"][0]["kl"]["estimate"] < 0.2
    assert predictive(results(), SETTINGS.bootstrap) is None
    text = page(verdict_on(frontier()))
    assert "over 6 codecs" in text and "| FVU | 1 [1, 1] | " in text
    assert "over 6 codecs" not in page(verdict_on(results()))


def test_what_makes_an_error_harmful_is_split_into_allocation_and_direction():
    (found,) = harm_of_error(frontier(pca=4.0), SETTINGS.bootstrap)
    factors = {name: found[name]["estimate"] for name in ("total", "allocation", "direction", "shrinkage")}
    assert factors == pytest.approx({"total": 16, "allocation": 2, "direction": 8, "shrinkage": 2})
    assert found["draws"] == 2 and found["draw_deviation"] == pytest.approx(0.2 / 2**0.5)
    assert harm_of_error(results(), SETTINGS.bootstrap) == []
    assert "| `pca` | 16 | 2 | 8 | 2 | 2 (deviation ≤ 14.1%) |" in page(verdict_on(frontier(pca=4.0)))


def test_a_ceiling_whose_answers_are_a_matter_of_form_is_warned_of():
    counts = {"questions": 200, "empty": 3, "length_capped": 9, "degenerate": 9, "wrapped": 2}
    assert _answer_warnings(counts) == [
        "3 of 200 answers of the uncompressed model are empty: look at model.system_prompt and "
        "model.template_arguments"
    ]
    (warning,) = _answer_warnings(counts | {"empty": 0, "wrapped": 5})
    assert warning.startswith("5 of 200 answers of the uncompressed model begin with a thinking tag")


def test_the_page_says_which_codecs_keep_the_texts_f1_and_what_the_sample_can_show():
    entry = verdict_on(results())
    text = page(entry)
    kept = {arm: percent(entry["arms"][arm]["retention"]) for arm in ("pca", "phase1", "random")}
    assert kept["phase1"].startswith("66.7 [") and len({*kept.values()}) == 3
    shown = f"Shown for `phase1:16` {kept['phase1']} (2.08 bits, p = 0.012); `random:16` {kept['random']} (8.25 bits"
    assert f"Keeps 99% of the uncompressed text's F1 (retention in %)? {shown}" in text
    assert f"of which the first is the cheapest. Not shown at 99%: `pca:16` {kept['pca']}." in text
    assert "Holm's correction over 3 codecs. With these 200 questions in 25 articles, losses under 3.1 points" in text


def test_the_page_says_which_codec_to_take_at_which_rate():
    line = "| 2 | `pq4` | 2.08 | 0.097 [0.085, 0.108] | `rq8` (2.17) | 0.92 [0.9, 0.94] |\n"
    assert line in page(verdict_on(results()))
    alone = METHOD | {"next_best": None, "next_bits": None, "ratio": None}
    assert method_lines([alone])[-1] == "| 2 | `pq4` | 2.08 | 0.097 [0.085, 0.108] | – | – |"
    assert method_lines([]) == []


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            {"pca": 0.8},
            "pca reaches F1 80.0% at 2.00 bits per table parameter, while phase2 takes 2.00; beside others",
        ),
        (
            {"pca": 0.2},
            "no codec that was evaluated reaches the threshold within the 2.00 bits per table parameter",
        ),
    ],
)
def test_a_failure_names_the_codec_that_passes_at_no_more_bits(shares, said):
    found = verdict_on(results(**shares))["instead"]
    assert found["why"].startswith(said)
    assert "experiment=demo-k16-codecs" in found["command"]
    _, config = configuration_of(found["command"])
    assert {*config["evaluate"]["arms"]} == {*IN_USE} | ({"pca"} if shares["pca"] > 0.7 else set())


def test_the_command_of_a_failure_is_valid_with_noise_and_names_no_arm_that_runs_anyway():
    found = results(pca=0.8)
    found.arms["noise_rows_random"] = arm(0.1)
    settings = dataclasses.replace(
        SETTINGS, overrides={"evaluate": {"arms": ["pca", "random"], "noise_controls": {"random": 1}}}
    )
    _, config = configuration_of(verdict_on(found, settings=settings)["instead"]["command"])
    assert config["evaluate"]["arms"] == ["pca", *IN_USE, "random"]
    assert config["evaluate"]["noise_controls"] == {"random": 1}
    # The gate chose Phase 2, which fails, and Phase 1 reaches the threshold on final.
    better = verdict_on(results(phase1=0.8, phase2=0.6))["instead"]
    assert better["why"].startswith("phase1 reaches F1 80.0%")
    assert configuration_of(better["command"])[1]["evaluate"]["arms"] == list(IN_USE)


def test_more_bits_than_the_chosen_arms_are_no_answer_to_a_failure_and_a_success_needs_none():
    dearer = results(pca=0.8)
    dearer.rates["pca"] = {"bits_per_parameter": 2.5, "megabytes": 1.0, "megabytes_by_dtype": {"bf16": 1.0}}
    assert verdict_on(dearer)["instead"]["why"].startswith("no codec that was evaluated")
    assert verdict_on(results(gate_passed=True, phase1=0.8))["instead"] is None
