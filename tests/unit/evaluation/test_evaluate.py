"""Several arms in the same batches, which become smaller for all of them if memory does not suffice."""

import logging
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from latentwire.arms_table import Variant
from latentwire.evaluation.evaluate import evaluate_arms
from latentwire.evaluation.generate import Answer
from latentwire.evaluation.questions import in_parts
from latentwire.evaluation.rows import SplitRows
from latentwire.evaluation.store import AnswerStore

PROMPTS = pd.DataFrame(
    {
        "id": [f"q{number}" for number in range(7)],
        "article": ["a"] * 7,
        "input_ids": [[1, 2, number] for number in range(7)],
    }
)
BATCHES = [[0, 1, 2, 3], [4, 5, 6]]
TEXT, IDENTITY = Variant("text"), Variant("identity")


class Decoder:
    """Answers with the last token, and has memory for so many prompts of an arm: of text more than of embeddings."""

    device = torch.device("cpu")

    def __init__(self, text: int, embeddings: int) -> None:
        self.room, self.made, self.read = {0: text, 2: embeddings}, 0, []

    def make(self):
        self.made += 1
        return SimpleNamespace(answers=self.answers, device=self.device)

    def answers(self, prompts, *rows):
        self.read.append((len(rows), len(prompts)))
        if len(prompts) > self.room[len(rows)]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [Answer(f"answer {ids[-1]}", 1, True) for ids in prompts]


@pytest.fixture
def rows():
    return {TEXT: None, IDENTITY: SplitRows(torch.arange(8), torch.zeros(8, 2))}


def predictions(records):
    return [(record["arm"], record["id"], record["prediction"]) for record in records]


def test_all_arms_answer_anew_in_smaller_batches_if_one_does_not_fit(rows, caplog):
    decoder = Decoder(text=4, embeddings=2)
    with caplog.at_level(logging.WARNING):
        records = evaluate_arms(rows, decoder.make, PROMPTS, {TEXT: BATCHES, IDENTITY: BATCHES[:1]})
    assert predictions(records) == [
        *(("text", f"q{number}", f"answer {number}") for number in range(7)),
        *(("identity", f"q{number}", f"answer {number}") for number in range(4)),
    ]
    assert decoder.read == [(0, 4), (0, 3), (2, 4), (0, 2), (0, 2), (0, 2), (0, 1), (2, 2), (2, 2)]
    assert decoder.made == 2  # what the first one holds is given back
    assert "all arms answer anew, in batches of 1/2 of evaluate.batch_size" in caplog.text


def test_the_next_run_has_the_answers_of_the_smaller_batches(rows, tmp_path):
    store = AnswerStore(tmp_path, "model")
    first = evaluate_arms(rows, Decoder(4, 1).make, PROMPTS, {TEXT: BATCHES, IDENTITY: BATCHES}, store=store)
    again = Decoder(4, 1)
    assert evaluate_arms(rows, again.make, PROMPTS, {TEXT: BATCHES, IDENTITY: BATCHES}, store=store) == first
    assert [own for own in again.read if own[0] == 2 and own[1] == 1] == []


def test_one_prompt_that_does_not_fit_is_an_error(rows):
    with pytest.raises(torch.OutOfMemoryError):
        evaluate_arms(rows, Decoder(4, 0).make, PROMPTS, {TEXT: BATCHES, IDENTITY: BATCHES})


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 9])
def test_parts_of_batches_hold_what_the_batches_hold_in_their_order(parts):
    found = in_parts(BATCHES, parts)
    assert [index for own in found for index in own] == list(range(7))
    assert max(map(len, found)) == -(-4 // parts)
    assert in_parts(BATCHES, 1) == BATCHES
