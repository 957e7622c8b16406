"""Checks of the configuration before anything runs: every problem at once, each with its place and a way out."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config

from latentwire.configuration import ConfigurationError, checked, content_identity, frozen_hash

ROOT = Path(__file__).parents[2]
HEADLINE = yaml.safe_load((ROOT / "config.yaml").read_text())


def configured(*arguments):
    """The headline configuration with ``--config`` arguments, as Snakemake reads them."""
    config = copy.deepcopy(HEADLINE)
    update_config(config, parse_config(arguments))
    return config


def problems_of(config, root=ROOT):
    with pytest.raises(ConfigurationError) as error:
        checked(config, root)
    return str(error.value)


def test_the_headline_configuration_is_valid_and_unchanged():
    assert checked(HEADLINE, ROOT) == HEADLINE


@pytest.mark.parametrize(
    ("argument", "path", "value"),
    [
        ("gate={threshold: 0.6}", ("gate", "threshold"), 0.6),
        ("phase1={lr: 1e-3, epochs: 4}", ("phase1",), HEADLINE["phase1"] | {"lr": 0.001, "epochs": 4}),
        ("compress_dims=[256, 128]", ("compress_dims",), [256, 128]),
        ("compress_dims=[256,]", ("compress_dims",), [256]),
        ("pca={samples: 400}", ("pca", "samples"), 400),
        ("pca={samples: all}", ("pca", "samples"), "all"),
        ("phase2={alpha: 0.5}", ("phase2", "alpha"), 0.5),
        ("phase2={alpha: auto}", ("phase2", "alpha"), "auto"),
        ("phase2={epochs: 0.2}", ("phase2", "epochs"), 0.2),
        ("exploratory={seeds: [0], arms: [pca]}", ("exploratory",), {"seeds": [0], "arms": ["pca"]}),
        ("gate={force_phase2: true}", ("gate", "force_phase2"), True),
        ("data={train_samples: null}", ("data", "train_samples"), None),
        ("model={revision: null}", ("model", "revision"), None),
        (
            "model={template_arguments: {enable_thinking: false, depth: 2, effort: none}}",
            ("model", "template_arguments"),
            {"enable_thinking": False, "depth": 2, "effort": "none"},
        ),
        ("resources={phase1: {gpu: 0}}", ("resources", "phase1", "gpu"), 0),
    ],
)
def test_numbers_of_the_command_line_arrive_as_strings_and_are_coerced(argument, path, value):
    found = checked(configured(argument), ROOT)
    for key in path:
        found = found[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gate={treshold: 0.6}", "gate.treshold: unknown key; did you mean 'threshold'?"),  # codespell:ignore treshold
        ("phase_1={epochs: 2}", "phase_1: unknown key; did you mean 'phase1'?"),
        ("gate={zzz: 1}", "gate.zzz: unknown key; known keys: threshold, failing, "),
        ("gate={threshold: 70}", "gate.threshold: '70' should be less than 1 (Phase 1's F1"),
        ("gate={threshold: 0}", "gate.threshold: '0' should be greater than 0"),
        ("gate={threshold: high}", "gate.threshold: 'high' should be a valid number"),
        ("gate={threshold: true}", "gate.threshold: 'true' should be a valid number"),
        ("gate={threshold: nan}", "gate.threshold: 'nan' should be a finite number"),
        ("gate=0.7", "gate: 0.7 should be a section with keys of its own"),
        ("phase2={alpha: inf}", "phase2.alpha: 'inf' should be 'auto', or should be a finite number"),
        ("phase1={epochs: 1.5}", "phase1.epochs: '1.5' should be a valid integer"),
        ("phase1={epochs: 0}", "phase1.epochs: '0' should be greater than or equal to 1"),
        ("phase2={epochs: 0}", "phase2.epochs: '0' should be greater than 0"),
        ("gate={force_phase2: maybe}", "gate.force_phase2: 'maybe' should be a valid boolean"),
        ("phase2={alpha: often}", "phase2.alpha: 'often' should be 'auto', or should be a valid number"),
        ("pca={samples: some}", "pca.samples: 'some' should be 'auto' or 'all', or should be a valid integer"),
        ("compress_dims=[]", "compress_dims: [] should have at least 1 item"),
        ("compress_dims=[8, 8]", "compress_dims: ['8', '8'] has an element twice"),
        ("compress_dims=512", "compress_dims: 512 should be a valid list"),
        ("seeds=[-1]", "seeds.0: '-1' should be greater than or equal to 0"),
        ("experiment=../other", "experiment: '../other' should match pattern"),
        ("evaluate={arms: [pca, snip]}", "evaluate.arms.1: 'snip' should be 'identity', 'mean'"),
        ("model={dtype: float64}", "model.dtype: 'float64' should be 'float32', 'bfloat16' or 'float16'"),
        ("data={source: elsewhere}", "data.source: 'elsewhere' should be 'hub', 'local' or 'demo'"),
    ],
)
def test_what_a_setting_refuses(argument, message):
    assert message in problems_of(configured(argument))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate={threshold: 0.6, failing: 0.65}"], "gate.failing: 0.65 is above gate.threshold, 0.6"),
        (["data={source: hub, path: null}"], "data.path: needed if data.source is 'hub'"),
        (["data={source: local}"], "data.train_file: needed if data.source is 'local'"),
        (["data={source: local, train_file: no.json}"], "data.train_file: 'no.json' does not exist"),
        (["data={source: local, train_file: pyproject.toml, dev_file: no.json}"], "data.dev_file: 'no.json' does not"),
        (["pca={samples: 101}", "data={train_samples: 100}"], "pca.samples: 101 is more than data.train_samples, 100"),
        (["evaluate={other_domain: no.jsonl}"], "no.jsonl can't be read: No such file"),
        (["evaluate={other_domain: LICENSE}"], "LICENSE:1: a passage is one line of JSON"),
        (["model={path: ./no-model}"], "model.path: the directory './no-model' does not exist"),
        (["model={path: config/no-model}"], "model.path: the directory 'config/no-model' does not exist"),
    ],
)
def test_what_does_not_fit_together(arguments, message):
    assert message in problems_of(configured(*arguments))


FIT = "def fit(table_VD, counts_V, compress_dim): ...\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("own.md", FIT, "should be a Python file"),
        ("own", FIT, "should be a Python file"),
        ("own.py", "def (", "can't be read as Python: 'invalid syntax"),
        ("own.py", "x = 1\0", "can't be read as Python"),
        ("own.py", "(" * 1000, "can't be read as Python"),
        ("own.py", "\ud800", "can't be read as Python"),
        ("own.py", "# a codec", "should define fit(table_VD, counts_V, compress_dim)"),
        ("own.py", FIT, None),
        ("own.py", f"if True:\n    {FIT}", None),
        ("own.py", "from elsewhere import fit", None),
        ("own.py", "from elsewhere import *", None),
        ("own.py", "fit = object()", None),
    ],
)
def test_a_codec_of_ones_own_has_to_be_one(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content.encode(errors="surrogatepass"))
    config = HEADLINE | {"codecs": {"mine": file}}
    if message is None:
        assert checked(config, tmp_path)["codecs"] == {"mine": file}
    else:
        assert f"codecs.mine: '{file}' {message}" in problems_of(config, tmp_path)


def test_what_just_fits_together():
    for arguments in (
        ["gate={threshold: 0.6, failing: 0.6}"],
        ["pca={samples: 100}", "data={train_samples: 100}"],
        ["pca={samples: 100}", "data={train_samples: null}"],
        ["data={source: local, train_file: pyproject.toml}"],
    ):
        checked(configured(*arguments), ROOT)


@pytest.mark.parametrize("width_key", ["hidden_size", "n_embd", "n_embed", "d_model", "text_config"])
def test_a_local_models_dimension_and_context_are_known(tmp_path, width_key):
    (tmp_path / "model").mkdir()
    width = {"text_config": {"hidden_size": 64}} if width_key == "text_config" else {width_key: 64}
    (tmp_path / "model/config.json").write_text(json.dumps(width | {"max_position_embeddings": 288}))
    local = ["model={path: ./model}", "data={max_prompt_tokens: 256}"]
    checked(configured(*local, "compress_dims=[64, 8]"), tmp_path)
    too_large = problems_of(configured(*local, "compress_dims=[8, 65]"), tmp_path)
    assert "compress_dims: 65 is larger than the model's embedding dimension, 64" in too_large
    too_long = problems_of(configured(*local, "compress_dims=[8]", "evaluate={max_new_tokens: 33}"), tmp_path)
    assert "an answer of 33 (evaluate.max_new_tokens) do not fit into the model's context of 288 tokens" in too_long


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "can't be read"),
        ("{", "can't be read"),
        ("[1]", "a list instead of an object"),
        ('{"is_encoder_decoder": true}', "has an encoder"),
        ('{"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}', "quantised checkpoint"),
        ('{"model_type": "cohere", "logit_scale": 0.0625}', "rescales its logits (logit_scale)"),
        ("a folder", "can't be read"),
        ("a link to itself", "can't be read"),
        ("nothing", "can't be read"),
    ],
)
def test_a_local_model_that_cannot_serve_is_refused_before_anything_runs(tmp_path, content, said):
    file = tmp_path / "model/config.json"
    file.parent.mkdir()
    match content:
        case "nothing":
            pass
        case "a folder":
            file.mkdir()
        case "a link to itself":
            file.symlink_to(file)
        case _:
            file.write_text(content)
    message = problems_of(configured("model={path: ./model}"), tmp_path)
    assert "model.path: " in message and said in message and len(message) < 400


@pytest.mark.parametrize("kind", ["dangling", "itself", "folder"])
def test_a_file_of_the_model_that_no_program_can_read_is_refused(tmp_path, kind):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 4096}')
    checked(copy.deepcopy(configured("model={path: ./model}")), tmp_path)
    file = folder / "tokenizer.json"
    file.mkdir() if kind == "folder" else file.symlink_to(file if kind == "itself" else tmp_path / "nothing")
    message = problems_of(configured("model={path: ./model}"), tmp_path)
    assert "tokenizer.json" in message and "is no file but a folder, a pipe, or a link to nothing" in message


def test_text_where_a_models_numbers_belong_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"hidden_size": "many", "max_position_embeddings": [1]}')
    message = problems_of(configured("model={path: ./model}"), tmp_path)
    assert "hidden_size should be a whole number, not 'many'" in message
    assert "max_position_embeddings should be a whole number, not [1]" in message


@pytest.mark.parametrize("name", ["-x", "a\nb", "a\n", "\0", " ", "", "x" * 1001, "\ud800"])
def test_a_path_or_revision_is_a_name_that_commands_take_as_it_is(name):
    for section, key in (("model", "path"), ("model", "revision"), ("data", "train_file")):
        config = copy.deepcopy(HEADLINE)
        config[section][key] = name
        assert f"{section}.{key}: " in problems_of(config)


def test_the_home_directory_is_completed(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    message = problems_of(configured("data={source: local, train_file: ~/train.json}"))
    assert "data.train_file: '/home/somebody/train.json' does not exist" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" * 3000, "should be a JSON object of texts, integers and truth values"),
        ("x", "should be a JSON object"),
        ([1], "should be a valid dictionary"),
        ({"a": "x\0"}, "no NUL, and no half of a surrogate pair"),
        ({"a": "\ud800"}, "no half of a surrogate pair"),
        ({"a": "x" * 200_000}, "should have at most 20000 characters"),
        ({"a": "x" * 3000, "b": "x" * 3000}, "should have at most 4000 characters as JSON"),
        ({f"a{number}": number for number in range(1000)}, "should have at most 4000 characters as JSON"),
        ({"a": 10**10}, "should be less than or equal to 1000000000"),
        ({"a": 1.5}, "should be a valid integer"),
        ({"a": None}, "should be a valid string"),
        ({"a": {"b": 1}}, "should be a valid string"),
        ({"a b": 1}, "'a b' should match pattern"),
        ({1: 1}, "should be a valid string"),
        ({"a" * 101: 1}, "should have at most 100 characters"),
        *(({name: "x"}, f"{name!r} should be a variable of the template's own") for name in ("tokenize", "bos_token")),
    ],
)
def test_variables_of_a_template_are_few_short_and_its_own(value, message):
    config = copy.deepcopy(HEADLINE)
    config["model"]["template_arguments"] = value
    said = problems_of(config)
    assert message in said and "model.template_arguments" in said and len(said) < 800


def test_all_problems_are_listed_at_once():
    wrong = configured("gate={threshold: 2, failin: 0.5}", "phase1={epochs: 0}")  # codespell:ignore failin
    message = problems_of(wrong)
    assert message.count("\n  - ") == 3
    assert "docs/configuration.md" in message


def test_numbers_truth_values_and_texts_are_told_apart():
    """YAML's ``true`` is not the number 1, and no number is a name; NaN is below no bound."""
    for section, key, value, message in (
        ("phase1", "epochs", True, "should not be a truth value"),
        ("phase1", "lr", float("nan"), "should be a finite number"),
        ("model", "revision", 12, "should be a valid string"),
        ("model", "path", None, "should be a valid string"),
    ):
        assert f"{section}.{key}: {value!r} {message}" in problems_of({section: {key: value}})
    assert "seeds: [0, True] should not be a truth value" in problems_of({"seeds": [0, True]})
    assert "3: 3 Keys should be strings" in problems_of({3: 4})


def test_null_as_text_is_none_where_none_is_allowed_and_a_text_elsewhere():
    for text in ("null", "None", "none"):
        config = checked({"model": {"system_prompt": text, "path": text}, "adapter": {"hidden": text}}, ROOT)
        assert (config["model"]["system_prompt"], config["adapter"]["hidden"]) == (None, None)
        assert config["model"]["path"] == text


def test_a_long_value_is_echoed_short():
    assert len(problems_of({"data": {"source": "x" * 10_000}})) < 400


def test_the_frozen_hash_is_of_what_can_change_a_result():
    frozen = frozen_hash(HEADLINE)
    assert frozen == frozen_hash(dict(reversed(HEADLINE.items())))
    assert frozen == frozen_hash(configured("experiment=other", "resources={phase1: {runtime: 7}}"))
    assert frozen == frozen_hash(configured("evaluate={shards: 7}"))
    before = {name: value for name, value in HEADLINE["evaluate"].items() if name != "other_domain"}
    assert frozen == frozen_hash(HEADLINE | {"evaluate": before}), "hashes from before the setting stay"
    assert frozen != frozen_hash(configured("evaluate={other_domain: text.jsonl}"))
    for change in ("seeds=[0]", "gate={threshold: 0.6}", "phase2={lr: 0.5}", "model={revision: abc}"):
        assert frozen_hash(configured(change)) != frozen


def test_a_models_identity_is_its_content(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    identity = content_identity(model)
    for path in model.iterdir():
        path.touch()
    (model / "README.md").write_text("a card")
    assert content_identity(model) == identity
    (model / "model.safetensors").write_bytes(b"Weights")
    assert content_identity(model) != identity
    assert content_identity(model / "config.json") != content_identity(model)
    # Of a file above 64 MB so much that a change of a fiftieth of it shows, wherever it is.
    size = 65 * 2**20
    (model / "model.safetensors").write_bytes(bytes(size))
    identity = content_identity(model)
    for share in (0, 0.013, 0.5, 0.98):
        with (model / "model.safetensors").open("r+b") as weights:
            weights.seek(int(share * size))
            weights.write(b"1" * (size // 50))
        assert content_identity(model) != identity
        identity = content_identity(model)
    # What is on the hub is known by its name (and its revision).
    assert content_identity(Path("own/model")) == "own/model"
