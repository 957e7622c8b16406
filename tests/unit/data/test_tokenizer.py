"""The demo's tokenizer: one token for each word of the corpus, bytes for everything else."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from latentwire.data.corpus import generate_corpus
from latentwire.data.squad import flatten_squad
from latentwire.data.tokenizer import build_tokenizer, corpus_words

SPECIAL = {"<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"}


@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not any(token in text for token in SPECIAL):
        assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["", " ", "a  b\n\nc\t", "naïve Ġ ĊČ 東京 🏔️ \u200b", "The  Skiskel Guild"])
def test_hard_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("seed", [0, 7, 12345])
def test_every_word_of_a_corpus_of_any_seed_is_one_token(tokenizer, seed):
    for row in flatten_squad(generate_corpus(seed, 10), "x"):
        for text in (row["context"], row["question"], row["answers"]["text"][0]):
            pieces = tokenizer.tokenize(f" {text}")
            assert tokenizer.convert_tokens_to_string(pieces) == f" {text}"
            assert [piece for piece in pieces if piece.startswith("Ġ")] == [
                f"Ġ{word.strip('.?')}" for word in text.split()
            ]
            assert all(piece in {".", "?"} for piece in pieces if not piece.startswith("Ġ"))


def test_all_corpus_words_are_single_tokens(tokenizer):
    words = corpus_words()
    assert words == sorted(set(words))
    for word in words:
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word


def test_it_has_its_special_tokens_and_a_chat_template_that_begins_with_bos(tokenizer):
    assert set(tokenizer.all_special_tokens) == SPECIAL
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    rendered = tokenizer.apply_chat_template(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert rendered == "<|begin|><|system|>s<|end|><|user|>u<|end|><|assistant|>"
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"][0] == tokenizer.bos_token_id


def test_it_is_the_same_at_every_call_and_comes_back_from_disk(tokenizer, tmp_path):
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|begin|><|user|>Context: The Skiskel Guild, naïve.\n<|end|>"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.pad_token_id == tokenizer.pad_token_id


def test_the_shipped_readers_table_has_a_row_for_each_token(tokenizer):
    reader = Path(__file__).parents[3] / "resources" / "reader"
    if not (reader / "config.json").is_file():
        pytest.skip(f"no reader in {reader}")
    assert json.loads((reader / "config.json").read_text(encoding="utf-8"))["vocab_size"] == len(tokenizer)
    assert AutoTokenizer.from_pretrained(reader).get_vocab() == tokenizer.get_vocab()
