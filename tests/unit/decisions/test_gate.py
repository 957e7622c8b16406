"""The gate: the plan's point rule routes, the interval is evidence, and the decision file holds nothing else."""

import numpy as np
import pandas as pd
import pytest

from latentwire.decisions.gate import decide_gate, question_means
from latentwire.decisions.requirements import require_phase2
from latentwire.errors import InputError
from latentwire.files import write_json

ARTICLES, QUESTIONS = 25, 400
CEILING = {"passed": True, "arms": {"text": {"f1": {"estimate": 0.9}}}}


def scores(f1, seed=0):
    """A score a question, in a random order of articles."""
    values = np.full(QUESTIONS, f1) if np.isscalar(f1) else np.asarray(f1)
    articles = np.random.default_rng(seed).integers(0, ARTICLES, len(values))
    return pd.DataFrame({"id": [f"q{n}" for n in range(len(values))], "article": articles, "f1": values})


def right_answers(share, seed=0):
    """Scores of 0 and 1 with this mean."""
    right = np.arange(QUESTIONS) < round(share * QUESTIONS)
    return scores(np.random.default_rng(seed).permutation(right).astype(float))


def moved(kl):
    """Measures of Phase 1 at 4 prompt positions a question, 3 with the same top token, one row per seed."""
    rows = [scores(0.0)[["id", "article"]].assign(positions=4, kl=4 * own, same_top=3) for own in kl]
    return pd.concat([pd.DataFrame(columns=["id", "article", "positions", "kl", "same_top"]), *rows])


def decide(*phase1, kl=(), text=0.9, threshold=0.70, failing=0.50, force_phase2=False):
    return decide_gate(
        CEILING, scores(text), list(phase1), moved(kl), threshold=threshold, failing=failing, force_phase2=force_phase2,
        resamples=400, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("share", "reading", "run_phase2"),
    [
        (1.0, "validated", False),
        (0.7025, "validated", False),
        (0.70, "validated", False),  # at the threshold is above it
        (0.6975, "partial", True),
        (0.50, "partial", True),
        (0.4975, "failing", True),
        (0.0, "failing", True),
    ],
)
def test_the_point_estimate_routes(share, reading, run_phase2):
    decision, evidence = decide(right_answers(share))
    assert decision == {"run_phase2": run_phase2}
    assert (evidence["reading"], evidence["passed"]) == (reading, not run_phase2)
    assert evidence["f1"]["estimate"] == pytest.approx(share)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("limit", "reading"), [(0.70, "validated"), (0.50, "partial")])
def test_a_mean_that_equals_a_threshold_is_not_rounded_below_it(limit, reading, seed):
    three_seeds = [right_answers(limit, seed=10 * seed + run) for run in range(3)]
    assert decide(*three_seeds)[1]["reading"] == reading
    assert decide(scores(limit))[1]["reading"] == reading


def test_the_interval_does_not_route_but_says_where_it_straddles():
    below, above = decide(right_answers(0.69)), decide(right_answers(0.71))
    assert below[0] == {"run_phase2": True} and above[0] == {"run_phase2": False}
    for _, evidence in (below, above):
        assert evidence["f1"]["lower"] < 0.70 < evidence["f1"]["upper"]
        assert evidence["straddles"] == [0.70]
    assert decide(right_answers(0.51))[1]["straddles"] == [0.50]
    assert decide(right_answers(0.60))[1]["straddles"] == []
    assert decide(right_answers(0.60), threshold=0.61, failing=0.59)[1]["straddles"] == [0.61, 0.59]


def test_an_interval_that_is_refused_straddles_nothing():
    few = right_answers(0.7)
    few["article"] %= 5
    _, evidence = decide(few)
    assert evidence["f1"]["lower"] is None and "5 articles" in evidence["f1"]["refused"]
    assert evidence["straddles"] == []


@pytest.mark.parametrize(("share", "forced"), [(0.9, True), (0.6, False)])
def test_phase_2_can_be_forced_and_the_evidence_says_where_that_mattered(share, forced):
    decision, evidence = decide(right_answers(share), force_phase2=True)
    assert decision == {"run_phase2": True}
    assert (evidence["forced"], evidence["passed"]) == (forced, forced)


def test_seeds_are_averaged_a_question_at_a_time():
    runs = [right_answers(share, seed) for seed, share in enumerate((0.6, 0.7, 0.8))]
    shuffled = runs[1].sample(frac=1, random_state=0)  # the order of the rows does not matter
    decision, evidence = decide(runs[0], shuffled, runs[2])
    assert evidence["f1"]["estimate"] == pytest.approx(0.7)
    assert evidence["f1_seed_deviation"] == pytest.approx(0.1)
    assert evidence["seeds"] == 3
    assert decision == {"run_phase2": False}
    assert evidence["difference_to_text"]["estimate"] == pytest.approx(0.7 - 0.9)
    assert decide(runs[0])[1]["f1_seed_deviation"] is None


def test_how_far_phase_1_moves_predictions_is_evidence_alone():
    _, evidence = decide(right_answers(0.7), kl=(0.4, 0.6))
    assert evidence["kl"]["estimate"] == pytest.approx(0.5) and evidence["same_top"]["estimate"] == pytest.approx(0.75)
    assert evidence["kl"]["questions"] == QUESTIONS
    _, without = decide(right_answers(0.7))
    assert without["kl"] is None and without["same_top"] is None
    assert {name: value for name, value in evidence.items() if name not in ("kl", "same_top")} == {
        name: value for name, value in without.items() if name not in ("kl", "same_top")
    }


def test_seeds_on_different_questions_are_refused():
    one, other = right_answers(0.7), right_answers(0.7)
    other.loc[0, "id"] = "another"
    with pytest.raises(InputError, match="different questions; evaluate them again"):
        question_means([one, other])


def test_phase_2_is_refused_where_the_gate_passed(tmp_path):
    path = tmp_path / "decision.json"
    write_json(path, {"run_phase2": False})
    with pytest.raises(InputError, match="the gate passed.*set gate.force_phase2 to true"):
        require_phase2(path)
    write_json(path, {"run_phase2": True})
    require_phase2(path)
