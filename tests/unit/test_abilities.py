"""What a model can serve, from its configuration and its class: accepted kinds, and refusals that say why."""

import re
import time

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from latentwire.abilities import Lengths, does_not_fit, look_at, refusals
from latentwire.embeddings import read_embeddings
from latentwire.errors import InputError
from latentwire.evaluation.divergence import DivergenceReader
from latentwire.training.phase2 import PromptScorer

BASE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip
MAMBA = {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_n_heads": 8, "mamba_d_head": 8}
LLAMA4 = {"num_local_experts": 2, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 48}


def config(kind, **own):
    return AutoConfig.for_model(kind, **BASE | own)


@pytest.mark.parametrize(
    ("kind", "own", "name"),
    [
        ("llama", {}, "model.embed_tokens.weight"),
        ("qwen2", {}, "model.embed_tokens.weight"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "transformer.word_embeddings.weight"),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, "transformer.wte.weight"),
        ("gpt_neox", {}, "gpt_neox.embed_in.weight"),
        ("opt", {"word_embed_proj_dim": 32, "ffn_dim": 48}, "model.decoder.embed_tokens.weight"),
    ],
)
def test_a_decoder_says_where_its_table_is_and_the_table_is_read_from_a_checkpoint(kind, own, name, tmp_path):
    found = look_at(config(kind, **own))
    assert (found.table, found.width) == (name, 32) and name.startswith(found.prefix)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(kind, **own))
    model.save_pretrained(tmp_path)
    assert torch.equal(read_embeddings(str(tmp_path)), model.get_input_embeddings().weight)
    assert not list(refusals(config(kind, **own).to_dict()))


def test_a_checkpoint_without_the_base_models_prefix_is_read(tmp_path):
    own = config("bloom", n_layer=2, n_head=4)
    own.save_pretrained(tmp_path)
    table_VD = torch.randn(64, 32)
    save_file({"word_embeddings.weight": table_VD}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(read_embeddings(str(tmp_path)), table_VD)


def test_the_look_takes_no_memory_for_weights():
    """A model of 70 billion parameters, in seconds."""
    huge = config(
        "llama", vocab_size=128_256, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
        num_attention_heads=64, num_key_value_heads=8, head_dim=128,
    )  # fmt: skip
    start = time.monotonic()
    assert look_at(huge).table == "model.embed_tokens.weight"
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("kind", "own", "said"),
    [
        ("falcon_h1", {"mamba_d_ssm": 64, **MAMBA}, "generates from token ids alone"),
        ("llama4_text", LLAMA4, "does not tell its layers from its output head"),
        ("t5", {"d_model": 32, "num_layers": 1, "num_heads": 4}, "t5 has an encoder"),
        ("vit", {"image_size": 8}, "can't be built as a causal language model"),
    ],
)
def test_a_class_that_cannot_serve_is_refused_in_one_line_with_what_it_lacks(kind, own, said):
    with pytest.raises(InputError, match=said) as refused:
        look_at(config(kind, **own))
    assert "choose another model (model.path)" in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("reader", [PromptScorer, DivergenceReader])
def test_who_reads_hidden_states_refuses_a_model_without_layers_of_its_own(reader):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config("llama4_text", **LLAMA4))
    with pytest.raises(InputError, match="Llama4ForCausalLM does not tell its layers from its output head"):
        reader(model)
    model.config.update({"logit_scale": 0.5})
    with pytest.raises(InputError, match=r"rescales its logits \(logit_scale\)"):
        reader(model)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model_type": "cohere", "logit_scale": 0.0625}, r"rescales its logits \(logit_scale\)"),
        ({"model_type": "granite", "logits_scaling": 8.0, "embedding_multiplier": 12.0}, "rescales embeddings"),
        ({"model_type": "gemma2", "final_logit_softcapping": 30.0}, "rescales embeddings"),
        ({"model_type": "other", "text_config": {"scale_emb": 12}}, "other rescales embeddings"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "has an encoder"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "quantised checkpoint"),
        ({"text_config": {"quantization_config": {"load_in_4bit": True}}}, "quantised checkpoint"),
        ({"hidden_size": "64"}, "hidden_size should be a whole number, not '64'"),
        ({"max_position_embeddings": 64.0}, "max_position_embeddings should be a whole number, not 64.0"),
        ({"text_config": {"n_positions": [1]}}, r"n_positions should be a whole number, not \[1\]"),
        ({"n_embed": "x" * 10_000}, r"n_embed should be a whole number, not 'x{10,80}: mend its config.json"),
    ],
)
def test_a_configuration_that_cannot_serve_is_refused(content, said):
    assert re.search(said, next(refusals(content)))


@pytest.mark.parametrize("content", [{"n_positions": 96}, {"text_config": {"max_position_embeddings": 96}}])
def test_the_longest_prompt_and_its_answer_have_to_fit_into_the_context(content):
    assert not list(refusals(content, Lengths(88, 8)))
    (refused,) = refusals(content, Lengths(89, 8))
    assert "a prompt of 89 tokens" in refused and "answer of 8" in refused and "context of 96 tokens" in refused
    assert refused == does_not_fit(Lengths(89, 8), 96) and not does_not_fit(Lengths(10**6, 8), None)


def test_the_look_asks_for_lengths_too():
    assert look_at(config("llama"), Lengths(120, 8)).width == 32
    with pytest.raises(InputError, match="context of 128 tokens"):
        look_at(config("llama"), Lengths(121, 8))


def test_neutral_scales_and_what_is_not_declared_are_no_refusal():
    neutral = {"model_type": "llama", "logit_scale": None, "logits_scaling": 1.0, "scale_embedding": False}
    neutral |= {"max_position_embeddings": -1, "hidden_size": None, "quantization_config": None}
    assert not list(refusals(neutral)) and not list(refusals({"text_config": "none"}))
