"""How far an experiment is: from benchmark files alone, with an earlier run's durations for what is left."""

import json

import pytest

from latentwire.progress import finished_jobs, progress, read_durations, stage_of, write_durations

DURATIONS = {
    "data/manifest.json": 10.0,
    "evaluation/ceiling/predictions.0-of-1.jsonl": 100.0,
    "k72/seed0/phase1/adapter.safetensors": 50.0,
    "evaluation/phase1/predictions.0-of-1.jsonl": 100.0,
    "k72/seed0/phase2/adapter.safetensors": 300.0,
    "k72/seed0/reconstruction/phase2.parquet": 200.0,
    "evaluation/final/predictions.0-of-1.jsonl": 400.0,
}


def finish(root, job, seconds):
    path = root / "benchmarks" / f"{job}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")


@pytest.mark.parametrize(
    ("job", "stage"),
    [
        ("data/manifest.json", "preparation"),
        ("pca/pca.safetensors", "preparation"),
        ("evaluation/ceiling/scores.parquet", "ceiling"),
        ("k72/seed0/random/adapter.safetensors", "Phase 1"),
        ("evaluation/phase1/scores.parquet", "gate"),
        ("k72/seed0/control/adapter.safetensors", "Phase 2"),
        ("seed0/identity_ppl/adapter.safetensors", "Phase 2"),
        ("k72/seed0/distilled/adapter.safetensors", "Phase 2"),
        ("k72/seed0/reconstruction/phase1.parquet", "reconstruction"),
        ("k72/codecs/quant", "preparation"),
        ("evaluation/final/scores.parquet", "final validation"),
    ],
)
def test_every_job_is_in_one_stage(job, stage):
    assert stage_of(job) == stage


def test_the_time_left_follows_this_machines_speed(tmp_path):
    assert progress(tmp_path, DURATIONS, parallel=2).minutes_left == pytest.approx(1160 / 2 / 60)
    finish(tmp_path, "data/manifest.json", 20.0)
    finish(tmp_path, "evaluation/ceiling/predictions.0-of-1.jsonl", 200.0)  # twice as long as in the earlier run
    found = progress(tmp_path, DURATIONS, parallel=2)
    assert (found.stage, found.done, found.jobs) == ("Phase 1", 2, 7)
    assert found.minutes_left == pytest.approx(2 * 1050 / 2 / 60)
    assert str(found) == "Phase 1: 2 of 7 jobs done, about 18 min left"


def test_a_gate_that_passed_takes_phase_2_off_the_list(tmp_path):
    for job in list(DURATIONS)[:4]:
        finish(tmp_path, job, DURATIONS[job])
    gate = tmp_path / "k72" / "gate" / "decision.json"
    gate.parent.mkdir(parents=True)
    gate.write_text(json.dumps({"run_phase2": True}))
    assert progress(tmp_path, DURATIONS, parallel=1).minutes_left == pytest.approx(900 / 60)
    gate.write_text(json.dumps({"run_phase2": False}))
    found = progress(tmp_path, DURATIONS, parallel=1)
    assert (found.stage, found.jobs, found.minutes_left) == ("final validation", 5, pytest.approx(400 / 60))


def test_without_an_earlier_run_it_says_what_it_knows(tmp_path):
    finish(tmp_path, "evaluation/ceiling/predictions.0-of-1.jsonl", 1.0)
    assert str(progress(tmp_path, {}, parallel=2)).startswith("ceiling: 1 jobs done; how long is left is not known")


def test_durations_survive_a_file(tmp_path):
    for job, seconds in DURATIONS.items():
        finish(tmp_path, job, seconds)
    write_durations(tmp_path / "durations.tsv", finished_jobs(tmp_path))
    assert read_durations(tmp_path / "durations.tsv") == DURATIONS
    assert read_durations(tmp_path / "none.tsv") == {}
