"""The first run on a GPU goes through at a small size on the CPU, part by part."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pretended import pretended_gpu

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
PARTS = (
    *("environment", "rates", "attention", "losses", "rightness", "generation", "arm", "divergence"),
    *("phase1", "phase2", "worst_batch", "host_waits", "profile"),
)


@pytest.mark.slow
def test_every_part_runs_and_writes_its_line(tmp_path):
    output = tmp_path / "gpu.jsonl"
    command = [sys.executable, PROGRAM, "--shapes", "tiny", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {line["part"]: line for line in map(json.loads, output.read_text().splitlines())}
    assert tuple(found) == PARTS
    assert not [line for line in found.values() if "failed" in line]
    right = found["rightness"]
    assert right["padded_against_alone"] < 1e-5 and right["text_equals_embeddings"]
    assert right["answers_as_the_librarys"] == right["answers"]
    assert right["reader"]["as_on_the_cpu"] == right["reader"]["answers"]
    assert max(right["packed"].values()) < 1e-5
    forced = found["divergence"]
    assert abs(forced["largest_kl_of_the_same_rows"]) < 1e-6 < forced["least_kl_of_other_rows"]
    assert forced["read_ms"] > 0 and forced["compare_ms"] > 0 and forced["arm_of_1000_s"] > 0
    assert found["phase2"]["ours"]["finite"] and found["phase2"]["naive"]["finite"]


@pytest.mark.slow
def test_every_part_but_the_profile_runs_on_a_pretended_gpu(tmp_path, monkeypatch):
    """Where tensors of both devices meet, or a kernel's own arguments are wrong, a part would fail on a real one too."""
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    import gpu

    # Torch's profiler, and its record of waits, ask the driver.
    monkeypatch.setattr(gpu.Bench, "_profile", lambda self, name, work: {})
    monkeypatch.setattr(gpu.Bench, "_waits", lambda self, work: work() and {})
    with pretended_gpu() as world:
        bench = gpu.Bench(gpu.SHAPES["tiny"], tmp_path / "gpu.jsonl")
        for part in PARTS[:-1]:
            gpu.run_part(bench, part, 0.0)
    found = {line["part"]: line for line in map(json.loads, bench.output.read_text().splitlines())}
    assert not {name: line["failed"] for name, line in found.items() if "failed" in line}
    assert found["environment"]["device"].startswith("a pretended GPU")
    assert bench.dtype.itemsize == 2 and world.operations > 10_000 and world.graphs
    right = found["rightness"]
    assert right["text_equals_embeddings"] and right["reader"]["as_on_the_cpu"] == right["reader"]["answers"]
    assert max(right["packed"].values()) < 0.05  # bfloat16


def test_a_part_that_fails_says_why_and_the_next_one_runs(tmp_path):
    output = tmp_path / "gpu.jsonl"
    failing = "import gpu; gpu.Bench.rates = lambda self: 1 / 0; gpu.main()"
    command = [
        sys.executable,
        "-c",
        failing,
        "--shapes",
        "tiny",
        "--parts",
        "rates",
        "environment",
        "--output",
        output,
    ]
    done = subprocess.run(command, cwd=PROGRAM.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rates, environment = map(json.loads, output.read_text().splitlines())
    assert "ZeroDivisionError" in rates["failed"] and "failed" not in environment
