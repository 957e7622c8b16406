"""``train_adapter_only.py``, which goes from data to F1 without a workflow, and ``train_phase1.py`` beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from preloaded import preloaded_python
from workspace import RESULTS, ROOT, Workspace

from latentwire.data.corpus import generate_corpus
from latentwire.data.prompts_table import read_prompts

pytestmark = pytest.mark.workflow

SCRIPT = ROOT / "workflow/scripts/train_adapter_only.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def by_itself(reader: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A run on the tiny reader, without prepared inputs."""
    own = ["--model", reader, "--batch_size", "16", "--compress_dim", "8", "--threads", "1", "--output", "run"]
    return subprocess.run(
        [preloaded_python(), SCRIPT, *own, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_by_itself_it_goes_from_data_to_f1(reader: Path, tmp_path: Path):
    plan = ["--samples", "60", "--epochs", "1", "--recon_weight", "1", "--ce_weight", "0"]
    done = by_itself(reader, tmp_path, *plan, "--eval_samples", "60", "--max_new_tokens", "4")
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()}
    results = {"config.json", "adapter.safetensors", "diagnostics.jsonl", "summary.json", "f1.json"}
    assert written == results | {"adapter.safetensors.provenance.json"}
    printed = json.loads(done.stdout)
    scores = json.loads((tmp_path / "run/f1.json").read_text())
    assert list(printed) == ["text", "pca", "phase1"]
    assert {arm: own["f1"]["estimate"] for arm, own in scores.items()} == {
        arm: own["f1"] for arm, own in printed.items()
    }
    assert {own["counts"]["questions"] for own in scores.values()} == {60}
    history = [json.loads(line) for line in (tmp_path / "run/diagnostics.jsonl").read_text().splitlines()]
    assert (history[0]["step"], history[-1]["step"]) == (0, 4)
    assert history[-1]["recon_fvu"] < history[0]["recon_fvu"]


SHORT = ("--samples", "40", "--eval_samples", "20", "--max_new_tokens", "2")


def test_a_single_file_is_cut_by_article(reader: Path, tmp_path: Path):
    (tmp_path / "all.json").write_text(json.dumps(generate_corpus(3, 30)))
    done = by_itself(reader, tmp_path, *SHORT, "--data", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    train, held_out = (
        set(read_prompts(tmp_path / f"run/inputs/{name}.parquet", ["article"])["article"])
        for name in ("train", "held_out")
    )
    assert train and held_out and not train & held_out


def test_prompts_that_leave_no_room_for_answers_are_refused_before_anything_is_read(reader: Path, tmp_path: Path):
    done = by_itself(reader, tmp_path, "--max_prompt_tokens", "510", "--max_new_tokens", "3")
    assert done.returncode == 1 and done.stderr.startswith("train_adapter_only.py: error: ")
    assert "an answer of 3 (evaluate.max_new_tokens) do not fit into the model's context of 512" in done.stderr
    assert not (tmp_path / "run/inputs").exists()


def test_a_folder_whose_files_share_an_article_is_refused(reader: Path, tmp_path: Path):
    for name in ("train-v1.1.json", "dev-v1.1.json"):
        (tmp_path / name).write_text(json.dumps(generate_corpus(3, 5)))
    done = by_itself(reader, tmp_path, *SHORT, "--data", tmp_path)
    assert done.returncode == 1
    assert "5 articles are in both sources" in done.stderr and "splits would leak" in done.stderr


def test_phase_1s_program_loads_no_language_model(finished: Workspace, tmp_path: Path):
    root = finished / RESULTS
    program = (
        "import runpy, sys\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert 'torch' in sys.modules\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('transformers', 'tokenizers', 'datasets')])\n"
    )
    arguments = [
        SCRIPT.with_name("train_phase1.py"), "--train", root / "data/train.parquet", "--held_out", root / "data/gate.parquet",
        "--table", root / "model/embeddings.safetensors", "--compressor", root / "pca/pca.safetensors",
        "--codec", root / "k8/codecs/pca", "--compress_dim", "8", "--epochs", "1", "--batch_size", "16", "--threads", "1",
        "--state", tmp_path / "state", "--output", tmp_path,
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = sys.argv[1:]\n{program}", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    # The same inputs and settings as the rule's give the rule's adapter.
    adapter = "adapter.safetensors"
    assert (tmp_path / adapter).read_bytes() == (root / "k8/seed0/phase1" / adapter).read_bytes()
