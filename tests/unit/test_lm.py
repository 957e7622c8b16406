"""The frozen model's files: the embedding table alone, safetensors only, and errors that say what to do."""

import errno
import json
import shutil

import pytest
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, OPTConfig, OPTForCausalLM

from latentwire import lm, weights
from latentwire.abilities import declared_context
from latentwire.device import choose_device, described
from latentwire.embeddings import read_embeddings
from latentwire.errors import InputError
from latentwire.hub import unavailable
from latentwire.lm import context_length, load_config, load_model, load_tokenizer
from latentwire.table import load_table, save_table

CPU = torch.device("cpu")


@pytest.fixture
def saved(tiny_model, tmp_path):
    """Writes a tiny model and returns its folder and its own idea of the embedding table."""

    def save(dtype=torch.float32, *, shard: str = "5GB", **options):
        model = tiny_model(dtype=dtype, **options)
        model.save_pretrained(tmp_path / "model", max_shard_size=shard)
        return tmp_path / "model", model.get_input_embeddings().weight.detach().clone()

    return save


# The table


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard", ["5GB", "150KB"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_table_is_the_models_input_embeddings_in_their_stored_dtype(saved, dtype, shard, tied):
    folder, expected_VD = saved(dtype, shard=shard, tie_word_embeddings=tied)
    table_VD = read_embeddings(str(folder))
    assert table_VD.dtype == dtype
    assert torch.equal(table_VD, expected_VD)
    loaded = load_model(str(folder), None, str(dtype).removeprefix("torch."), CPU)
    assert torch.equal(table_VD, loaded.get_input_embeddings().weight)


def test_of_a_sharded_checkpoint_the_one_shard_with_the_table_is_opened(saved):
    folder, expected_VD = saved(shard="150KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        if shard.name != index["model.embed_tokens.weight"]:
            shard.unlink()
    assert torch.equal(read_embeddings(str(folder)), expected_VD)


def test_a_shard_that_the_index_names_and_that_is_not_there_is_named(saved):
    folder, _ = saved(shard="150KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    (folder / index["model.embed_tokens.weight"]).unlink()
    with pytest.raises(InputError, match=rf"{index['model.embed_tokens.weight']}.*incomplete"):
        read_embeddings(str(folder))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"model.embed_tokens.weight": 3}}', "[" * 200_000],
)
def test_an_index_that_names_no_files_is_named(saved, content):
    folder, _ = saved(shard="150KB")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=r"model.safetensors.index.json can't be read"):
        read_embeddings(str(folder))


@pytest.mark.parametrize(
    "model",
    [
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2)),
        lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
            )
        ),
        lambda: OPTForCausalLM(
            OPTConfig(
                vocab_size=50,
                hidden_size=8,
                word_embed_proj_dim=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                ffn_dim=8,
            )
        ),
    ],
    ids=["gpt2", "gpt_neox", "opt"],
)
def test_other_architectures_keep_it_elsewhere(tmp_path, model):
    built = model()
    built.save_pretrained(tmp_path)
    assert torch.equal(read_embeddings(str(tmp_path)), built.get_input_embeddings().weight)


def test_a_table_under_an_unknown_name_is_refused(saved):
    folder, _ = saved()
    weights = load_file(folder / "model.safetensors")
    weights["backbone.table"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match="no input embeddings under any of model.embed_tokens.weight"):
        read_embeddings(str(folder))


def test_a_pickled_checkpoint_is_refused(saved):
    folder, _ = saved()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no safetensors weights; pickled checkpoints are not loaded"):
        read_embeddings(str(folder))
    with pytest.raises(InputError, match="safetensors"):
        load_model(str(folder), None, "float32", CPU)


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", b""])
def test_a_file_that_is_no_safetensors_is_named(saved, content):
    folder, _ = saved()
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=f"{folder}/model.safetensors is not a readable safetensors file.*Git LFS"):
        read_embeddings(str(folder))


def test_a_table_comes_back_from_the_pipelines_own_file(tmp_path):
    table_VD = torch.randn(7, 3).bfloat16()
    save_table(tmp_path / "table.safetensors", table_VD)
    assert torch.equal(load_table(tmp_path / "table.safetensors"), table_VD)


# Models that can't be had


@pytest.mark.parametrize("read", [load_config, load_tokenizer, read_embeddings])
@pytest.mark.parametrize("name", ["missing", "a/b/c"])
def test_a_missing_directory_is_named(tmp_path, read, name):
    with pytest.raises(InputError, match=rf"{tmp_path / name}'.*model.path.*does not exist"):
        read(str(tmp_path / name))


def test_a_directory_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}'.*no config.json"):
        read_embeddings(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", '{"model_type": "no_such_architecture"}', "{}"])
def test_a_configuration_that_can_not_be_used_is_an_input_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=f"{tmp_path}"):
        load_config(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gemma2", "vocab_size": 50},
        {"model_type": "gemma", "vocab_size": 50},
        {"model_type": "recurrent_gemma", "vocab_size": 50},
        {"model_type": "granite", "vocab_size": 50, "embedding_multiplier": 12.0},
        {"model_type": "minicpm3", "vocab_size": 50, "scale_emb": 12},
        {"model_type": "xglm", "vocab_size": 50, "scale_embedding": True},
        {"model_type": "xglm", "vocab_size": 50},
    ],
    ids=lambda config: "-".join(config),
)
def test_a_model_that_rescales_its_embeddings_after_the_look_up_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"{config['model_type']} rescales embeddings"):
        read_embeddings(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [{"model_type": "granite", "embedding_multiplier": 1.0}, {"model_type": "xglm", "scale_embedding": False}],
)
def test_a_multiplier_of_one_is_none(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    assert load_config(str(tmp_path)).model_type == config["model_type"]


class Hub:
    """Stands for the hub or its cache: files that it has, and the error for every other one."""

    def __init__(self, folder, missing):
        self.folder, self.missing, self.asked = folder, missing, []

    def __call__(self, model, name, revision):
        self.asked.append((model, name, revision))
        if self.folder is not None and (self.folder / name).is_file():
            return str(self.folder / name)
        raise self.missing


@pytest.fixture
def hub(monkeypatch):
    def put(folder, missing) -> Hub:
        standing_in = Hub(folder, missing)
        monkeypatch.setattr(weights, "hf_hub_download", standing_in)
        if folder is not None:
            real = lm.AutoConfig.from_pretrained
            monkeypatch.setattr(lm.AutoConfig, "from_pretrained", lambda name, **options: real(folder))
        return standing_in

    return put


@pytest.mark.parametrize("shard", ["5GB", "150KB"])
@pytest.mark.parametrize("missing", [EntryNotFoundError("404"), LocalEntryNotFoundError("offline, not cached")])
def test_from_the_hub_or_its_offline_cache_the_table_alone_is_fetched_at_its_revision(saved, hub, shard, missing):
    """A cached model of one file must be found without a network, though its missing index can't be told from a lost one."""
    folder, expected_VD = saved(shard=shard)
    standing_in = hub(folder, missing)
    assert torch.equal(read_embeddings("owner/model", "abc"), expected_VD)
    assert {(model, revision) for model, _, revision in standing_in.asked} == {("owner/model", "abc")}
    weights = {name for _, name, _ in standing_in.asked if name.endswith(".safetensors")}
    assert len(weights) == 1


def test_a_model_of_which_nothing_is_cached_says_how_to_fetch_it(hub):
    hub(None, LocalEntryNotFoundError("offline"))
    with pytest.raises(InputError, match=r"'owner/model'.*revision 'abc'.*hf download owner/model.*HF_HOME"):
        read_embeddings("owner/model", "abc")


def test_a_model_whose_weights_are_not_cached_is_out_of_reach_and_not_a_pickle(saved, hub):
    folder, _ = saved()
    (folder / "model.safetensors").unlink()
    hub(folder, LocalEntryNotFoundError("offline"))
    with pytest.raises(InputError, match="hf download owner/model"):
        read_embeddings("owner/model")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError, "it is gated: accept its licence.*hf auth login.*HF_TOKEN"),
        (RepositoryNotFoundError, "the hub has no such repository, or a private one: check model.path"),
    ],
)
def test_a_gated_model_is_told_from_a_misspelt_one(hub, error, message):
    """The hub answers both with 401 and the words 'private or gated repo'."""

    class Response:
        headers, request, status_code = {}, None, 401

    hub(None, error("401 Client Error: if this is a private or gated repo, log in", response=Response()))
    with pytest.raises(InputError, match=message):
        read_embeddings("meta-llama/Llama-3.1-8B-Instruct")


class Forbidden:
    headers, request, status_code = {}, None, 403


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full.*HF_HOME"),
        (PermissionError(errno.EACCES, "Permission denied", "/home/one/.cache"), "permission for .*cache.*HF_HOME"),
        (OSError(errno.EROFS, "Read-only file system", "/home/one"), "permission for .*/home/one.*HF_HOME"),
        (HfHubHTTPError("403 Forbidden", response=Forbidden()), "the hub refused the token.*may read gated"),
        (ConnectionError("no route to host"), "without a network.*hf download owner/model'"),
        (ImportError("bitsandbytes"), "a package that it needs is missing: install it"),
        (OSError("Consistency check failed"), "if a download broke off, run the same command again"),
    ],
)
def test_the_cause_that_a_library_wrapped_says_what_to_do(cause, message):
    error = OSError("can't load")
    error.__cause__ = cause
    with pytest.raises(InputError, match=rf"'owner/model' \(model.path\) at revision 'abc'.*{message}"):
        raise unavailable("model", "owner/model", "abc", error)


# Tokenizer, model, device


def test_a_tokenizer_without_padding_pads_with_its_end_of_text(saved, tokenizer):
    folder, _ = saved()
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(str(folder)).pad_token == "<|pad|>"
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["pad_token"] = None
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = load_tokenizer(str(folder))
    assert loaded.pad_token_id == loaded.eos_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize("content", ['{"model": ', '{"added_tokens": [], "model": {"type": "nonsense"}}'])
def test_a_malformed_tokenizer_is_an_input_error(saved, tokenizer, content):
    folder, _ = saved()
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=f"{folder}.*can't be loaded"):
        load_tokenizer(str(folder))


def test_the_model_is_frozen_in_evaluation_mode_and_in_the_dtype_asked_for(saved):
    folder, _ = saved()
    model = load_model(str(folder), None, "bfloat16", CPU)
    assert not model.training
    for parameter in model.parameters():
        assert (parameter.dtype, parameter.requires_grad) == (torch.bfloat16, False)


def test_the_context_length_is_the_models(saved, tmp_path):
    assert context_length(str(saved()[0])) == 512
    shutil.rmtree(tmp_path / "model")
    GPT2Config(n_positions=77).save_pretrained(tmp_path / "gpt2")
    assert context_length(str(tmp_path / "gpt2")) == 77


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 96}, 96),
        ({"n_positions": 96, "n_ctx": 64}, 96),
        ({"max_seq_len": 96}, 96),
        ({"text_config": {"max_position_embeddings": 96}}, 96),
        ({"max_position_embeddings": None, "text_config": {"n_positions": 32}}, 32),
        ({"hidden_size": 8}, None),
        ({"text_config": None, "max_position_embeddings": "many"}, None),
    ],
)
def test_the_context_length_has_many_names(config, limit):
    assert declared_context(config) == limit


def test_a_gpu_that_is_not_there_is_refused_with_what_to_check(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"--device cuda.*GPU request.*CUDA_VISIBLE_DEVICES"):
        choose_device("cuda")
    assert choose_device("auto") == choose_device("cpu") == CPU


def test_auto_takes_the_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")


# Weights


def test_weights_that_the_checkpoint_lacks_are_named_and_not_made_up(saved):
    folder, _ = saved(tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"):
        del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 2 weights of LlamaForCausalLM: lm_head.weight, model.layers.1.mlp.up"):
        load_model(str(folder), None, "float32", CPU)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (1e30, "float16")])
def test_weights_that_are_not_finite_in_the_dtype_are_named(saved, value, dtype):
    folder, _ = saved()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"not finite in {dtype}: model.layers.0.mlp.up_proj.weight"):
        load_model(str(folder), None, dtype, CPU)


@pytest.mark.parametrize("spoil", ["shape", "cut", "type"])
def test_whatever_else_loading_raises_is_one_message(saved, spoil):
    folder, _ = saved()
    path = folder / "model.safetensors"
    if spoil == "shape":
        weights = load_file(path)
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 5)
        save_file(weights, path, metadata={"format": "pt"})
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    said = (
        r"model.safetensors is not a readable.*fetch it again"
        if spoil == "cut"
        else r"\(model.path\) .*can't be loaded"
    )
    with pytest.raises(InputError, match=said):
        load_model(str(folder), None, "float32", CPU)


def test_of_shards_the_one_that_is_a_pointer_is_named(saved):
    folder, _ = saved(shard="150KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    (folder / index["model.norm.weight"]).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    with pytest.raises(InputError, match=rf"{index['model.norm.weight']} is not a readable.*Git LFS pointer"):
        load_model(str(folder), None, "float32", CPU)


def test_a_gpu_is_described_by_all_that_determines_results(monkeypatch):
    assert described(torch.device("cpu")) == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    assert described(torch.device("cuda")) == "NVIDIA H100, CUDA 13.0, cuDNN 91900"
