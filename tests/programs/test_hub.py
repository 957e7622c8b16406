"""Models and data sets from the hub: programs in their own process and cache, against a hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from loopback_hub import COMMIT, OUTSIDER, TOKEN, Repository, serve
from preloaded import APART_FROM_THE_HUB, preloaded_python
from safetensors.torch import load_file, save_file

from latentwire.data.corpus import generate_corpus
from latentwire.data.squad import flatten_squad
from latentwire.embeddings import read_embeddings
from latentwire.table import load_table

pytestmark = pytest.mark.slow  # every process imports the libraries anew, so the tests start few

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
MODEL, DATA = "owner/llama", "owner/squad"
HF = Path(sys.executable).with_name("hf")  # as it is typed elsewhere than in the root
TRAIN_QUESTIONS = 3 * 2 * 2
TABLE = "model.embed_tokens.weight"
DATA_CARD = """---
configs:
- config_name: plain_text
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: validation, path: plain_text/validation-*}
---
"""


ASK = """
import json, os, sys
from latentwire import load_squad_subset as load
from latentwire.errors import InputError
from latentwire.embeddings import read_embeddings

def load_squad_subset(split, samples, data, revision=None):
    return load(split, samples, data, revision=revision)

def ask(token, function, *arguments):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        answer = globals()[function](*arguments)
    except InputError as error:
        return str(error)
    return answer if isinstance(answer, list) else answer.tolist()

print(json.dumps([ask(*question) for question in json.loads(sys.argv[1])]))
"""


@pytest.fixture
def hub():
    with serve() as server:
        yield server


@pytest.fixture
def put_model(hub, tiny_model, tokenizer, tmp_path):
    """Puts a tiny model on the hub, in shards of about a size."""

    def put(shard: str, name: str = MODEL) -> Repository:
        folder = tmp_path / "hub" / name
        tiny_model().save_pretrained(folder, max_shard_size=shard)
        tokenizer.save_pretrained(folder)
        hub.repositories["models", name] = Repository(folder)
        return hub.repositories["models", name]

    return put


@pytest.fixture
def data(hub, tmp_path) -> Repository:
    """A data set on the hub, in Parquet files as SQuAD's."""
    folder = tmp_path / "hub" / DATA
    (folder / "plain_text").mkdir(parents=True)
    (folder / "README.md").write_text(DATA_CARD)
    for split, start, articles in [("train", 0, 3), ("validation", 3, 2)]:
        rows = flatten_squad(generate_corpus(9, articles, start=start, paragraphs=2, questions=2), split)
        Dataset.from_list(rows).to_parquet(folder / "plain_text" / f"{split}-00000-of-00001.parquet")
    hub.repositories["datasets", DATA] = Repository(folder)
    return hub.repositories["datasets", DATA]


@pytest.fixture
def python(hub, tmp_path):
    """Runs Python with arguments in a process whose hub is the loopback one and whose cache is the test's own."""

    def run(*arguments: object, offline: bool = False) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": str(int(offline))}
        own |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
        command = [preloaded_python(libraries=APART_FROM_THE_HUB), *map(str, arguments)]
        return subprocess.run(command, env=inherited | own, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def ask(python):
    """Asks questions of one process; each is a token, a function and its arguments, each answer a value or an error."""

    def run(*questions: tuple, offline: bool = False) -> list:
        done = python("-c", ASK, json.dumps(questions), offline=offline)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def read_table(python, tmp_path):
    """Runs read_embeddings.py for the model on the hub, to a table of its own."""

    def run(revision: str = COMMIT, **options) -> tuple[torch.Tensor | None, str]:
        output = tmp_path / "table.safetensors"
        output.unlink(missing_ok=True)
        command = (SCRIPTS / "read_embeddings.py", "--model", MODEL, "--revision", revision, "--output", output)
        done = python(*command, **options)
        assert (done.returncode == 0) == output.exists(), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return load_table(output) if output.exists() else None, done.stderr

    return run


def shard_of_table(repository: Repository) -> Path:
    index = json.loads((repository.folder / "model.safetensors.index.json").read_text())
    return repository.folder / index["weight_map"][TABLE]


def own_table(repository: Repository) -> torch.Tensor:
    return read_embeddings(str(repository.folder))


# Models


def test_of_a_sharded_model_one_shard_is_downloaded_once_and_read_without_the_hub(hub, put_model, read_table):
    repository = put_model("150KB")
    expected_VD, shard = own_table(repository), shard_of_table(repository)
    assert len(list(repository.folder.glob("*.safetensors"))) > 2
    assert torch.equal(read_table()[0], expected_VD)
    assert hub.sent_of(".safetensors") == {shard.name: shard.stat().st_size}
    assert {"config.json", "model.safetensors.index.json"} <= hub.sent.keys()

    hub.repositories.clear()
    hub.sent.clear()
    assert torch.equal(read_table(offline=True)[0], expected_VD)
    assert not hub.sent
    table_VD, errors = read_table(revision="f" * 40, offline=True)
    assert table_VD is None  # rather than the revision that the cache holds
    assert (
        f"at revision '{'f' * 40}' can't be loaded: check model.path and model.revision; without a network" in errors
    )


def test_a_model_of_one_file_is_read_from_a_branch_and_again_without_the_hub(hub, put_model, read_table):
    """It has no index, and without a network one that is not there can't be told from one that was never fetched."""
    repository = put_model("5GB")
    expected_VD = own_table(repository)
    assert torch.equal(read_table("main")[0], expected_VD)
    hub.repositories.clear()
    assert torch.equal(read_table("main", offline=True)[0], expected_VD)


def test_a_download_that_breaks_off_is_continued(hub, put_model, read_table):
    repository = put_model("150KB")
    shard = shard_of_table(repository)
    save_file(load_file(shard) | {"filler": torch.zeros(6 << 20)}, shard)
    # The hub's client keeps what it has in steps of 10 MiB.
    repository.cut[shard.name] = 15 << 20
    table_VD, errors = read_table()
    assert "Trying to resume download" in errors
    assert torch.equal(table_VD, own_table(repository))
    assert hub.sent[shard.name] == shard.stat().st_size + (5 << 20)


def test_a_download_of_the_wrong_size_is_refused_and_not_kept(hub, put_model, read_table, tmp_path):
    repository = put_model("150KB")
    shard = shard_of_table(repository)
    repository.announced[shard.name] = shard.stat().st_size + 1
    table_VD, errors = read_table()
    assert table_VD is None
    assert "if a download broke off, run the same command again. (Consistency check failed" in errors
    assert hub.sent[shard.name] == shard.stat().st_size
    assert list((tmp_path / "home").rglob("model.safetensors.index.json"))
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_what_can_not_be_had_says_what_to_do(hub, put_model, data, ask):
    put_model("5GB").gated = True
    put_model("5GB", "owner/open")
    table_of, subset_of = "read_embeddings", "load_squad_subset"
    licence = f"it is gated: accept its licence on its page, then run '{HF} auth login' or set HF_TOKEN"
    refused = f"the hub refused the token: run '{HF} auth login'"
    unknown = "the hub has no such repository, or a private one: check"
    revision = "it has no such revision: check"
    cases = [
        ((None, table_of, MODEL, None), licence),
        ((OUTSIDER, table_of, MODEL, None), licence),
        (("hf_expired", table_of, MODEL, None), refused),
        ((None, table_of, "owner/misspelt", None), f"{unknown} model.path"),
        ((TOKEN, table_of, "owner/misspelt", None), f"{unknown} model.path"),
        ((None, table_of, "owner/open", "v9"), f"{revision} model.revision"),
        ((None, subset_of, "train", 3, "owner/gated"), licence),
        ((None, subset_of, "train", 3, "owner/misspelt"), f"{unknown} data.path"),
        (("hf_expired", subset_of, "train", 3, DATA), refused),
    ]
    hub.repositories["datasets", "owner/gated"] = Repository(data.folder, gated=True)
    *refusals, table_VD = ask(*(question for question, _ in cases), (TOKEN, table_of, MODEL, None))
    for (question, message), refusal in zip(cases, refusals, strict=True):
        assert f"can't be loaded: {message}" in refusal, question
    assert table_VD == own_table(hub.repositories["models", MODEL]).tolist()


def test_prepare_data_takes_tokenizer_and_questions_from_the_hub_and_again_from_its_cache(
    hub, put_model, data, python, tmp_path
):
    def prepare(name: str, **options) -> pd.DataFrame:
        source = ("--model", MODEL, "--revision", COMMIT, "--source", "hub", "--path", DATA, "--data_revision", COMMIT)
        flags = ("--max_prompt_tokens", 256, "--output", tmp_path / name)
        done = python(SCRIPTS / "prepare_data.py", *source, *flags, **options)
        assert done.returncode == 0, done.stderr
        return pd.read_parquet(tmp_path / name / "train.parquet")

    put_model("150KB")
    online = prepare("online")
    assert len(online) == TRAIN_QUESTIONS
    assert not hub.sent_of(".safetensors")
    hub.repositories.clear()
    pd.testing.assert_frame_equal(prepare("offline", offline=True), online)


# Data sets


def test_a_subset_of_a_data_set_is_read_and_again_without_the_hub(hub, data, ask):
    parquet = "plain_text/train-00000-of-00001.parquet"
    data.cut[parquet] = 100  # its download is continued
    questions = [(None, "load_squad_subset", split, 5, DATA, COMMIT) for split in ("train", "validation")]
    answers = ask(*questions)
    for (_, _, split, *_), items in zip(questions, answers, strict=True):
        rows = pd.read_parquet(data.folder / "plain_text" / f"{split}-00000-of-00001.parquet")
        first = {row.id: row.answers["text"][0] for row in rows.itertuples()}
        assert len({item["id"] for item in items}) == 5
        assert all(first[item["id"]] == item["answer"] for item in items)
    hub.repositories.clear()
    other = (None, "load_squad_subset", "train", 5, DATA, "f" * 40)
    *again, refused = ask(*questions, other, offline=True)
    assert again == answers
    assert "hf download owner/squad --repo-type dataset" in refused  # rather than the revision that the cache holds
