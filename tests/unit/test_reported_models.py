"""Model folders as reports of neighbouring projects describe them: each is refused in one message, or serves."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from latentwire.compression.counts import count_tokens
from latentwire.data.prompts import PromptRenderer
from latentwire.embeddings import read_embeddings
from latentwire.errors import InputError
from latentwire.evaluation.generate import Decoder
from latentwire.lm import load_model, load_tokenizer

CPU = torch.device("cpu")
ROW = {"id": "a", "context": "The river runs north.", "question": "Where to?"}
ROW |= {"answers": {"text": ["north"], "answer_start": [15]}}
SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
}  # fmt: skip
MAMBA = {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_d_head": 8}


@pytest.fixture
def folder(tiny_model, tokenizer, tmp_path):
    """A sound model with an output head of its own, in several shards."""
    tiny_model(tie_word_embeddings=False).save_pretrained(tmp_path, max_shard_size="150KB")
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def changed_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    "quantised",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"},
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
        {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
        {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        {"quant_method": "mxfp4"},
    ],
    ids=lambda quantised: quantised["quant_method"],
)
def test_a_quantised_checkpoint_is_refused_by_its_configuration(folder, quantised):
    changed_config(folder, quantization_config=quantised)
    for read in (read_embeddings, load_tokenizer, lambda own: load_model(own, None, "float32", CPU)):
        with pytest.raises(InputError, match="quantised checkpoint.*take the one that it was made from"):
            read(str(folder))


@pytest.mark.parametrize("spoil", ["pointer", "cut", "empty", "missing"])
def test_a_shard_that_does_not_hold_the_table_is_missed_when_the_model_is_loaded(folder, spoil):
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    other = folder / next(name for name in sorted(index.values()) if name != index["model.embed_tokens.weight"])
    match spoil:
        case "pointer":
            other.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        case "cut":
            other.write_bytes(other.read_bytes()[:-1000])
        case "empty":
            other.write_bytes(b"")
        case "missing":
            other.unlink()
    with pytest.raises(InputError, match=other.name):
        load_model(str(folder), None, "float32", CPU)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_base_model_without_its_head_is_not_given_a_random_one(tiny_model, tmp_path, prefix):
    tiny_model(tie_word_embeddings=False).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: own for name, own in load_file(file).items() if not name.startswith("lm_head")}
    renamed = {prefix + name.removeprefix("model."): own for name, own in weights.items()}
    save_file(renamed, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights of LlamaForCausalLM: lm_head.weight"):
        load_model(str(tmp_path), None, "float32", CPU)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("falcon_h1", {"mamba_d_ssm": 64, "mamba_n_heads": 8, **MAMBA}),
        ("bamba", {"attn_layer_indices": [1], "mamba_n_heads": 8, **MAMBA}),
        ("llama4_text", {"num_local_experts": 2, "interleave_moe_layer_step": 1, "intermediate_size_mlp": 48}),
        ("cohere", {"logit_scale": 0.0625}),
        ("qwen2_5_vl", {"text_config": {**SHAPE}}),
    ],
)
def test_a_class_that_cannot_serve_is_refused_when_its_table_is_read(tmp_path, kind, own):
    """Hours before Phase 2, which would be the first that can't do with it."""
    AutoConfig.for_model(kind, **(own if kind == "qwen2_5_vl" else SHAPE | own)).save_pretrained(tmp_path)
    table = {"model.embed_tokens.weight": torch.zeros(64, 32)}
    save_file(table, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="choose another model"):
        read_embeddings(str(tmp_path))


def test_a_hybrid_that_reads_embeddings_serves(tmp_path, tokenizer, sequences):
    hybrid = {
        "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False,
        "mamba_d_state": 8, "mamba_dt_rank": 4, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model("jamba", **SHAPE | hybrid | {"vocab_size": len(tokenizer), "pad_token_id": 0})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    table_VD, model = read_embeddings(str(tmp_path)), load_model(str(tmp_path), None, "float32", CPU)
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences[:4]))).long()
    decoder = Decoder(model, tokenizer, 4)
    assert decoder.answers(sequences[:4], table_VD[ids_U], ids_U) == decoder.answers(sequences[:4])


@pytest.mark.parametrize("pad", ["[PAD]", None])
def test_a_padding_token_without_a_row_or_none_at_all_serves(folder, tokenizer, pad):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": pad}))
    own = load_tokenizer(str(folder))
    rows = len(read_embeddings(str(folder)))
    prompts = [np.array(one.input_ids) for one in PromptRenderer(own).prompts([ROW, ROW | {"question": "Where?"}])]
    count_tokens(prompts, rows)
    decoder = Decoder(load_model(str(folder), None, "float32", CPU), own, 4)
    assert (own.pad_token_id >= rows) == (pad is not None)
    assert decoder.answers(prompts) == [decoder.answers([prompt])[0] for prompt in prompts]
