"""Reading the table takes the memory of one table, from a checkpoint with Llama-3.1-8B's names and shapes."""

import json
import subprocess
from pathlib import Path

import pytest
from preloaded import preloaded_python

from latentwire.data.corpus import generate_corpus
from latentwire.embeddings import read_embeddings
from latentwire.lm import load_tokenizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc"),
]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WIDTH, ROWS = 4096, 12_288  # a tenth of Llama's vocabulary
COPYING = """
import os, runpy, sys
from latentwire import embeddings
read = embeddings.read_embeddings
embeddings.read_embeddings = lambda *arguments: read(*arguments).clone()
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Makes a stand-in model of a dtype."""
    train = tmp_path_factory.mktemp("data") / "train.json"
    train.write_text(json.dumps(generate_corpus(9, 2)))

    def make(dtype: str, *flags: str) -> Path:
        folder = tmp_path_factory.mktemp(dtype)
        sizes = ("--tokens", "500", "--vocab", str(ROWS), "--shard_size", "150MB")
        command = [preloaded_python(), BENCHMARKS / "stand_in_model.py", "--train_file", train, "--output", folder]
        subprocess.run([*command, *sizes, "--dtype", dtype, *flags], check=True, capture_output=True)
        return folder

    return make


def peak_over_table(*arguments: object) -> float:
    # What it has imported before it was forked is below its peak when it has read a small table.
    done = subprocess.run([preloaded_python(), *map(str, arguments)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["above"] / found["table"]


@pytest.mark.parametrize(
    ("dtype", "flags"), [("bfloat16", []), ("float16", ["--tied"]), ("float32", [])], ids=["bf16", "fp16 tied", "fp32"]
)
def test_the_program_needs_one_table_above_its_imports(stand_in, dtype, flags):
    folder = stand_in(dtype, *flags)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(index) == 291 - len(flags)  # Llama-3.1-8B's tensors; a tied model has no lm_head
    assert {path.name for path in folder.glob("*.safetensors")} == {
        index["model.embed_tokens.weight"],
        max(index.values()),
    }
    table_VD = read_embeddings(str(folder))
    assert (*table_VD.shape, str(table_VD.dtype)) == (ROWS, WIDTH, f"torch.{dtype}")
    assert load_tokenizer(str(folder)).chat_template

    measured = BENCHMARKS / "read_embeddings.py", "--model", folder, "--once"
    assert 0.95 < peak_over_table(*measured) < 1.2
    if dtype == "bfloat16":
        assert peak_over_table("-c", COPYING, *measured) > 1.9  # so the measure sees a copy
