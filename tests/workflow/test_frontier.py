"""The frontier of a finished experiment: every codec once, by its bits, and the same files each time."""

import json

import pandas as pd
import pytest
from workspace import RESULTS

from latentwire.arms_table import arm_row
from latentwire.decisions.frontier import Point, _is_pareto
from latentwire.decisions.kept import codec_name
from latentwire.report.verdict_text import OTHER_HEADS
from latentwire.settings import Evaluate

FILES = ("frontier.json", "frontier.svg", "frontier-error.svg", "frontier.html")

pytestmark = pytest.mark.workflow


@pytest.fixture
def run(changed):
    """Writes the frontier and returns what is printed."""

    def write() -> str:
        done = changed.python("workflow/scripts/frontier.py", "--root", RESULTS)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return write


@pytest.mark.slow
def test_the_frontier_holds_every_codec_of_the_verdict_by_its_bits(changed, run):
    printed = run()
    first = [(changed / f"{RESULTS}/{name}").read_bytes() for name in FILES]
    assert run() == printed
    assert [(changed / f"{RESULTS}/{name}").read_bytes() for name in FILES] == first
    found = json.loads(first[0])
    verdict = json.loads((changed / f"{RESULTS}/verdict/verdict.json").read_text(encoding="utf-8"))
    expected = {
        f"{arm}:{entry['k']}" if arm_row(arm).sized else arm: own
        for entry in verdict["entries"]
        for arm, own in entry["arms"].items()
        if own["rate"] is not None
    }
    points = {point["codec"]: point for point in found["points"]}
    assert points.keys() == expected.keys() and len(points) > 3
    for name, point in points.items():
        assert point["bits"] == expected[name]["rate"]["bits_per_parameter"]
        assert point["f1"] == expected[name]["f1"] and point["kl"] == expected[name]["divergence"]["prompt"]["kl"]
        assert f"`{name}`" in printed
    assert [point["bits"] for point in found["points"]] == sorted(point["bits"] for point in found["points"])
    best = [point["kl"]["estimate"] for point in found["points"] if point["pareto"]]
    assert best and best == sorted(best, reverse=True)
    # An untrained reader answers nothing right, so that nothing can be shown.
    assert [own["share"] for own in found["kept"]] == [0.99, 0.999]
    assert all(own["cheapest"] is None for own in found["kept"])
    assert all(keeps == {"p": 1.0, "shown": False} for point in found["points"] for keeps in point["keeps"])
    assert "No codec is shown to keep 99%" in printed and "No codec is shown to keep 99.9%" in printed
    assert all(point["seconds_to_make"] > 0 and point["seconds_to_decode"] > 0 for point in found["points"])
    by_kl = {point["codec"]: point["kl"]["estimate"] for point in found["points"]}
    for own in found["methods"]:
        within = [name for name, point in points.items() if point["bits"] <= 1.1 * own["bits"]]
        assert [own["codec"], own["next_best"]] == sorted(within, key=by_kl.get)[:2]
        said = f"| {own['bits']:g} | `{own['codec']}` |"
        assert said in printed and said in (changed / f"{RESULTS}/verdict/verdict.md").read_text(encoding="utf-8")
    assert found["methods"]


# An adapter by the root of counts, adapters on a quantiser's rows, and the linear bottleneck.
TRAINED = ("phase1_root", "bottleneck", "adapted_pq8", "adapted_pq8_root")
ARMS = (*Evaluate().arms, "pq8", *TRAINED)
# One of each training.
NOISY = ("phase1", "phase2", "random", "bottleneck", "adapted_pq8")
FURTHER = (
    "--config",
    f"evaluate={{arms: [{', '.join(ARMS)}], noise_controls: {{pca: 2, {': 1, '.join(NOISY)}: 1}}}}",
    "exploratory={arms: [pca]}",
)  # fmt: skip


@pytest.fixture(scope="module")
def further(finished, tmp_path_factory):
    """The experiment with random errors beside PCA's, and with further trained arms."""
    workspace = finished.copy(tmp_path_factory.mktemp("further"))
    plan = workspace.plan(*FURTHER)
    assert plan.of("train_phase1") == [{"k": "8", "seed": "0", "arm": "phase1_root"}]
    assert sorted(job["arm"] for job in plan.of("train_quantised")) == ["adapted_pq8", "adapted_pq8_root"]
    assert plan.of("train_bottleneck") == [{"k": "8", "seed": "0", "arm": "bottleneck"}]
    workspace.succeed(*FURTHER)
    assert not workspace.plan(*FURTHER)
    done = workspace.python("workflow/scripts/frontier.py", "--root", RESULTS)
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture(scope="module")
def entries(further):
    """The verdict's entries."""
    return json.loads((further / f"{RESULTS}/verdict/verdict.json").read_text(encoding="utf-8"))["entries"]


@pytest.mark.slow
def test_random_errors_stand_beside_a_codecs_own(finished, further, entries):
    own, now = (
        pd.read_parquet(folder / f"{RESULTS}/evaluation/final/scores.parquet") for folder in (finished, further)
    )
    kept = own.merge(now, on=["arm", "k", "seed", "id"], suffixes=("", "_now"))
    assert len(kept) >= len(now[now["arm"].isin(own["arm"]) & now["k"].isin([8])])
    assert (kept["prediction"] == kept["prediction_now"]).all() and (kept["f1"] == kept["f1_now"]).all()
    found = json.loads((further / f"{RESULTS}/frontier.json").read_text(encoding="utf-8"))
    fvu = {point["codec"]: point["fvu"] for point in found["points"]}
    spreads = {(noise["codec"], noise["noise"]): noise["fvu"] for noise in found["noise"]}
    noisy = {"pca:8", "pca:4", "phase1:4", "phase2:4", *(codec_name(arm, 8) for arm in NOISY)}
    assert {codec for codec, _ in spreads} == noisy and len(spreads) == 3 * len(noisy)
    for codec in noisy:
        assert spreads[codec, "rows"] == pytest.approx(fvu[codec], rel=1e-4)
        assert spreads[codec, "equal"] == pytest.approx(fvu[codec], rel=0.3)
    assert {harm["codec"] for harm in entries[0]["harm_of_error"]} == {"pca", *NOISY}
    assert {harm["codec"] for harm in entries[1]["harm_of_error"]} == {"pca", "phase1", "phase2", "adapted_pq8"}
    for entry in entries:
        for harm in entry["harm_of_error"]:
            assert harm["draws"] == (2 if harm["codec"] == "pca" else 1)
            assert (harm["draw_deviation"] is None) == (harm["draws"] == 1)
            product = harm["allocation"]["estimate"] * harm["direction"]["estimate"]
            assert harm["total"]["estimate"] == pytest.approx(product)
        (deviation,) = (own["draw_deviation"] for own in entry["harm_of_error"] if own["codec"] == "pca")
        assert 0 < deviation < 0.5
        assert entry["arms"]["noise_rows_pca"]["seeds"] == 1, "further draws are not answered"


@pytest.mark.slow
def test_further_trainings_run_to_the_verdict(entries):
    first, second = entries
    rates = {arm: first["arms"][arm]["rate"] for arm in (*ARMS, "phase1") if first["arms"][arm]["rate"]}
    bits = {arm: own["bits_per_parameter"] for arm, own in rates.items()}
    assert bits["bottleneck"] == bits["pca"] and bits["phase1_root"] == bits["phase1"]
    assert bits["adapted_pq8"] == bits["adapted_pq8_root"] > bits["pq8"]
    by_dtype = rates["phase1"]["megabytes_by_dtype"]
    assert list(by_dtype) == ["bf16", "f32"] and by_dtype["f32"] * 1e6 == 4 * (32 + 8 + 1), "constants alone"
    fvu = {arm: first["reconstruction"][arm]["all"]["fvu"] for arm in (*TRAINED, "pq8", "pca")}
    assert fvu["adapted_pq8"] < fvu["pq8"] and fvu["bottleneck"] == pytest.approx(fvu["pca"], rel=0.01)
    kl = [first["arms"][arm]["divergence"]["prompt"]["kl"]["estimate"] for arm in (*TRAINED, "pq8", "pca")]
    assert len({*kl}) == len(kl)
    assert "bottleneck" not in second["arms"] and "adapted_pq8" in second["arms"]
    measures = [own["measure"] for own in first["predictive"]["measures"]]
    assert "error of what the first layer reads" in measures


def test_noise_of_a_codec_that_is_not_measured_is_refused(finished):
    wrong = finished.fail("-n", "--config", "evaluate={noise_controls: {pq4: 1}}")
    assert "evaluate.noise_controls: 'pq4' is not among evaluate.arms" in wrong
    wrong = finished.fail("-n", "--config", "evaluate={noise_controls: {phase1: 2}}")
    assert "evaluate.noise_controls.phase1: 2 random errors, but 1 of seeds" in wrong


@pytest.mark.slow
def test_another_domains_text_is_measured_in_the_final_evaluation_alone(changed, run):
    before = (changed / f"{RESULTS}/evaluation/final/scores.parquet").read_bytes()
    assert "other domain" not in run() and "other_domain" not in (changed / f"{RESULTS}/frontier.json").read_text()
    text = [
        {"document": f"file {number % 24}", "text": f"def f{number}(x): return x + {number}"} for number in range(30)
    ]
    (changed / "code.jsonl").write_text("\n".join(map(json.dumps, text)))
    setting = ("--config", "evaluate={other_domain: code.jsonl}")
    jobs = changed.plan(*setting)
    assert jobs.rules == {"evaluate", "score", "final_validation", "report"}
    assert jobs.of("evaluate") == [{"evaluation": "final", "shard": "0"}]
    changed.succeed(*setting)
    assert (changed / f"{RESULTS}/evaluation/final/scores.parquet").read_bytes() == before
    assert not changed.plan(*setting)
    printed = run()
    found = json.loads((changed / f"{RESULTS}/frontier.json").read_text(encoding="utf-8"))
    assert (found["other_domain"]["passages"], found["other_domain"]["documents"]) == (30, 24)
    for point in found["points"]:
        own = point["other_domain"]
        assert own["ratio"]["estimate"] == pytest.approx(own["kl"]["estimate"] / point["kl"]["estimate"])
        assert own["kl"]["lower"] < own["kl"]["estimate"] < own["kl"]["upper"]
    assert "| KL, other domain (nats) | over that at the prompt | same top token, other domain % |" in printed
    page = (changed / f"{RESULTS}/verdict/verdict.md").read_text(encoding="utf-8")
    assert f"{OTHER_HEADS}\n" in page and " | – | – | – |\n" not in page
    # Another text is measured once more, and an unusable one ends before anything runs.
    (changed / "code.jsonl").write_text(json.dumps(text[0]))
    assert changed.plan(*setting).of("evaluate") == [{"evaluation": "final", "shard": "0"}]
    (changed / "code.jsonl").write_text("")
    assert "code.jsonl holds no passage" in changed.fail("-n", *setting)


def test_a_point_is_in_the_pareto_set_if_nothing_cheaper_harms_less():
    def point(kl: float | None) -> Point:
        return {"kl": None if kl is None else {"estimate": kl}}  # type: ignore[typeddict-item]

    assert _is_pareto(point(0.5), [])
    assert _is_pareto(point(0.5), [point(0.6), point(None)])
    assert not _is_pareto(point(0.5), [point(0.6), point(0.5)])
    assert not _is_pareto(point(None), [])
