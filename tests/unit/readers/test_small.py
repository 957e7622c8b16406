"""The demo's reader: packed training sequences, resumable training, and the shipped model's own promises."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from latentwire.arms_table import Variant
from latentwire.data.corpus import generate_article, generate_corpus
from latentwire.data.prepare import mark_unseen_answers, prepare_split
from latentwire.data.prompts import PromptRenderer
from latentwire.data.splits import sample_rows
from latentwire.data.squad import flatten_squad
from latentwire.data.tokenizer import build_tokenizer
from latentwire.evaluation.evaluate import evaluate_arm
from latentwire.evaluation.generate import Decoder
from latentwire.evaluation.questions import arm_batches
from latentwire.evaluation.scores import score_predictions
from latentwire.lm import load_model, load_tokenizer
from latentwire.readers import small as reader_module
from latentwire.readers.small import Packer, ReaderSettings, batches, build_reader, losses, train_reader
from latentwire.resuming.work import resumable

TINY = ReaderSettings(
    steps=6, contexts=2, curriculum=(2, 4), layers=1, width=16, heads=2, mlp_width=16, warmup=2, checkpoint_every=2
)
SHIPPED = Path(__file__).parents[3] / "resources" / "reader"
shipped_only = pytest.mark.skipif(not (SHIPPED / "model.safetensors").is_file(), reason="no shipped reader here")


def test_a_packed_branch_is_read_like_the_prompt_alone():
    tokenizer = build_tokenizer()
    model = build_reader(replace(TINY, layers=2), tokenizer).eval()
    paragraph = generate_article(3, 0)["paragraphs"][0]
    packer = Packer(tokenizer)
    tokens, batch = packer.pack(paragraph), packer.batch([paragraph])
    mask = torch.zeros(batch.mask_B1LL.shape).masked_fill_(~batch.mask_B1LL, -torch.inf)
    with torch.no_grad():
        packed = model(
            input_ids=batch.ids_BL, attention_mask=mask, position_ids=batch.positions_BL, use_cache=False
        ).logits[0]
    model.set_attn_implementation("sdpa")
    row = {"context": paragraph["context"], "question": "", "answers": {"text": [], "answer_start": []}}
    for branch, qa in enumerate(paragraph["qas"], start=1):
        prompt = PromptRenderer(tokenizer).prompts([row | {"question": qa["question"]}])[0]
        last = max(i for i, token in enumerate(tokens) if token[2] == branch and not token[3])
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([prompt.input_ids])).logits[0, -1]
        torch.testing.assert_close(packed[last], alone, rtol=1e-4, atol=1e-4)


def test_every_label_is_the_next_token_of_its_own_branch():
    tokenizer = build_tokenizer()
    packer = Packer(tokenizer)
    paragraph = generate_article(3, 1)["paragraphs"][0]
    tokens, batch = packer.pack(paragraph), packer.batch([paragraph])
    for index, (token, _, branch, _, first) in enumerate(tokens):
        expected = reader_module.IGNORED if first else token
        assert batch.labels_BL[0, index] == expected
        if index and not first:
            assert tokens[index - 1][2] == branch


def test_a_batch_depends_on_the_settings_and_its_step_alone():
    packer = Packer(build_tokenizer())
    straight = [batch for batch, _ in zip(batches(TINY, packer, 0), range(6), strict=False)]
    for start in range(6):
        assert torch.equal(next(batches(TINY, packer, start)).ids_BL, straight[start].ids_BL)


def trained(settings, output, state):
    with resumable(state) as work:
        return train_reader(settings, output, work, progress=False)


def test_an_interrupted_training_gives_the_same_reader(tmp_path, monkeypatch):
    trained(TINY, tmp_path / "straight", tmp_path / "state_a")
    calls = {"count": 0}

    def failing(*arguments):
        calls["count"] += 1
        if calls["count"] == 5:
            raise KeyboardInterrupt
        return losses(*arguments)

    monkeypatch.setattr(reader_module, "losses", failing)
    with pytest.raises(KeyboardInterrupt):
        trained(TINY, tmp_path / "continued", tmp_path / "state_b")
    result = trained(TINY, tmp_path / "continued", tmp_path / "state_b")
    assert calls["count"] == 5 + 2  # continued from step 4
    first, second = (tmp_path / name / "model.safetensors" for name in ("straight", "continued"))
    assert first.read_bytes() == second.read_bytes()
    assert set(result) == {"prompt_loss", "answer_loss", "answer_accuracy"}
    assert not list((tmp_path / "state_b").rglob("*.safetensors"))


@pytest.mark.slow
def test_training_lowers_both_losses(tmp_path):
    few = trained(replace(TINY, steps=2), tmp_path / "few", tmp_path / "state")
    many = trained(replace(TINY, steps=60, lr=1e-2, curriculum=(1000, 1000)), tmp_path / "many", tmp_path / "state")
    assert many["prompt_loss"] < few["prompt_loss"] - 1
    assert many["answer_loss"] < few["answer_loss"] - 1


@shipped_only
def test_the_shipped_reader_is_small_and_in_safetensors():
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 4 * 2**20
    assert not [file for file in SHIPPED.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]
    assert load_tokenizer(str(SHIPPED)).get_vocab() == build_tokenizer().get_vocab()


@shipped_only
def test_the_shipped_reader_answers_questions_on_articles_it_never_saw():
    """F1 ≥ 0.90 is its promise; 400 questions of 20 articles have a standard error of about 1.5 points."""
    rows = pd.DataFrame(flatten_squad(generate_corpus(12345, 20), "unseen"))
    tokenizer = load_tokenizer(str(SHIPPED))
    drawn = sample_rows(rows, 400, 0, name="unseen")
    prompts, _ = prepare_split("gate", drawn, PromptRenderer(tokenizer), max_prompt_tokens=256, on_long_prompt="error")
    mark_unseen_answers(prompts, np.arange(len(tokenizer)))
    model = load_model(str(SHIPPED), None, "float32", torch.device("cpu"))
    decoder = Decoder(model, tokenizer, max_new_tokens=8)
    own_batches = arm_batches("text", prompts, 64)
    records = evaluate_arm(Variant("text"), None, lambda: decoder, prompts, own_batches)
    assert score_predictions(records, prompts, 64)["f1"].mean() >= 0.90
