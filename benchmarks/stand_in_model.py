"""A stand-in for Llama-3.1-8B where the real one can't be had: its shapes and tensor names, with random weights.

    .venv/bin/python benchmarks/stand_in_model.py --train_file train-v1.1.json --output /tmp/llama-shapes

The model directory holds the configuration, a byte-level BPE tokenizer trained on that file alone with Llama 3's chat
format, the complete index of a sharded safetensors checkpoint, and of its shards two: the one with the embedding
table and the last one (3 GB in bf16). That is all that data preparation, PCA and Phase 1 read. The table has Llama's
root mean square (0.0084) and an invented spectrum, so its reconstruction figures say nothing about Llama.

Shape suffixes: V vocabulary, D model width.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from scipy.fft import dct
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from latentwire import cli
from latentwire.data.squad import read_squad_json
from latentwire.lm import DTYPES

log = logging.getLogger("stand_in_model")

TABLE = "model.embed_tokens.weight"
BOS, EOT, START, END, PAD = (
    *("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    "<|finetune_right_pad_id|>",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# How Llama 3 cuts text before merging.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TABLE_RMS = 0.0084  # of Llama-3.1-8B's input embeddings


def train_tokenizer(train_file: Path, size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most ``size`` tokens from the contexts and questions of a SQuAD v1.1 file."""
    rows = read_squad_json(train_file)
    texts = [*dict.fromkeys(row["context"] for row in rows), *(row["question"] for row in rows)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[BOS, EOT, START, END, PAD],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOT,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def llama_config(tokenizer: PreTrainedTokenizerFast, vocab: int, dtype: str, tied: bool) -> LlamaConfig:
    """Llama-3.1-8B's configuration, with another vocabulary size where one is asked for."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocab,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=dtype,
    )


def random_table(vocab: int, width: int, dtype: torch.dtype, block: int = 8192) -> torch.Tensor:
    """A table ``[V, D]`` of independent rows whose covariance has eigenvalues falling as 1/√j.

    Its leading eighth of the dimensions then holds about 35% of the variance. The eigenvectors are the cosines of a
    discrete cosine transform, which is a rotation that costs next to nothing.
    """
    generator = torch.Generator().manual_seed(0)
    scale_D = torch.arange(1, width + 1) ** -0.25
    scale_D *= TABLE_RMS / scale_D.square().mean().sqrt()
    table_VD = torch.empty(vocab, width, dtype=dtype)
    for rows_VD in table_VD.split(block):
        spectrum_VD = torch.randn(rows_VD.shape, generator=generator) * scale_D
        rows_VD.copy_(torch.from_numpy(dct(spectrum_VD.numpy(), norm="ortho", overwrite_x=True)))
    return table_VD


def random_tensor(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Weights of one tensor: the table, ones for norms, otherwise normal with Llama's initial deviation."""
    if name == TABLE:
        return random_table(*shape, dtype)
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype)
    return torch.empty(shape, dtype=dtype).normal_(std=0.02)


def write_checkpoint(folder: Path, config: LlamaConfig, shard_size: str) -> None:
    """The complete index, and the shards with the table and with the last tensors."""
    with torch.device("meta"):
        shapes = LlamaForCausalLM(config).to(config.dtype).state_dict()
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    plan = split_torch_state_dict_into_shards(shapes, max_shard_size=shard_size)
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for filename in {plan.tensor_to_filename[TABLE], max(plan.filename_to_tensors)}:
        log.info("%s of %d shards", filename, len(plan.filename_to_tensors))
        names = plan.filename_to_tensors[filename]
        tensors = {name: random_tensor(name, shapes[name].shape, config.dtype) for name in names}
        save_file(tensors, folder / filename, metadata={"format": "pt"})


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_file", type=Path, required=True, help="official SQuAD v1.1 JSON, the training set")
    parser.add_argument("--output", type=Path, required=True, help="model directory to write")
    parser.add_argument("--tokens", type=int, default=32_000, help="size of the tokenizer (default 32,000)")
    parser.add_argument("--vocab", type=int, default=128_256, help="rows of the table (default 128,256)")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bfloat16", help="of the weights (default bfloat16)")
    parser.add_argument("--tied", action="store_true", help="the output head is the embedding table")
    parser.add_argument("--shard_size", default="2GB", help="largest shard (default 2GB)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    cli.set_threads(torch.get_num_threads())
    torch.manual_seed(0)
    arguments.output.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(arguments.train_file, arguments.tokens)
    tokenizer.save_pretrained(arguments.output)
    config = llama_config(tokenizer, arguments.vocab, arguments.dtype, arguments.tied)
    config.save_pretrained(arguments.output)
    write_checkpoint(arguments.output, config, arguments.shard_size)


if __name__ == "__main__":
    cli.run(main)
