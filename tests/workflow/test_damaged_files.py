"""A damaged artefact ends every program that reads it with one line that names the file and how to make it again."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from damages import DAMAGES, cut, emptied, flipped
from workspace import RESULTS, Ended, Workspace, rerecord

from latentwire.files import read_json, write_json
from latentwire.integrity import read_record
from latentwire.provenance import provenance_path

pytestmark = pytest.mark.workflow

SPLITS = {split: f"{RESULTS}/data/{split}.parquet" for split in ("train", "gate", "final")}
TABLE, COUNTS = f"{RESULTS}/model/embeddings.safetensors", f"{RESULTS}/pca/token_counts.safetensors"
PCA, CODEC, TRAINED = f"{RESULTS}/pca/pca.safetensors", f"{RESULTS}/k8/codecs/pca", f"{RESULTS}/k8/seed0"
EVALUATION, GATE, VERDICT = f"{RESULTS}/evaluation", f"{RESULTS}/k8/gate", f"{RESULTS}/verdict/verdict.json"
TABLE_AND_COUNTS = f"--table {TABLE} --counts {COUNTS}"
TRAINING = (
    f"--train {SPLITS['train']} --held_out {SPLITS['gate']} --table {TABLE} --compressor {PCA} --codec {CODEC}"
    " --compress_dim 8 --device cpu --threads 1 --state out/state --output out"
)
ARMS = f"--root {RESULTS} --variants phase1:8:0 pca:8 text --prompts {SPLITS['gate']} {TABLE_AND_COUNTS} --threads 1"
DECISION = f"--prompts {SPLITS['gate']} --resamples 200"
FINAL_SCORES = f"{EVALUATION}/final/scores.parquet"
# Each program's arguments, and files that it reads; a codec's files stand for those of all codecs.
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "count_tokens.py": (f"--train {SPLITS['train']} --table {TABLE} --output out/counts", [TABLE, SPLITS["train"]]),
    "fit_pca.py": (f"{TABLE_AND_COUNTS} --compress_dim 8 --output out/pca", [COUNTS, TABLE]),
    "fit_codec.py": (
        f"--codec pca {TABLE_AND_COUNTS} --compressor {PCA} --compress_dim 8 --output out/codec",
        [PCA, TABLE, COUNTS],
    ),
    "train_phase1.py": (TRAINING, [f"{CODEC}/codes.safetensors", PCA, TABLE, SPLITS["train"], SPLITS["gate"]]),
    "train_phase2.py": (
        f"--model reader --decision {GATE}/decision.json --adapter {TRAINED}/phase1/adapter.safetensors"
        f" --control {TRAINED}/control/adapter.safetensors --beta 0 {TRAINING}",
        [
            f"{GATE}/decision.json",
            f"{TRAINED}/phase1/adapter.safetensors",
            f"{TRAINED}/control/adapter.safetensors",
            SPLITS["train"],
        ],
    ),
    "train_quantised.py": (TRAINING, [PCA, TABLE]),
    "train_bottleneck.py": (
        f"--model reader --decision {GATE}/decision.json {TRAINING.replace(f'--codec {CODEC}', '')}",
        [f"{GATE}/decision.json", PCA, TABLE, SPLITS["train"], SPLITS["gate"]],
    ),
    "evaluate.py": (
        f"--model reader --dtype float32 {ARMS} --device cpu --state out/state --answers out/answers"
        " --output out/predictions.jsonl --divergence out/divergence.parquet",
        [f"{CODEC}/codes.safetensors", f"{CODEC}/config.json", f"{TRAINED}/phase1/adapter.safetensors", COUNTS],
    ),
    "measure_reconstruction.py": (
        f"--model reader {ARMS.replace(' text', '')} --output out/sums.parquet",
        [f"{TRAINED}/phase1/config.json", f"{CODEC}/decoder.safetensors", SPLITS["gate"], TABLE],
    ),
    "score.py": (
        f"--predictions {EVALUATION}/final/predictions.0-of-1.jsonl --divergence"
        f" {EVALUATION}/final/divergence.0-of-1.parquet --prompts {SPLITS['final']} --batch_size 64"
        " --identity_samples 20 --output out/scores.parquet --output_divergence out/divergence.parquet",
        [
            f"{EVALUATION}/final/predictions.0-of-1.jsonl",
            f"{EVALUATION}/final/divergence.0-of-1.parquet",
            SPLITS["final"],
        ],
    ),
    "check_ceiling.py": (
        f"--scores {EVALUATION}/ceiling/scores.parquet {DECISION} --output out/ceiling.json",
        [f"{EVALUATION}/ceiling/scores.parquet", SPLITS["gate"]],
    ),
    "require_ceiling.py": (f"--ceiling {RESULTS}/ceiling.json --output out/allowed", [f"{RESULTS}/ceiling.json"]),
    "gate.py": (
        f"--ceiling {RESULTS}/ceiling.json --text {EVALUATION}/ceiling/scores.parquet --phase1"
        f" {EVALUATION}/phase1/scores.parquet --divergence {EVALUATION}/phase1/divergence.parquet --compress_dim 8 {DECISION} --decision out/d --evidence out/e",
        [
            f"{EVALUATION}/phase1/scores.parquet",
            f"{EVALUATION}/phase1/divergence.parquet",
            f"{EVALUATION}/ceiling/scores.parquet",
            f"{RESULTS}/ceiling.json",
        ],
    ),
    "final_validation.py": (
        f"--root {RESULTS} --compress_dims 8 --seeds 0 --configuration c --command snakemake --resamples 200"
        " --output out/verdict.json",
        [
            FINAL_SCORES,
            f"{EVALUATION}/final/divergence.parquet",
            f"{GATE}/evidence.json",
            f"{RESULTS}/k8/seed0/reconstruction/phase1.parquet",
            f"{TRAINED}/random/summary.json",
            f"{TRAINED}/phase1/diagnostics.jsonl",
            f"{CODEC}/decoder.safetensors",
            f"{RESULTS}/data/manifest.json.provenance.json",
            TABLE,
        ],
    ),
    "report.py": (
        f"--root {RESULTS} --output out/report.html",
        [f"{RESULTS}/pca/spectrum.tsv", VERDICT, FINAL_SCORES, f"{RESULTS}/data/manifest.json", SPLITS["final"]],
    ),
    "findings.py": (f"--root {RESULTS}", [VERDICT, FINAL_SCORES, SPLITS["final"]]),
    "frontier.py": (f"--root {RESULTS}", [VERDICT, f"{CODEC}/codes.safetensors", SPLITS["gate"]]),
    "summarise.py": (f"--verdict {VERDICT}", [VERDICT]),
}
# A program's own first word about a file that is not there.
OWN_WORDS = {"summarise.py"}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory, finished: Workspace) -> Workspace:
    """A copy of the finished experiment; whoever damages it mends it."""
    return finished.copy(tmp_path_factory.mktemp("spoilt"))


@pytest.fixture
def run(spoilt: Workspace, program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Ended]:
    """Runs a program with its arguments, in the experiment's folder."""
    monkeypatch.chdir(spoilt.folder)
    return lambda name: program(name, *PROGRAMS[name][0].split())


def damaged(path: Path, damage: Callable[[Path], None], run: Callable[[], Ended]) -> Ended:
    """How a program ends on a damaged file, which is mended afterwards with its time."""
    content, times = path.read_bytes(), path.stat()
    damage(path)
    try:
        return run()
    finally:
        if path.is_dir():
            path.rmdir()
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_damaged_file_ends_the_program_with_its_name(run: Callable[[str], Ended], name: str):
    files = PROGRAMS[name][1]
    for number, file in enumerate(files):
        for damage in DAMAGES if number == 0 else (flipped, DAMAGES[1 + number % (len(DAMAGES) - 1)]):
            ended = damaged(Path(file), damage, lambda: run(name))
            where = f"{name} of {file}, {damage.__name__}: {ended}"
            assert ended.code == 1 and "Traceback" not in ended.error, where
            said = ended.error.splitlines()[-1]
            assert said.startswith(f"{name}: error: ") and file in said, where
            made = "by: " in said or "then " in said
            assert made and f"--force {file}" in said or name in OWN_WORDS, where


def test_every_program_that_reads_artefacts_is_damaged():
    rules = (Path(__file__).parents[2] / "rules").glob("*.smk")
    called = {word.rpartition("/")[2] for file in rules for word in file.read_text().split() if word.endswith(".py")}
    sources = {"prepare_data.py", "read_embeddings.py"}  # read what is no artefact
    assert {name for name in called if (Path("workflow/scripts") / name).exists()} - sources - {"verify.py"} <= {
        *PROGRAMS
    }


def test_the_command_that_is_named_makes_the_file_again(spoilt: Workspace, tmp_path: Path):
    workspace = spoilt.copy(tmp_path)
    good = workspace.results()
    decision, counts = workspace / f"{GATE}/decision.json", workspace / COUNTS
    for file in (decision, counts):
        times = file.stat()
        file.write_bytes(b"")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    # The plan names both before anything else, and the rules can't go on without the decision.
    output = workspace.fail("-n")
    for file in (f"{GATE}/decision.json", COUNTS):
        assert f"{file} is empty: it is not what " in output and f"--force {file}" in output
    assert "Traceback" not in output
    found = workspace.fail("verify")
    assert f"{COUNTS} is empty" in found and f"{GATE}/decision.json is empty" in found
    workspace.succeed("--force", f"{GATE}/decision.json", COUNTS)
    assert workspace.results() == good


def test_a_foreign_decision_does_not_end_the_plan_with_a_traceback(changed: Workspace):
    decision = changed / f"{GATE}/decision.json"
    decision.write_text('{"passed": true}')
    rerecord(decision)
    output = changed.fail("-n")
    assert f"{GATE}/decision.json is of another kind: it lacks run_phase2" in output
    assert "Traceback" not in output and "InputFunctionException" not in output


def test_inputs_of_two_versions_are_refused_although_each_has_its_record(run: Callable[[str], Ended], tmp_path: Path):
    """An older file with its older record, as from a backup."""
    adapter = Path(f"{TRAINED}/phase1/adapter.safetensors")
    path = provenance_path(adapter)
    content = path.read_bytes()
    record = {name: value for name, value in read_json(path).items() if name != "digest"}
    record["inputs"][TABLE] = "0" * 64
    write_json(path, record)
    ended = run("train_phase2.py")
    path.write_bytes(content)
    assert ended.code == 1
    last = ended.error.splitlines()[-1]
    assert f" and {adapter} were made from two versions of {TABLE}. Make them again by: " in last


def test_verify_names_what_was_moved_and_what_was_made_from_another_version(
    changed: Workspace, program: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(changed.folder)
    verify = ("verify.py", "--root", RESULTS)
    assert program(*verify).code == 0
    # An experiment may be renamed.
    shutil.copytree(RESULTS, "elsewhere/renamed")
    assert program("verify.py", "--root", "elsewhere/renamed").code == 0
    renamed = TABLE.replace(RESULTS, "elsewhere/renamed")
    provenance_path(Path(renamed)).unlink()
    assert f"{renamed} has no record beside it" in program("verify.py", "--root", "elsewhere/renamed").output
    # The folders of two arms, each with its record, and a table that the user put back from before with its record.
    shutil.move(f"{TRAINED}/phase1", "aside")
    shutil.move(f"{TRAINED}/random", f"{TRAINED}/phase1")
    shutil.move("aside", f"{TRAINED}/random")
    counts = Path(COUNTS)
    record = json.loads(provenance_path(counts).read_text())
    counts.write_bytes(counts.read_bytes() + b" ")
    record["outputs"][counts.name] = {"bytes": counts.stat().st_size, "sha256": "1" * 64}
    del record["digest"]
    write_json(provenance_path(counts), record)
    ended = program(*verify)
    assert ended.code == 1
    assert f"{TRAINED}/phase1/adapter.safetensors was written as {TRAINED}/random/adapter.safetensors" in ended.output
    assert f"{COUNTS} has another content" in ended.output
    assert f"older: {PCA} was made from another version of {COUNTS}" in ended.output
    emptied(provenance_path(Path(TABLE)))
    assert f"{TABLE}.provenance.json is not the record that was written" in program(*verify).output


def halved(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.iloc[::2]


def of_other_questions(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(id="x" + scores["id"])


def with_first(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(scores: pd.DataFrame) -> pd.DataFrame:
        scores = scores.astype({"arm": object})
        scores.loc[scores.index[0], column] = value
        return scores

    return change


@pytest.mark.parametrize("name", ["check_ceiling.py", "gate.py", "final_validation.py"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (halved, r"has \d+ scores \(\d+ questions, \d+ of them of the split\) for the \d+ questions of the split"),
        (of_other_questions, r"questions, 0 of them of the split\) for the \d+ questions"),
        (with_first("f1", 20.0), r"the f1 of arm '[\w:]+' on question '\S+' is 20\.0, not a number from 0 to 1"),
        (with_first("em", float("nan")), r"the em of arm '[\w:]+' on question '\S+' is nan, not a number from 0 to 1"),
        (with_first("f1", float("inf")), r"the f1 of arm '[\w:]+' on question '\S+' is inf, not a number from 0 to 1"),
        (with_first("arm", None), "1 scores have no arm"),
        (
            lambda scores: scores[scores["arm"] != "text"].assign(arm="mean").drop_duplicates("id"),
            "has no scores of arm",
        ),
        (lambda scores: scores.drop(columns="f1"), "holds no scores: there is no column 'f1'"),
    ],
)
def test_scores_that_are_not_the_splits_decide_nothing(
    spoilt: Workspace,
    run: Callable[[str], Ended],
    name: str,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
):
    """They have a record, as a program with a mistake would write it."""
    file = next(Path(own) for own in PROGRAMS[name][1] if own.endswith("scores.parquet"))
    kept = {path: path.read_bytes() for path in Path(RESULTS).rglob("*.provenance.json")} | {file: file.read_bytes()}
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    rerecord(file.absolute())
    ended = run(name)
    for path, content in kept.items():
        path.write_bytes(content)
    assert ended.code == 1 and "Traceback" not in ended.error
    last = ended.error.splitlines()[-1]
    assert re.search(said, last) and str(file) in last


def test_a_file_of_the_users_own_needs_no_record(run: Callable[[str], Ended], tmp_path: Path, program):
    for file in (TABLE, COUNTS):
        shutil.copy(file, tmp_path)
    own = [tmp_path / Path(file).name for file in (TABLE, COUNTS)]
    ended = program(
        "fit_pca.py", "--table", own[0], "--counts", own[1], "--compress_dim", 8, "--output", tmp_path / "pca"
    )
    assert ended.code == 0
    assert set(read_record(provenance_path(tmp_path / "pca")).outputs) == {"pca"}
    # Damaged, it ends with its name all the same.
    cut(own[0])
    ended = program("fit_pca.py", "--table", own[0], "--counts", own[1], "--compress_dim", 8, "--output", "out/pca")
    assert ended.code == 1 and f"{own[0]} can't be read: " in ended.error and "Traceback" not in ended.error
