"""Change one thing, rerun that stage and what follows it, and nothing else."""

from __future__ import annotations

import os
import re

import pytest
from workspace import DIMS, RESULTS, Workspace

pytestmark = pytest.mark.workflow

# A dry run shows what a gate decides only once it has run; naming the files of every stage shows all of them.
EVERYTHING = (
    "all",
    f"{RESULTS}/evaluation/final/scores.parquet",
    *(f"{RESULTS}/k{k}/seed0/{arm}/adapter.safetensors" for k in DIMS for arm in ("phase2", "control")),
    *(f"{RESULTS}/k{k}/seed0/reconstruction/{stage}.parquet" for k in DIMS for stage in ("phase1", "phase2")),
)

REPORT = {"final_validation", "report"}
DECISIONS = {"check_ceiling", "require_ceiling", "decide_gate"} | REPORT
EVALUATION = {"evaluate", "score"}
PHASE2 = {"train_phase2", "measure_reconstruction"} | EVALUATION | REPORT
# The gate decides anew on Phase 1, and what it decides is an input of Phase 2.
PHASE1 = {"train_phase1", "decide_gate"} | PHASE2
CEILING = {"check_ceiling", "require_ceiling"} | EVALUATION
CODECS = {"fit_pca", "fit_random_projection", "fit_codec"}
COMPRESSION = {"count_tokens"} | CODECS | CEILING | PHASE1
DATA = {"prepare_data"} | COMPRESSION
EVERY_RULE = {"read_embeddings"} | DATA


def test_nothing_changed_reruns_nothing(finished: Workspace):
    assert finished.plan(*EVERYTHING) == []


def test_a_touch_a_comment_a_docstring_and_another_layout_rerun_nothing(changed: Workspace):
    for module in sorted((changed / "src").rglob("*.py")):
        text = module.read_text()
        assert text.startswith('"""'), f"{module} has no docstring"
        module.write_text(re.sub(r"\A\"\"\"", '"""Said otherwise: ', text, count=1) + "\n\n\n# A comment.\n")
    for folder in ("src", "workflow", "rules", "config", "reader"):
        for path in (changed / folder).rglob("*"):
            os.utime(path)
    for file in ("Snakefile", "config.yaml", "tiny.yaml"):
        os.utime(changed / file)
    assert changed.plan(*EVERYTHING) == []


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        # The evaluation of final is behind the gates: planned, and not run if they decide the same.
        ("gate={threshold: 0.6}", {"check_ceiling", "require_ceiling", "decide_gate"} | EVALUATION | REPORT),
        ("gate={force_phase2: true}", {"decide_gate"} | EVALUATION | REPORT),
        ("evaluate={max_new_tokens: 5}", CEILING | {"decide_gate"} | REPORT),
    ],
)
def test_a_changed_decision_trains_nothing_before_it_is_made(finished: Workspace, change: str, rules: set[str]):
    assert finished.plan("--config", change).rules == rules


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ("phase2={lr: 0.01}", PHASE2),
        ("phase1={epochs: 2}", PHASE1),
        ("pca={samples: 20}", COMPRESSION),
        ("data={seed: 1}", DATA),
        ("verdict={fvu: 0.4}", REPORT),
    ],
)
def test_a_changed_setting_reruns_its_stage_and_what_follows(finished: Workspace, change: str, rules: set[str]):
    assert finished.plan(*EVERYTHING, "--config", change).rules == rules


def test_resources_rerun_nothing(finished: Workspace):
    more = "{runtime: 60, mem_mb: 3000}"
    change = f"resources={{evaluate: {more}, phase1: {more}, phase2: {more}}}"
    assert finished.plan(*EVERYTHING, "--config", change) == []


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("adapter", PHASE1),
        ("codecs.scalar", {"fit_codec", "measure_reconstruction"} | EVALUATION | REPORT),
        ("training.phase2", PHASE2),
        ("data.prepare", DATA),
        ("compression.pca", COMPRESSION - {"count_tokens", "check_ceiling", "require_ceiling"}),
        ("decisions.verdict", REPORT),
    ],
)
def test_a_changed_line_of_code_reruns_what_uses_it(changed: Workspace, module: str, rules: set[str]):
    with (changed / f"src/latentwire/{module.replace('.', '/')}.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    assert changed.plan(*EVERYTHING).rules == rules


def test_a_changed_metric_trains_and_generates_nothing(changed: Workspace):
    with (changed / "src/latentwire/evaluation/squad_metrics.py").open("a") as source:
        source.write("\nCHANGED = True\n")
    # Scores behind the gates are examined when these have decided.
    assert changed.plan().rules == {"check_ceiling", "require_ceiling", "decide_gate"} | EVALUATION | REPORT


def test_a_changed_program_reruns_its_rule(changed: Workspace):
    script = changed / "workflow/scripts/fit_pca.py"
    text = script.read_text()
    script.write_text(text.replace('help="embedding table"', 'help="the embedding table"'))
    assert changed.plan(*EVERYTHING) == []
    assert text.count('"--seed", type=int, default=0') == 1
    script.write_text(text.replace('"--seed", type=int, default=0', '"--seed", type=int, default=1'))
    assert {"fit_pca", "fit_random_projection"} <= changed.plan(*EVERYTHING).rules <= COMPRESSION


def test_a_changed_page_of_the_report_reruns_the_report(changed: Workspace):
    with (changed / "src/latentwire/report/page.html.jinja").open("a") as template:
        template.write("<!-- changed -->")
    assert changed.plan(*EVERYTHING).rules == {"report"}


def test_another_model_in_the_same_folder_reruns_everything(changed: Workspace):
    file = changed / "reader/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert changed.plan(*EVERYTHING).rules == EVERY_RULE
