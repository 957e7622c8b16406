"""Another domain's text: which files are read, what is measured on it, and that a store keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant
from latentwire.documents import Passage, read_passages
from latentwire.errors import InputError
from latentwire.evaluation.divergence import DivergenceReader, measured_batches
from latentwire.evaluation.other_domain import measure_other_domain, passage_prompts
from latentwire.evaluation.rows import split_rows_of
from latentwire.evaluation.store import AnswerStore

ROOT = Path(__file__).parents[3]
PASSAGES = [Passage(f"file {number // 2}", f"def f{number}(x):\n    return x + {number}\n") for number in range(10)]


def written(path: Path, passages: list[Passage]) -> Path:
    rows = [json.dumps({"document": own.document, "text": own.text}) for own in passages]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_passages_are_read_as_they_are_written(tmp_path: Path):
    assert read_passages(written(tmp_path / "own.jsonl", PASSAGES)) == PASSAGES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "holds no passage"),
        (b"\n \n", "holds no passage"),
        (b"\xff\xfe", "can't be read"),
        (b"plain text", ":1: a passage is one line of JSON"),
        (b"[1]", ":1: a passage is"),
        (b'{"document": "a"}', ":1: a passage is"),
        (b'{"document": "a", "text": "b"}\n{"document": "a", "text": " "}', ":2: a passage is"),
        (b'{"document": 1, "text": "b"}', ":1: a passage is"),
        (b'{"document": ["a"], "text": ["b"]}', ":1: a passage is"),
        (b'{"document": "a", "text": "\\ud800"}', ":1: a passage is"),
    ],
)
def test_a_file_that_holds_no_passages_is_refused_by_its_name(tmp_path: Path, content: bytes | None, said: str):
    path = tmp_path / "own.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"own\.jsonl") as error:
        read_passages(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="can't be read: Is a directory"):
        read_passages(tmp_path)


def test_the_projects_own_passages_are_enough_for_an_interval():
    found = read_passages(ROOT / "resources/other-domain/python.jsonl")
    assert 30 <= len(found) <= 60 and len({own.document for own in found}) >= 30


def test_passages_become_prompts_whose_control_tokens_stay_text(tmp_path: Path, tokenizer):
    control = tokenizer.all_special_tokens[0]
    passages = [Passage("a", f"x = {control!r}"), Passage("b", "two words")]
    prompts = passage_prompts(written(tmp_path / "own.jsonl", passages), tokenizer, 100)
    assert prompts["article"].tolist() == ["a", "b"] and prompts["id"].is_unique
    for text, ids, own in zip(("x = ", "two words"), prompts["input_ids"], prompts["label_mask"], strict=True):
        assert tokenizer.decode(ids[own]).startswith(text)
        assert not set(ids[own].tolist()) & set(tokenizer.all_special_ids)


def test_of_a_passage_that_is_longer_than_the_context_the_beginning_is_read(tmp_path: Path, tokenizer, caplog):
    file = written(tmp_path / "own.jsonl", [Passage("a", "x = 1"), Passage("b", "two words and many more of them")])
    whole = passage_prompts(file, tokenizer, 100)
    assert not caplog.messages
    short, long = map(len, whole["input_ids"])
    cut = passage_prompts(file, tokenizer, long - 1)
    assert short < long and [*map(len, cut["input_ids"])] == [short, long - 1] == [*map(len, cut["label_mask"])]
    assert cut["input_ids"][1].tolist() == whole["input_ids"][1][:-1].tolist()
    assert f"of 1 passages the first {long - 1} tokens are read" in caplog.text


def test_a_passage_of_one_token_is_passed_over(tmp_path: Path, tokenizer, caplog):
    file = written(tmp_path / "own.jsonl", [Passage("a", "x = 1"), Passage("b", "two words")])
    tokens = Mock(side_effect=lambda text, **own: {key: ids[:1] for key, ids in tokenizer(text, **own).items()})
    with pytest.raises(InputError, match="no passage has two tokens"):
        passage_prompts(file, tokens, 100)
    first = Mock(
        side_effect=[
            {"input_ids": [5], "special_tokens_mask": [0]},
            tokenizer("two words", return_special_tokens_mask=True),
        ]
    )
    assert passage_prompts(file, first, 100)["article"].tolist() == ["b"]
    assert "1 passages of a single token are passed over" in caplog.text


@pytest.fixture
def measure(tiny_model, tokenizer, tmp_path: Path):
    model = tiny_model()
    table_VD = model.get_input_embeddings().weight.detach()
    prompts = passage_prompts(written(tmp_path / "own.jsonl", PASSAGES), tokenizer, 1000)

    def run(reader: Any = None, *, size: float = 0.0, shard: int = 0, shards: int = 1):
        noise_VD = size * torch.randn(table_VD.shape, generator=torch.Generator().manual_seed(0))
        inputs = ArmInputs(table_VD + noise_VD, torch.ones(len(table_VD)).long())
        rows = split_rows_of("identity", inputs, prompts, torch.float32)
        assert rows is not None
        return measure_other_domain(
            {Variant("identity"): rows},
            (lambda: DivergenceReader(model)) if reader is None else reader,
            prompts,
            measured_batches(len(prompts), None)[shard::shards],
            store=AnswerStore(tmp_path / "measures", "model"),
        )

    return run, model, prompts, table_VD


def test_the_measures_are_those_of_whole_logits_one_passage_at_a_time(measure):
    run, model, prompts, table_VD = measure
    assert (run()["kl"] == 0).all()
    table = run(size=0.3)
    assert set(table["subset"]) == {"other_domain"} and table["article"].nunique() == 5
    assert table["id"].tolist() == prompts["id"].tolist()
    noisy_VD = table_VD + 0.3 * torch.randn(table_VD.shape, generator=torch.Generator().manual_seed(0))
    for ids, own, row in zip(prompts["input_ids"], prompts["label_mask"], table.to_dict("records"), strict=True):
        ids_L, places = torch.from_numpy(ids), np.flatnonzero(own)
        before = torch.from_numpy(places[places > 0]) - 1
        with torch.inference_mode():
            text_LV = model(input_ids=ids_L[None]).logits[0].double().log_softmax(dim=1)[before]
            arm_LV = model(inputs_embeds=noisy_VD[ids_L][None]).logits[0].double().log_softmax(dim=1)[before]
        assert row["positions"] == len(before) > 0
        assert row["kl"] == pytest.approx(float((text_LV.exp() * (text_LV - arm_LV)).sum()), rel=1e-3)
        assert row["same_top"] == int((text_LV.argmax(dim=1) == arm_LV.argmax(dim=1)).sum())


def test_what_was_measured_is_not_measured_again_and_shards_together_are_the_whole(measure):
    run, _, _, _ = measure
    parts = [run(size=0.3, shard=shard, shards=3) for shard in range(3)]
    whole = run(lambda: pytest.fail("the model was loaded"), size=0.3)
    assert sorted(row["id"] for part in parts for row in part.to_dict("records")) == sorted(whole["id"])
    assert sum(part["kl"].sum() for part in parts) == pytest.approx(whole["kl"].sum())
