"""Bad inputs end the program that reads them, with one line that names the place and the fix."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from workspace import RESULTS, SCRIPTS, Ended, Workspace

from latentwire.commands import typed
from latentwire.configuration import model_config
from latentwire.data.corpus import generate_corpus

pytestmark = pytest.mark.workflow


@pytest.fixture
def prepare(program: Callable[..., Ended], reader: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Runs data preparation on a development set of its own, which the caller may spoil."""

    def run(train: Any, dev: Any = None, *, tokens: int = 256, model: object = reader) -> Ended:
        files = []
        for name, content in (("train", train), ("dev", dev)):
            if content is not None:
                path = tmp_path / f"{name}.json"
                path.write_text(content if isinstance(content, str) else json.dumps(content))
                files += [f"--{name}_file", path]
        return program(
            "prepare_data.py", "--model", model, "--system_prompt", "none", "--source", "local", *files,
            "--max_prompt_tokens", tokens, "--output", tmp_path / "data",
        )  # fmt: skip

    return run


CORPUS = generate_corpus(5, 4, paragraphs=1, questions=2)
DEVELOPMENT = generate_corpus(5, 2, start=10, paragraphs=1, questions=2)


def spoilt(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The corpus with something changed in the first paragraph of its second article."""
    corpus = copy.deepcopy(CORPUS)
    change(corpus["data"][1]["paragraphs"][0])
    return corpus


def test_good_data_are_prepared(prepare: Callable[..., Ended], tmp_path: Path):
    assert prepare(CORPUS, DEVELOPMENT) == Ended(0, "", "")
    splits = json.loads((tmp_path / "data/manifest.json").read_text())["splits"]
    assert [splits[name]["articles"] for name in ("train", "gate", "final")] == [4, 1, 1]


@pytest.mark.parametrize(
    ("train", "messages"),
    [
        ("", ["train.json: not JSON"]),
        ("{}", ["train.json: no 'data' list: not SQuAD v1.1"]),
        ('{"data": []}', ["train.json: there is not a single question in it"]),
        (spoilt(lambda p: p.pop("context")), ["data[1]", CORPUS["data"][1]["title"], "paragraphs[0]", "'context'"]),
        (spoilt(lambda p: p["qas"][1].update(question=" ")), [p := CORPUS["data"][1]["paragraphs"][0]["qas"][1]["id"], "qas[1]", "'question'"]),
        (spoilt(lambda p: p["qas"][1].update(answers=[])), [p, "the question has no answers"]),
        (spoilt(lambda p: p["qas"][1].update(id=p["qas"][0]["id"])), [CORPUS["data"][1]["paragraphs"][0]["qas"][0]["id"], "occurs twice"]),
        ({"data": CORPUS["data"][:2]}, ["no article is left for the split", "2 training and 0 development articles"]),
    ],
)  # fmt: skip
def test_a_data_file_that_cannot_be_used(prepare: Callable[..., Ended], train: Any, messages: list[str]):
    ended = prepare(train)
    assert ended.code == 1
    assert ended.error.startswith("prepare_data.py: error: ") and "Traceback" not in ended.error
    for message in messages:
        assert message in ended.error


def test_a_leaking_article(prepare: Callable[..., Ended]):
    ended = prepare(CORPUS, {"data": DEVELOPMENT["data"] + CORPUS["data"][:1]})
    assert ended.code == 1 and CORPUS["data"][0]["title"] in ended.error


def test_a_prompt_that_is_too_long(prepare: Callable[..., Ended], tmp_path: Path):
    ended = prepare(CORPUS, DEVELOPMENT, tokens=40)
    assert ended.code == 1
    # Training prompts are trimmed; an evaluation prompt is not.
    assert "of split 'gate': its prompt has" in ended.error
    assert "data.max_prompt_tokens is 40" in ended.error and "data.on_long_prompt to 'trim'" in ended.error
    assert not (tmp_path / "data/manifest.json").exists()


def test_a_prompt_that_leaves_no_room_for_the_answer(prepare: Callable[..., Ended], reader: Path, tmp_path: Path):
    context = model_config(reader)["max_position_embeddings"]
    ended = prepare(CORPUS, DEVELOPMENT, tokens=context - 31)
    assert ended.code == 1 and "answer of 32 (evaluate.max_new_tokens) do not fit" in ended.error
    assert not (tmp_path / "data").exists()


def test_a_model_that_reads_no_embeddings(prepare: Callable[..., Ended], tmp_path: Path):
    """By its class, which the configuration does not tell."""
    AutoConfig.for_model("falcon_h1", vocab_size=64).save_pretrained(tmp_path / "model")
    ended = prepare(CORPUS, DEVELOPMENT, model=tmp_path / "model")
    assert ended.code == 1 and "generates from token ids alone" in ended.error
    assert not (tmp_path / "data").exists()


def test_a_model_that_is_not_there(prepare: Callable[..., Ended], tmp_path: Path):
    ended = prepare(CORPUS, model=tmp_path / "nowhere")
    assert ended.code == 1 and "nowhere" in ended.error and "(model.path) does not exist" in ended.error


def test_a_model_on_the_hub_without_a_network(program: Callable[..., Ended], tmp_path: Path):
    ended = program(
        "read_embeddings.py", "--model", "no-such/model", "--revision", "abc", "--output", tmp_path / "table"
    )
    assert ended.code == 1
    assert "model 'no-such/model' (model.path) at revision 'abc' can't be loaded" in ended.error
    assert "HF_HOME" in ended.error and "Traceback" not in ended.error


class Gated(BaseHTTPRequestHandler):
    """Answers as the hub does for a gated model without a token."""

    def do_HEAD(self) -> None:
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to model own/gated is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


def test_a_gated_model_without_a_token(tmp_path: Path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gated)
    Thread(target=server.serve_forever, daemon=True).start()
    own = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, SCRIPTS / "read_embeddings.py", "--model", "own/gated", "--output", tmp_path / "table"],
        env={name: value for name, value in os.environ.items() if not name.startswith("HF_")} | own,
        capture_output=True,
        text=True,
        check=False,
    )
    server.shutdown()
    assert done.returncode == 1
    licence = "it is gated: accept its licence on its page, then run"
    assert f"{licence} '{typed('hf')} auth login' or set HF_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def training(finished: Workspace, tmp_path: Path) -> list[object]:
    """Arguments of Phase 1 with the finished experiment's inputs."""
    root = finished / RESULTS
    return [
        "--train", root / "data/train.parquet", "--held_out", root / "data/gate.parquet",
        "--table", root / "model/embeddings.safetensors", "--compressor", root / "pca/pca.safetensors",
        "--codec", root / "k8/codecs/pca", "--compress_dim", 8, "--epochs", 1, "--threads", 1, "--state", tmp_path / "state",
        "--output", tmp_path / "phase1",
    ]  # fmt: skip


@pytest.mark.parametrize(("override", "code"), [(False, 1), (True, 0)])
def test_a_ceiling_below_the_threshold_refuses_training(
    program: Callable[..., Ended], finished: Workspace, tmp_path: Path, override: bool, code: int
):
    found = tmp_path / "ceiling.json"
    scores = finished / f"{RESULTS}/evaluation/ceiling/scores.parquet"
    flags = ["--override_ceiling"] if override else []
    given = ("--scores", scores, "--prompts", finished / f"{RESULTS}/data/gate.parquet", "--output", found)
    checked = program("check_ceiling.py", *given, "--threshold", 0.7, *flags)
    assert checked.code == 0  # the check itself always succeeds
    allowed = tmp_path / "training_allowed.json"
    ended = program("require_ceiling.py", "--ceiling", found, "--output", allowed)
    assert ended.code == code
    assert allowed.exists() == override
    if not override:
        assert "the ceiling is too low" in ended.error and "set gate.override_ceiling to true" in ended.error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(program: Callable[..., Ended], training: list[object]):
    ended = program("train_phase1.py", *training, "--device", "cuda")
    assert ended.code == 1
    assert "a GPU is asked for (--device cuda) but torch sees none" in ended.error
    assert "resources.<stage>.gpu" in ended.error


def test_teacher_forcing_on_answers_is_refused(program: Callable[..., Ended]):
    ended = program("train_adapter_only.py", "--ce_weight", 1)
    assert ended.code == 2
    assert "--ce_weight 1.0: teacher forcing on answers trains an objective that is never evaluated" in ended.error


def test_a_row_of_the_table_that_is_not_finite_is_named(
    program: Callable[..., Ended], finished: Workspace, tmp_path: Path
):
    counts = finished / f"{RESULTS}/pca/token_counts.safetensors"
    table = load_file(finished / f"{RESULTS}/model/embeddings.safetensors")["table_VD"]
    row = int(load_file(counts)["pca"].argmax())
    table[row, 3] = torch.nan
    save_file({"table_VD": table}, tmp_path / "table")
    fit = ("--counts", counts, "--compress_dim", 8, "--output", tmp_path / "pca")
    ended = program("fit_pca.py", "--table", tmp_path / "table", *fit)
    assert ended.code == 1 and f"embedding row {row} is not finite" in ended.error


def test_fewer_unique_tokens_than_dimensions(program: Callable[..., Ended], finished: Workspace, tmp_path: Path):
    table = finished / f"{RESULTS}/model/embeddings.safetensors"
    vocabulary = len(load_file(table)["table_VD"])
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    counts[:8] = 5
    save_file({"pca": counts, "train": counts.clone()}, tmp_path / "counts")
    fit = ("--table", table, "--counts", tmp_path / "counts", "--output", tmp_path / "pca")
    ended = program("fit_pca.py", *fit, "--compress_dim", 8)
    assert ended.code == 1
    assert "compress_dim 8 needs at least 9 unique tokens, the PCA split has 8: raise pca.samples" in ended.error
    assert program("fit_pca.py", *fit, "--compress_dim", 7).code == 0


def test_more_samples_for_pca_than_there_are(program: Callable[..., Ended], finished: Workspace, tmp_path: Path):
    root = finished / RESULTS
    ended = program(
        "count_tokens.py", "--train", root / "data/train.parquet", "--table", root / "model/embeddings.safetensors",
        "--samples", 61, "--output", tmp_path / "counts",
    )  # fmt: skip
    assert ended.code == 1 and "pca.samples 61 must be between 1 and the 60 training prompts" in ended.error


def test_a_stage_that_fails_leaves_the_other_stages_results(changed: Workspace):
    before = changed.results()
    output = changed.fail("--show-failed-logs", "--config", "data={max_prompt_tokens: 20}")
    assert "data.max_prompt_tokens is 20" in output
    after = changed.results()
    assert after == {name: content for name, content in before.items() if name in after}
    assert {name.split("/")[0] for name in set(before) - set(after)} <= {"data"}


def test_a_checkout_in_a_folder_with_a_space_and_quotes(fresh: Workspace, tmp_path: Path):
    workspace = fresh.copy(tmp_path / """it's "my" folder""")
    workspace.succeed("data")
    assert (workspace / f"{RESULTS}/data/train.parquet").is_file()


def test_an_answer_that_does_not_fit_into_the_models_context(
    program: Callable[..., Ended], finished: Workspace, tmp_path: Path
):
    root = finished / RESULTS
    ended = program(
        "evaluate.py", "--model", finished / "reader", "--dtype", "float32", "--root", root, "--variants", "text",
        "--prompts", root / "data/gate.parquet", "--table", root / "model/embeddings.safetensors",
        "--counts", root / "pca/token_counts.safetensors", "--max_new_tokens", 9999, "--state", tmp_path / "state",
        "--answers", tmp_path / "answers", "--output", tmp_path / "out.jsonl", "--divergence", tmp_path / "out.parquet",
    )  # fmt: skip
    assert ended.code == 1 and "an answer of 9999 (evaluate.max_new_tokens) do not fit into the model's" in ended.error
    assert not (tmp_path / "out.jsonl").exists()
