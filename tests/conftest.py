"""What the tests share: one thread, no network, a fixed hypothesis profile, the demo's tokenizer and tiny models."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub reads it: no test may touch the network

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from latentwire.data.corpus import generate_corpus
from latentwire.data.prepare import prepare_split
from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import flatten_squad
from latentwire.data.tokenizer import build_tokenizer

# The same examples at every run: a failure is a change of the code, never of the day.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("repeatable")

# Bit-identity is promised at an equal thread count.
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """A collection of garbage would look at every object of the libraries."""
    gc.freeze()


TinyModel = Callable[..., LlamaForCausalLM]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The demo's tokenizer."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def renderer(tokenizer: PreTrainedTokenizerFast) -> PromptRenderer:
    """The demo's chat prompts."""
    return PromptRenderer(tokenizer, "chat")


@pytest.fixture
def hub_data(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts rows, by their split, where a data set on the hub is read."""

    def put(**splits: list[Any]) -> None:
        monkeypatch.setattr("latentwire.data.squad.snapshot_download", lambda *_, **__: "folder")
        monkeypatch.setattr("datasets.load_dataset", lambda _: splits)

    return put


@pytest.fixture(scope="session")
def prompts(renderer: PromptRenderer) -> pd.DataFrame:
    """48 prepared prompts of four demo articles."""
    rows = pd.DataFrame(flatten_squad(generate_corpus(3, 4, paragraphs=4, questions=3), "test corpus"))
    frame, _ = prepare_split("train", rows, renderer, max_prompt_tokens=512, on_long_prompt="error")
    return frame


@pytest.fixture(scope="session")
def sequences(prompts: pd.DataFrame) -> list[np.ndarray]:
    """Their token ids."""
    return [np.asarray(ids) for ids in prompts["input_ids"]]


@pytest.fixture(scope="session")
def label_masks(prompts: pd.DataFrame) -> list[np.ndarray]:
    """Which of their tokens are labels."""
    return [np.asarray(mask, dtype=bool) for mask in prompts["label_mask"]]


@pytest.fixture(scope="session")
def tiny_model(tokenizer: PreTrainedTokenizerFast) -> TinyModel:
    """Builds a frozen random Llama over the demo's vocabulary; keywords go to its configuration."""

    def build(*, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 512,
                "initializer_range": 0.3,  # wide enough for random answers to depend on the prompt
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            }
            | options
        )
        return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)

    return build


@pytest.fixture
def scripted_model(tiny_model: TinyModel) -> Callable[[Mapping[int, int]], LlamaForCausalLM]:
    """Builds a Llama whose next token is a function of the last one: ``{last: next}``."""

    def build(successor: Mapping[int, int]) -> LlamaForCausalLM:
        model = tiny_model(hidden_size=64, num_hidden_layers=1, tie_word_embeddings=False)
        layer = model.model.layers[0]
        # Without what attention and MLP add, the last hidden state is the last token's own embedding.
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        rows = model.get_input_embeddings().weight
        rows /= rows.norm(dim=1, keepdim=True)
        model.lm_head.weight.zero_()
        for last, following in successor.items():
            model.lm_head.weight[following] += rows[last]
        return model

    return build
