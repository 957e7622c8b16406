"""What the first layer reads of an embedding, against the layer itself."""

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from latentwire.evaluation.reconstruction_metrics import question_sums, reading_errors, type_errors
from latentwire.first_layer import first_layer_reading

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def llama(tiny_model):
    return tiny_model()


def qwen(_):
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, **HEADS))


def mistral(_):
    return MistralForCausalLM(MistralConfig(**SIZES, **HEADS))


def saved(model, folder):
    """The model's folder; its norms' gains are not all one, its biases not zero, and its rows large beside epsilon."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.get_input_embeddings().weight.mul_(30)
    model.save_pretrained(folder, max_shard_size="20KB")
    return str(folder)


@pytest.mark.parametrize("make", [llama, qwen, mistral])
def test_it_is_the_error_of_the_first_layers_own_queries_keys_and_values(tiny_model, tmp_path, make):
    model = make(tiny_model).eval()
    reading_DD = first_layer_reading(saved(model, tmp_path))
    original_UD = model.get_input_embeddings().weight.detach()[3:40]
    rebuilt_UD = original_UD + 0.1 * torch.randn(original_UD.shape, generator=torch.Generator().manual_seed(0))
    layer = model.get_decoder().layers[0].double()
    attention = layer.self_attn

    def read(rows_UD):
        normed_UD = layer.input_layernorm(rows_UD.double())
        parts = [getattr(attention, f"{name}_proj") for name in "qkv"]
        return torch.cat([part(normed_UD) - (0 if part.bias is None else part.bias) for part in parts], dim=1)

    with torch.no_grad():
        own_UE, rebuilt_UE = read(original_UD), read(rebuilt_UD)
    error_U, size_U = reading_errors(original_UD, rebuilt_UD, reading_DD)
    torch.testing.assert_close(error_U, (own_UE - rebuilt_UE).square().sum(dim=1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(size_U, own_UE.square().sum(dim=1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_head=4, n_layer=1, vocab_size=50)),
        lambda: OPTForCausalLM(
            OPTConfig(hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=50)
        ),
    ],
    ids=["gpt2", "opt"],
)
def test_of_another_first_layer_nothing_is_known(tmp_path, model):
    assert first_layer_reading(saved(model(), tmp_path)) is None


def test_scale_and_what_no_projection_reads_cost_nothing():
    """A row that is twice as large, or moves where W reads nothing, is read as before."""
    weight_ED = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.0])).double()
    rows_UD = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 2.0, 0.0, 1.0]])
    error_U, size_U = reading_errors(rows_UD, 2 * rows_UD, weight_ED.T @ weight_ED)
    assert error_U.abs().max() < 1e-12 and (size_U > 0).all()
    turned_UD = rows_UD * torch.tensor([1.0, 1.0, 1.0, -1.0])
    assert reading_errors(rows_UD, turned_UD, weight_ED.T @ weight_ED)[0].abs().max() < 1e-12


def test_its_sums_stand_beside_the_others():
    generator = torch.Generator().manual_seed(0)
    table_VD = torch.randn(9, 4, generator=generator)
    ids_U, reading_DD = torch.arange(9), torch.eye(4)
    errors = type_errors(ids_U, table_VD + 0.1, table_VD, table_VD.mean(dim=0), reading_DD)
    sums = question_sums(errors, ids_U, [np.array([1, 1, 5])], [np.array([True, True, False])])
    assert sums["reading_size"].tolist() == pytest.approx([2 * 4.0])
    assert sums["reading_error"][0] == pytest.approx(2 * errors.reading_error_U[1])
    plain = type_errors(ids_U, table_VD + 0.1, table_VD, table_VD.mean(dim=0))
    assert {*sums.columns} - {*question_sums(plain, ids_U, [np.array([1])], [np.array([True])]).columns} == {
        "reading_error",
        "reading_size",
    }
