"""The store of answers: what was answered once is not asked again, and nothing else comes out of it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from latentwire.arms import ArmInputs
from latentwire.arms_table import Variant
from latentwire.codecs.base import Codec
from latentwire.evaluation.divergence import (
    DivergenceReader,
    forced_prompts,
    measure_divergence,
    measured_batches,
)
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Answer, Decoder
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.rows import split_rows_of
from latentwire.evaluation.store import AnswerStore, RowHashes, decoding_identity
from latentwire.resuming.stopping import Stopped

BATCH = 8


class Rows(Codec):
    """A codec that stores any rows."""

    family = "rows"

    def decode_rows(self, ids_U: torch.Tensor) -> torch.Tensor:
        return self.codes["rows_VD"][ids_U]


def of_rows(rows_VD: torch.Tensor) -> Rows:
    return Rows({"rows_VD": rows_VD}, {}, (len(rows_VD), rows_VD.shape[1]))


class Asked:
    """A decoder that remembers what it was asked."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.batches, self.device = decoder, list[int](), decoder.device

    def answers(self, prompts: Sequence[np.ndarray], *rows: Any) -> list[Answer]:
        self.batches.append(len(prompts))
        return self.decoder.answers(prompts, *rows)


@pytest.fixture(scope="module")
def setting(tiny_model, tokenizer, prompts):
    model = tiny_model()
    table_VD = model.get_input_embeddings().weight.detach()
    return model, table_VD, Decoder(model, tokenizer, 4), prompts.head(24).reset_index(drop=True)


Evaluate = Callable[..., tuple[list[dict], list[int]]]


@pytest.fixture
def evaluate(setting, tmp_path: Path) -> Evaluate:
    """Evaluates an arm with a store; the records and the sizes of the batches that were generated."""
    _, table_VD, decoder, rows = setting

    def run(
        arm: str,
        rows_VD: torch.Tensor | None = None,
        *,
        determining: object = "model",
        dtype: torch.dtype = torch.float32,
        batches: list[list[int]] | None = None,
        check: Callable[[], None] = lambda: None,
        anew: bool = False,
    ) -> tuple[list[dict], list[int]]:
        asked = Asked(decoder)
        inputs = ArmInputs(table_VD, torch.ones(len(table_VD)).long(), None if rows_VD is None else of_rows(rows_VD))
        records = evaluate_arm(
            Variant(arm),
            split_rows_of(arm, inputs, rows, dtype),
            lambda: asked,
            rows,
            arm_batches("text", rows, BATCH) if batches is None else batches,
            store=AnswerStore(tmp_path / "answers", determining, check=check, anew=anew),
        )
        return records, asked.batches

    return run


def test_what_is_answered_is_not_asked_again_and_needs_no_model(evaluate: Evaluate, setting, tmp_path: Path):
    first, asked = evaluate("text")
    assert asked == [BATCH] * 3
    rows = setting[3]
    again = evaluate_arm(
        Variant("text"),
        None,
        lambda: pytest.fail("the model was loaded"),
        rows,
        arm_batches("text", rows, BATCH),
        store=AnswerStore(tmp_path / "answers", "model"),
    )
    assert again == first


def test_equal_rows_share_their_answers_and_other_rows_ask_for_their_own(evaluate: Evaluate, setting):
    table_VD = setting[1]
    identity, asked = evaluate("identity")
    assert asked == [BATCH] * 3
    copied, asked = evaluate("pca", table_VD.clone())
    assert asked == []
    assert [record["prediction"] for record in copied] == [record["prediction"] for record in identity]
    assert evaluate("pca", 1.5 * table_VD)[1] == [BATCH] * 3


def test_one_changed_row_asks_for_the_batches_that_read_it(evaluate: Evaluate, setting):
    _, table_VD, _, rows = setting
    evaluate("pca", table_VD)
    batches = arm_batches("text", rows, BATCH)
    tokens = [set(np.concatenate([rows["input_ids"][index] for index in batch]).tolist()) for batch in batches]
    (rare, *_) = sorted(tokens[0] - tokens[1] - tokens[2])
    changed_VD = table_VD.clone()
    changed_VD[rare] += 1
    assert evaluate("pca", changed_VD)[1] == [BATCH]


def test_token_ids_and_the_same_embeddings_are_told_apart(evaluate: Evaluate):
    assert evaluate("text")[1] == evaluate("identity")[1] == [BATCH] * 3


def test_rows_that_are_equal_in_the_models_dtype_are_equal(evaluate: Evaluate, setting):
    rows_VD = setting[1].bfloat16().float()
    evaluate("pca", rows_VD, dtype=torch.bfloat16)
    assert evaluate("pca", rows_VD * (1 + 1e-4), dtype=torch.bfloat16)[1] == []
    assert evaluate("pca", rows_VD * (1 + 1e-4))[1] == [BATCH] * 3


def test_another_model_other_batches_and_another_order_ask_again(evaluate: Evaluate):
    batches = [list(range(8)), list(range(8, 16))]
    evaluate("text", batches=batches)
    assert evaluate("text", batches=batches, determining="another")[1] == [BATCH] * 2
    assert evaluate("text", batches=[[*range(7, -1, -1)], batches[1]])[1] == [BATCH]
    assert evaluate("text", batches=[list(range(16))])[1] == [16]


def test_anew_asks_for_everything(evaluate: Evaluate):
    first, _ = evaluate("text")
    again, asked = evaluate("text", anew=True)
    assert asked == [BATCH] * 3 and again == first


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b.replace(b"stop", b"sxop").replace(b"length", b"l"),
                                   lambda b: b"", lambda b: b"[1, 2]", lambda b: b'{"kept": [], "sha256": ""}'])  # fmt: skip
def test_a_spoilt_file_is_noticed_and_made_again(evaluate: Evaluate, tmp_path: Path, caplog, spoil):
    first, _ = evaluate("text")
    path = sorted((tmp_path / "answers").rglob("*.json"))[0]
    content = path.read_bytes()
    path.write_bytes(spoil(content))
    again, asked = evaluate("text")
    assert asked == [BATCH] and again == first
    assert f"{path} can't be read" in caplog.text
    assert path.read_bytes() == content


def test_answers_under_the_name_of_others_are_noticed(evaluate: Evaluate, tmp_path: Path, caplog):
    first, _ = evaluate("text")
    one, other, _ = sorted((tmp_path / "answers").rglob("*.json"))
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    again, asked = evaluate("text")
    assert asked == [BATCH, BATCH] and again == first
    assert (one.read_bytes(), other.read_bytes()) == contents


def test_answers_that_were_kept_before_files_had_names_are_read(evaluate: Evaluate, tmp_path: Path):
    first, _ = evaluate("text")
    for path in (tmp_path / "answers").rglob("*.json"):
        content = json.loads(path.read_text())
        del content["name"]
        path.write_text(json.dumps(content))
    assert evaluate("text") == (first, [])


def test_a_stop_loses_the_batch_that_is_being_generated_at_most(evaluate: Evaluate):
    with pytest.raises(Stopped):
        evaluate("text", check=Mock(side_effect=[None, None, Stopped("third batch")]))
    assert evaluate("text")[1] == [BATCH]


def write_many(folder: Path) -> None:
    store = AnswerStore(folder, "model")
    for number in range(60):
        name = store.name([np.array([number])], None)
        store.keep(name, [Answer(f"answer {number}", 2, "stop")])
        assert store.get(name, 1) == [Answer(f"answer {number}", 2, "stop")]


def test_processes_that_write_the_same_answers_spoil_nothing(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(tmp_path.rglob("*.json"))) == len([path for path in tmp_path.rglob("*") if path.is_file()]) == 60


def test_the_identity_of_a_decoding():
    def identity(dtype: str = "float32", tokens: int = 32, device: str = "cpu") -> list[Any]:
        return decoding_identity("owner/model", "abc", dtype, torch.device(device), tokens)

    assert identity() == identity()
    assert len({str(one) for one in (identity(), identity("bfloat16"), identity(tokens=8))}) == 3


def test_hashes_follow_rows_and_nothing_else():
    ids_U, rows_UD = torch.tensor([2, 5, 9]), torch.randn(3, 4)
    hashes = RowHashes.of(ids_U, rows_UD)
    assert hashes.read(np.array([9, 2, 9])) == RowHashes.of(ids_U, rows_UD.clone()).read(np.array([9, 2, 9]))
    assert hashes.read(np.array([9, 2])) != hashes.read(np.array([2, 9]))
    assert hashes.read(np.array([5])) != RowHashes.of(ids_U, rows_UD + 1e-6).read(np.array([5]))


# Divergence


@pytest.fixture
def measure(setting, tokenizer, tmp_path: Path):
    model, table_VD, _, rows = setting
    forced = forced_prompts(rows, tokenizer, 512)
    counts = np.arange(len(table_VD)) % 7 * 20

    def run(
        variants: dict[str, torch.Tensor],
        reader: Any = None,
        *,
        samples: int | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        found = {
            Variant(arm): split_rows_of(
                arm, ArmInputs(table_VD, torch.ones(len(table_VD)).long(), of_rows(rows_VD)), rows, torch.float32
            )
            for arm, rows_VD in variants.items()
        }
        return measure_divergence(
            found,
            (lambda: DivergenceReader(model)) if reader is None else reader,
            rows,
            forced,
            measured_batches(len(rows), samples),
            counts,
            store=AnswerStore(tmp_path / "measures", "model", check=check),
        )

    return run


def test_the_original_rows_move_nothing(measure, setting):
    table = measure({"identity": setting[1], "pca": setting[1].clone()})
    assert (table["kl"] == 0).all()
    assert (table["same_top"] == table["positions"]).all()
    assert (table["log_likelihood"] == table["log_likelihood_text"]).all()


def test_the_measures_are_those_of_whole_logits_one_prompt_at_a_time(measure, setting, tokenizer):
    """KL, same top token and log-likelihood, in float64 from all logits of unpadded prompts."""
    model, table_VD, _, rows = setting
    noisy_VD = table_VD + 0.3 * torch.randn(table_VD.shape, generator=torch.Generator().manual_seed(0))
    table = measure({"pca": noisy_VD}).set_index(["id", "subset"])
    for index, one in enumerate(forced_prompts(rows, tokenizer, 512)):
        ids_L = torch.from_numpy(one.ids)
        read_LD = torch.cat([noisy_VD[ids_L[: len(one.prompt_ids)]], table_VD[ids_L[len(one.prompt_ids) :]]])
        with torch.inference_mode():
            text_LV = model(input_ids=ids_L[None]).logits[0].double().log_softmax(dim=1)
            arm_LV = model(inputs_embeds=read_LD[None]).logits[0].double().log_softmax(dim=1)
        for subset, chosen in (("prompt", one.label_mask), ("answer", None)):
            places = [
                place
                for place in range(1, len(ids_L))
                if (place < len(one.prompt_ids) and chosen is not None and chosen[place])
                or (place >= len(one.prompt_ids) and chosen is None)
            ]
            before = torch.tensor(places) - 1
            own = table.loc[(rows["id"][index], subset)]
            assert own["positions"] == len(places)
            kl = (text_LV[before].exp() * (text_LV[before] - arm_LV[before])).sum()
            assert own["kl"] == pytest.approx(float(kl), rel=1e-3)
            same = (text_LV[before].argmax(dim=1) == arm_LV[before].argmax(dim=1)).sum()
            assert own["same_top"] == int(same)
            for name, logits_LV in (("log_likelihood", arm_LV), ("log_likelihood_text", text_LV)):
                expected = logits_LV[before, ids_L[places]].sum()
                assert own[name] == pytest.approx(float(expected), rel=1e-4)


def test_the_subsets_by_training_count_are_the_prompts_positions(measure, setting):
    table = measure({"pca": 1.2 * setting[1]}).groupby("subset")[["positions", "kl"]].sum()
    buckets = table.loc[["unseen", "1-9", "10-99", "100-999", "1000+"]].sum()
    assert buckets["positions"] == table.loc["prompt", "positions"]
    assert buckets["kl"] == pytest.approx(table.loc["prompt", "kl"])
    assert table.loc["unseen", "positions"] > 0 and table.loc["10-99", "positions"] > 0


def test_what_was_measured_is_not_measured_again(measure, setting):
    first = measure({"pca": 1.2 * setting[1]}, samples=10)
    assert first["id"].nunique() == 10
    again = measure({"pca": 1.2 * setting[1]}, lambda: pytest.fail("the model was loaded"), samples=10)
    assert again.equals(first)
    both = measure({"pca": 1.2 * setting[1], "phase1": 1.3 * setting[1]}, samples=10)
    assert both[both["arm"] == "pca"].reset_index(drop=True).equals(first)


def test_told_to_stop_it_reads_no_further_arm(measure, setting):
    reader = Mock(wraps=DivergenceReader(setting[0]))
    arms = {"pca": 1.2 * setting[1], "phase1": 1.3 * setting[1]}
    with pytest.raises(Stopped):
        measure(arms, lambda: reader, check=Mock(side_effect=[None, Stopped("told to")]))
    assert reader.hidden.call_count == 1 and not reader.compare.called


class ScarceReader(DivergenceReader):
    """Has memory for so many prompts at once, of an arm."""

    most = 3

    def hidden(self, batch: Sequence[Any], rows: Any = None) -> torch.Tensor:
        if rows is not None and len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().hidden(batch, rows)


def test_out_of_memory_all_arms_are_compared_anew_in_smaller_batches(measure, setting, tmp_path, caplog):
    arms = {"pca": 1.2 * setting[1], "phase1": 1.3 * setting[1]}
    expected = measure(arms).set_index(["arm", "id", "subset"]).sort_index()
    shutil.rmtree(tmp_path / "measures")
    reader = ScarceReader(setting[0])
    with caplog.at_level(logging.WARNING):
        found = measure(arms, lambda: reader)
    assert [text for text in caplog.messages if "out of GPU memory" in text] == [
        f"out of GPU memory: predictions of all arms are compared anew, in batches of 1/{parts} of 8 prompts"
        for parts in (2, 4)
    ]
    pd.testing.assert_frame_equal(
        found.set_index(["arm", "id", "subset"]).sort_index(), expected, rtol=1e-4, atol=1e-4, check_exact=False
    )
    again = Mock(wraps=reader)
    assert measure(arms, lambda: again).equals(found)
    assert not again.compare.called, "the next run has the smaller batches"
    reader.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        measure({"pca": 1.1 * setting[1]}, lambda: reader)


def test_measured_questions_are_evenly_spaced():
    assert measured_batches(5, None) == [[0, 1, 2, 3, 4]]
    assert sum(measured_batches(100, 10), []) == list(range(0, 100, 10))
    assert [len(batch) for batch in measured_batches(100, 20)] == [8, 8, 4]


def test_an_answer_begins_with_a_space_where_the_prompt_ends_without_one(setting, tokenizer):
    rows = setting[3]
    for one, row in zip(forced_prompts(rows, tokenizer, 512), rows.to_dict("records"), strict=True):
        expected = tokenizer(" " + row["answers"][0], add_special_tokens=False)["input_ids"]
        assert one.answer_ids.tolist() == expected
        assert one.predicted[-len(expected) :].tolist() == list(range(len(one.ids) - len(expected), len(one.ids)))
