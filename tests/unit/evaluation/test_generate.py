"""Decoding: embeddings answer as text does, batches as single prompts, and the checkpoint's habits change nothing."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import (
    BartConfig,
    BartForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from latentwire.adapter import Adapter
from latentwire.attention import attends_by_position
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.errors import InputError
from latentwire.evaluation.generate import (
    Answer,
    Decoder,
    NewlineAfterText,
    end_of_turn,
    first_line,
    generate_answers,
    has_second_line,
    padded_embeddings,
    padding_is_harmless,
)
from latentwire.evaluation.prefixes import prefix_runs
from latentwire.lm import load_model

CAP = 8


def all_types(sequences) -> torch.Tensor:
    return torch.from_numpy(np.unique(np.concatenate(sequences))).long()


def spied(model, monkeypatch) -> list:
    """Every call of ``model.generate``: its keywords, and what it returned under ``generated``."""
    calls, generate = [], model.generate

    def observed(**keywords):
        generated = generate(**keywords)
        calls.append({**keywords, "generated": generated})
        return generated

    monkeypatch.setattr(model, "generate", observed)
    return calls


# A prompt given as embeddings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_the_original_embeddings_give_the_texts_answers_token_for_token(
    tiny_model, tokenizer, sequences, monkeypatch, dtype, tied
):
    model = tiny_model(dtype=dtype, tie_word_embeddings=tied)
    calls = spied(model, monkeypatch)
    decoder, ids_U = Decoder(model, tokenizer, CAP), all_types(sequences)
    chosen = sequences[::3][:6]  # of six contexts
    text = decoder.answers(chosen)
    identity = decoder.answers(chosen, model.get_input_embeddings().weight[ids_U], ids_U)
    assert identity == text
    longest = max(map(len, chosen))
    assert torch.equal(calls[1]["generated"], calls[0]["generated"][:, longest:])
    assert len({answer.text for answer in text}) > 1  # the answers depend on the prompt, or nothing was tested


@pytest.mark.parametrize("given_as", ["text", "embeddings"])
def test_a_batch_answers_as_each_prompt_alone(tiny_model, tokenizer, sequences, given_as):
    model = tiny_model()
    decoder, ids_U = Decoder(model, tokenizer, CAP), all_types(sequences)
    rebuilt = () if given_as == "text" else (model.get_input_embeddings().weight[ids_U], ids_U)
    chosen = [sequences[i] for i in np.argsort([len(ids) for ids in sequences])[::8]]
    assert len({len(ids) for ids in chosen}) > 3
    alone = [decoder.answers([ids], *rebuilt)[0] for ids in chosen]
    assert decoder.answers(chosen, *rebuilt) == alone
    assert len({answer.text for answer in alone}) > 1


def test_the_prompt_is_the_adapters_output_for_its_codes_left_padded_under_a_mask(
    tiny_model, tokenizer, sequences, monkeypatch
):
    model, chosen = tiny_model(), sequences[::3][:5]  # of five contexts
    table_VD = model.get_input_embeddings().weight
    compressor = EmbeddingCompressor(32, 8).fit(table_VD)
    torch.manual_seed(0)
    adapter = Adapter.from_compressor(compressor)
    torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.1)
    ids_U, calls = all_types(sequences), spied(model, monkeypatch)
    with torch.no_grad():
        rebuilt_UD = adapter(compressor.compress(table_VD[ids_U]))
        Decoder(model, tokenizer, CAP).answers(chosen, rebuilt_UD, ids_U)
        length = max(len(ids) for ids in chosen)
        for row, ids in enumerate(chosen):
            expected_LD = adapter(compressor.compress(table_VD[torch.from_numpy(ids).long()]))
            torch.testing.assert_close(calls[0]["inputs_embeds"][row, length - len(ids) :], expected_LD)
            assert not calls[0]["inputs_embeds"][row, : length - len(ids)].any()
            mask_L = calls[0]["attention_mask"][row]
            assert mask_L.tolist() == [0] * (length - len(ids)) + [1] * len(ids)
    assert "input_ids" not in calls[0]


def test_rebuilt_rows_on_a_gpu_meet_ids_and_mask_from_the_cpu():
    """The meta device stands for the GPU: it refuses to mix with CPU tensors."""
    rows_UD, ids_U, ids_BL = torch.zeros(3, 4, device="meta"), torch.tensor([1, 5, 9]), torch.tensor([[0, 9], [1, 5]])
    embeddings_BLD = padded_embeddings(rows_UD, ids_U, ids_BL, torch.tensor([[0, 1], [1, 1]]))
    assert (embeddings_BLD.shape, embeddings_BLD.device.type) == ((2, 2, 4), "meta")


# Prompts that begin alike


@pytest.fixture
def alike(sequences) -> list[np.ndarray]:
    """Two contexts with three questions each, of different lengths, and a prompt with a context of its own."""
    chosen = [sequences[index] for index in (0, 1, 2, 9, 10, 11, 33)]
    runs = prefix_runs(chosen)
    assert runs.run_of == [0, 0, 0, 1, 1, 1, 2] and len(set(runs.shared)) > 1
    assert len({len(ids) - runs.shared[run] for ids, run in zip(chosen, runs.run_of, strict=True)}) > 2
    return chosen


def read_tokens(model, monkeypatch) -> list[tuple[int, int]]:
    """Shapes (rows, tokens) of what the model reads from here on."""
    shapes, forward = [], model.base_model.forward

    def observed(input_ids=None, inputs_embeds=None, **keywords):
        shapes.append((input_ids if inputs_embeds is None else inputs_embeds).shape[:2])
        return forward(input_ids=input_ids, inputs_embeds=inputs_embeds, **keywords)

    monkeypatch.setattr(model.base_model, "forward", observed)
    return shapes


@pytest.mark.parametrize("given_as", ["text", "embeddings"])
def test_a_shared_beginning_is_read_once_and_changes_no_answer(tiny_model, tokenizer, alike, monkeypatch, given_as):
    model = tiny_model()
    decoder, ids_U = Decoder(model, tokenizer, CAP), all_types(alike)
    rebuilt = () if given_as == "text" else (model.get_input_embeddings().weight[ids_U], ids_U)
    alone = [decoder.answers([ids], *rebuilt)[0] for ids in alike]
    shapes = read_tokens(model, monkeypatch)
    assert decoder.answers(alike, *rebuilt) == alone
    assert len({answer.text for answer in alone}) > 3
    shared = prefix_runs(alike).shared
    rest = max(len(ids) - shared[run] for ids, run in zip(alike, prefix_runs(alike).run_of, strict=True))
    assert shapes[:2] == [(3, max(shared)), (7, rest)]
    assert all(shape == (7, 1) for shape in shapes[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shared_beginnings_as_embeddings_give_the_texts_answers(tiny_model, tokenizer, alike, monkeypatch, dtype):
    model = tiny_model(dtype=dtype)
    decoder, ids_U, calls = Decoder(model, tokenizer, CAP), all_types(alike), spied(model, monkeypatch)
    text = decoder.answers(alike)
    assert decoder.answers(alike, model.get_input_embeddings().weight[ids_U], ids_U) == text
    of_text, of_embeddings = (call["generated"] for call in calls)
    assert torch.equal(of_embeddings, of_text[:, -of_embeddings.shape[1] :])


def test_padding_after_a_beginning_moves_no_position(tiny_model, tokenizer, alike):
    """In float64 the logits of a shared reading are those of each prompt alone, to rounding."""
    model = tiny_model(dtype=torch.float64)
    decoder, seen = Decoder(model, tokenizer, 1), []
    model.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits[:, -1]))
    decoder.answers(alike)
    together = seen[-1]
    for row, ids in enumerate(alike):
        decoder.answers([ids])
        torch.testing.assert_close(together[row], seen[-1][0], rtol=1e-9, atol=1e-9)


SIZE = {"hidden_size": 32, "num_attention_heads": 4, "initializer_range": 0.3}
SHAPE = SIZE | {"intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 2}
LOCAL = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16}


@pytest.mark.parametrize(
    ("build", "config"),
    [
        (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=16)),
        (GPTNeoForCausalLM, GPTNeoConfig(**SIZE, **LOCAL)),
    ],
    ids=["sliding window", "local layers"],
)
def test_layers_that_look_a_fixed_number_of_places_back_share_no_beginning(
    tokenizer, alike, monkeypatch, build, config
):
    """Padding between a beginning and the rest would move their window."""
    torch.manual_seed(0)
    config.vocab_size = len(tokenizer)
    model = build(config).eval().requires_grad_(False)
    decoder = Decoder(model, tokenizer, CAP)
    alone = [decoder.answers([ids])[0] for ids in alike]
    shapes = read_tokens(model, monkeypatch)
    assert decoder.answers(alike) == alone
    assert shapes[0] == (7, max(map(len, alike)))


@pytest.mark.parametrize(("kind", "shares"), [("default", True), ("linear", True), ("dynamic", False)])
def test_frequencies_that_follow_the_length_share_no_beginning(kind, shares):
    """A beginning that is read alone would be rotated as for its own length."""
    rope = {"rope_type": kind, "rope_theta": 1e4} | ({} if kind == "default" else {"factor": 4.0})
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=8, rope_parameters=rope))
    assert attends_by_position(model) == shares


def test_a_model_that_takes_no_positions_shares_no_beginning(tiny_model):
    model = tiny_model()
    assert attends_by_position(model)
    model.forward = lambda input_ids, attention_mask, past_key_values: None
    assert not attends_by_position(model)


# The checkpoint's own generation configuration

HABITS = {
    "temperature": {"do_sample": True, "temperature": 5.0, "top_p": 0.5, "top_k": 3},
    "repetition_penalty": {"repetition_penalty": 50.0},
    "max_length": {"max_length": 3},
    "max_new_tokens": {"max_new_tokens": 2},
    "min_new_tokens": {"min_new_tokens": CAP},
    "min_length": {"min_length": 500},
    "beams": {"num_beams": 4, "length_penalty": 3.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "stop_strings": {"stop_strings": [" "]},
    "return": {"return_dict_in_generate": True, "num_return_sequences": 1},
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_checkpoints_own_habits_change_nothing(tiny_model, tokenizer, sequences, habit):
    expected = Decoder(tiny_model(), tokenizer, CAP).answers(sequences[:6])
    model = tiny_model()
    for name, value in HABITS[habit].items():
        setattr(model.generation_config, name, value)
    assert Decoder(model, tokenizer, CAP).answers(sequences[:6]) == expected


@pytest.mark.parametrize("name", ["begin_suppress_tokens", "suppress_tokens", "forced_bos_token_id", "bad_words_ids"])
def test_a_checkpoint_can_neither_forbid_nor_force_a_token(scripted_model, tokenizer, name):
    cue, word, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|assistant|>", "Ġmarine", "<|end|>"))
    model = scripted_model({cue: word, word: end})
    values = {"forced_bos_token_id": end, "bad_words_ids": [[word]]}
    setattr(model.generation_config, name, values.get(name, [word]))
    assert Decoder(model, tokenizer, CAP).answers([np.array([cue])]) == [Answer("marine", 1, "stop")]


def test_further_ends_of_turn_that_the_checkpoint_lists_still_end_answers(scripted_model, tokenizer):
    cue, word, further = (tokenizer.convert_tokens_to_ids(token) for token in ("<|assistant|>", "Ġmarine", "Ġpoet"))
    prompt = [np.array([cue])]
    model = scripted_model({cue: word, word: further, further: word})
    assert Decoder(model, tokenizer, CAP).answers(prompt)[0].finished == "length"
    for listed in (further, [tokenizer.eos_token_id, further]):
        model.generation_config.eos_token_id = listed
        for _ in range(2):  # a second decoder of the same model finds them too
            assert Decoder(model, tokenizer, CAP).answers(prompt) == [Answer("marine", 1, "stop")]


# Where an answer ends


@pytest.fixture
def script(scripted_model, tokenizer):
    """The answer of a model that writes the given tokens one after another, each at most once."""

    def answer(*tokens: str, cap: int = CAP, loop: bool = False, tokenizer=tokenizer) -> Answer:
        ids = [tokenizer.convert_tokens_to_ids(token) for token in ("<|assistant|>", *tokens)]
        successor = dict(zip(ids, ids[1:], strict=False))
        if loop:
            successor[ids[-1]] = ids[-1]
        return Decoder(scripted_model(successor), tokenizer, cap).answers([np.array(ids[:1])])[0]

    return answer


def test_the_end_of_turn_ends_an_answer_and_is_not_in_it(script):
    assert script("Ġmarine", "Ġpoet", "<|end|>") == Answer("marine poet", 2, "stop")


def test_an_answer_may_be_empty(script):
    assert script("<|end|>") == Answer("", 0, "stop")


def test_a_newline_after_text_ends_an_answer(script):
    assert script("Ġmarine", "Ċ") == Answer("marine", 2, "stop")


def test_a_leading_newline_does_not_end_an_answer_before_it_began(script):
    assert script("Ċ", "Ġmarine", "<|end|>") == Answer("marine", 2, "stop")
    assert script("Ġ", "Ċ", "Ġmarine", "<|end|>") == Answer("marine", 3, "stop")


def test_newlines_alone_run_into_the_cap_and_are_an_empty_answer(script):
    assert script("Ċ", loop=True) == Answer("", CAP, "length")


def test_an_answer_that_never_ends_is_cut_at_the_cap_and_says_so(script):
    assert script("Ġmarine", loop=True, cap=5) == Answer(" ".join(["marine"] * 5), 5, "length")


def test_an_answer_that_ends_with_its_last_allowed_token_is_not_called_cut(script):
    assert script("Ġmarine", "Ġpoet", "<|end|>", cap=3) == Answer("marine poet", 2, "stop")
    assert script("Ġmarine", "Ġpoet", "Ċ", cap=3) == Answer("marine poet", 3, "stop")
    assert script("Ġmarine", "Ġpoet", "<|end|>", cap=2) == Answer("marine poet", 2, "length")


def test_a_padding_token_that_is_the_end_of_turn_changes_nothing(script, tokenizer):
    own = copy.deepcopy(tokenizer)
    own.pad_token = own.eos_token
    assert script("Ġmarine", "<|end|>", tokenizer=own) == Answer("marine", 1, "stop")


def test_answers_that_end_early_wait_for_the_others_of_their_batch(scripted_model, tokenizer):
    words = ["Ġmarine", "Ġpoet", "Ġrural", "Ġtailor", "Ġbrass"]
    first, second, third, fourth, fifth = tokenizer.convert_tokens_to_ids(words)
    newline, end = tokenizer.convert_tokens_to_ids(["Ċ", "<|end|>"])
    model = scripted_model({first: end, second: newline, third: fourth, fourth: fifth, fifth: fifth})
    prompts = [np.array([last]) for last in (first, second, third)]
    answers = Decoder(model, tokenizer, 4).answers(prompts)
    # The second writes a newline only, and after it whatever the model makes of that: its cap.
    assert answers[0] == Answer("", 0, "stop")
    assert answers[2] == Answer("tailor brass brass brass", 4, "length")
    assert answers == [Decoder(model, tokenizer, 4).answers([prompt])[0] for prompt in prompts]


def test_the_newline_rule_sees_generated_text_only(tokenizer):
    ids = torch.tensor([tokenizer.encode("a\nb", add_special_tokens=False) + tokenizer.encode(" c")])
    assert not NewlineAfterText(tokenizer, prompt_length=3)(ids, None)
    assert NewlineAfterText(tokenizer, prompt_length=0)(ids, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" \n ", ""),
        ("Oslo", "Oslo"),
        ("\n\n Oslo \nBergen", "Oslo"),
        ("Oslo.\n", "Oslo."),
        ("a b\tc", "a b\tc"),
    ],
)
def test_an_answer_is_its_first_line_with_text(text, line):
    assert first_line(text) == line


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_a_line_ends_as_any_script_or_system_ends_it(end):
    assert first_line(f"{end}Oslo{end}Because") == "Oslo"
    assert has_second_line(f"Oslo{end}") and not has_second_line(f"{end}Oslo")


# Batches


def test_answers_come_with_the_index_of_their_prompt(tiny_model, tokenizer, sequences):
    decoder = Decoder(tiny_model(), tokenizer, 3)
    found = dict(generate_answers(decoder, sequences[:5], [[4, 1], [0, 2, 3]]))
    assert [found[index] for index in range(5)] == [decoder.answers([ids])[0] for ids in sequences[:5]]


# Attention masks


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_no_position_of_a_loaded_model_attends_to_nothing_and_nothing_else_changes(
    tiny_model, tokenizer, sequences, tmp_path, monkeypatch, kv_heads
):
    tiny_model(num_key_value_heads=kv_heads).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), None, "float32", torch.device("cpu"))
    plain = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
    masks, attention = [], torch.nn.functional.scaled_dot_product_attention

    def observed(*arguments, attn_mask=None, **options):
        masks.append(attn_mask)
        return attention(*arguments, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", observed)
    prompts = sequences[:4]
    answers = Decoder(loaded, tokenizer, CAP).answers(prompts)
    padded = [mask for mask in masks if mask is not None]
    assert padded and all(mask.any(dim=-1).all() for mask in padded)
    masks.clear()
    assert Decoder(plain, tokenizer, CAP).answers(prompts) == answers
    assert not all(mask.any(dim=-1).all() for mask in masks if mask is not None)  # what is avoided does happen

    length = max(map(len, prompts))
    ids_BL, mask_BL = torch.zeros(2, 4, length, dtype=torch.int64)
    for row, ids in enumerate(prompts):
        ids_BL[row, length - len(ids) :], mask_BL[row, length - len(ids) :] = torch.from_numpy(ids), 1
    ours, theirs = (model(input_ids=ids_BL, attention_mask=mask_BL).logits for model in (loaded, plain))
    assert torch.equal(ours[mask_BL.bool()], theirs[mask_BL.bool()])


# What would be a wrong number without a word


def test_the_token_with_which_the_template_ends_a_turn_ends_an_answer(scripted_model, tokenizer):
    """Neither the tokenizer nor the generation configuration names it."""
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|next|>"]})
    own.chat_template = "{% for m in messages %}<|next|>{{ m.role }}\n{{ m.content }}<|turn|>\n{% endfor %}"
    assert end_of_turn(own) == own.convert_tokens_to_ids("<|turn|>")
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|end|>")
    (first,) = tokenizer.convert_tokens_to_ids(["Ġmarine"])
    model = scripted_model({first: first})
    assert own.convert_tokens_to_ids("<|turn|>") in Decoder(model, own, 2).settings.eos_token_id


@pytest.mark.parametrize("special", [True, False])
def test_an_end_of_turn_may_be_an_ordinary_added_token(scripted_model, tokenizer, special, caplog):
    own = copy.deepcopy(tokenizer)
    marine, turn = tokenizer.convert_tokens_to_ids(["Ġmarine", "Ġpoet"])
    own.add_tokens([AddedToken("Ġpoet", special=special)], special_tokens=special)
    own.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}Ġpoet\n{% endfor %}"
    assert end_of_turn(own) == turn == own.convert_tokens_to_ids("Ġpoet")
    model = scripted_model({marine: marine})
    assert Decoder(model, own, 2).settings.eos_token_id == sorted({turn, own.eos_token_id})
    assert not caplog.records
    model = scripted_model({tokenizer.convert_tokens_to_ids("<|assistant|>"): marine, marine: turn, turn: marine})
    cue = np.array([tokenizer.convert_tokens_to_ids("<|assistant|>")])
    assert Decoder(model, own, 5).answers([cue]) == [Answer("marine", 1, "stop")]


def test_a_template_without_an_end_of_turn_is_said(tokenizer, caplog):
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    own.add_tokens([AddedToken("\n\n", special=False)])  # white space is part of answers
    assert end_of_turn(own) is None
    assert "ends an answer with no token of its own" in caplog.text


def test_an_answer_is_cut_at_the_first_control_token(scripted_model, tokenizer):
    marine, poet = tokenizer.convert_tokens_to_ids(["Ġmarine", "Ġpoet"])
    speaker = tokenizer.convert_tokens_to_ids("<|assistant|>")
    model = scripted_model({marine: poet, poet: speaker, speaker: marine})
    (answer,) = Decoder(model, tokenizer, 5).answers([np.array([marine])])
    assert answer == Answer("poet", 1, "stop")


@pytest.mark.parametrize(("value", "refused"), [(float("nan"), True), (float("inf"), True), (-float("inf"), False)])
def test_logits_that_are_not_finite_are_an_error_and_tokens_that_are_ruled_out_are_not(
    tiny_model, tokenizer, sequences, value, refused
):
    model = tiny_model(tie_word_embeddings=False)
    decoder = Decoder(model, tokenizer, CAP)
    head = model.lm_head.forward
    model.lm_head.forward = lambda hidden: head(hidden).index_fill(-1, torch.tensor([7]), value)
    if refused:
        with pytest.raises(FloatingPointError, match="not finite in torch.float32: another model.dtype"):
            decoder.answers(sequences[:2])
    else:
        assert len(decoder.answers(sequences[:2])) == 2


def test_rebuilt_rows_that_are_not_finite_are_an_error(tiny_model, tokenizer, sequences):
    model, ids_U = tiny_model(), all_types(sequences)
    rows = model.get_input_embeddings().weight[ids_U].clone()
    rows[len(rows) // 2] = float("nan")
    with pytest.raises(FloatingPointError, match="rebuilt embeddings"):
        Decoder(model, tokenizer, CAP).answers(sequences, rows, ids_U)


def test_a_model_that_padding_confuses_reads_prompts_one_by_one(tokenizer, sequences, caplog):
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_position_embeddings=512, init_std=0.3, eos_token_id=tokenizer.eos_token_id, forced_eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, is_encoder_decoder=False,
    )  # fmt: skip
    model = BartForCausalLM(config).eval().requires_grad_(False)
    assert not padding_is_harmless(model)
    decoder = Decoder(model, tokenizer, CAP)
    assert "padding changes this model's answers" in caplog.text
    prompts = sequences[:3]
    assert decoder.answers(prompts) == [decoder.answers([prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_is_harmless_where_positions_come_from_the_mask(tiny_model, dtype):
    assert padding_is_harmless(tiny_model(dtype=dtype))
    config = GPTNeoConfig(
        vocab_size=300,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global"], 2]],
        initializer_range=0.3,
    )
    assert padding_is_harmless(GPTNeoForCausalLM(config).to(dtype).eval())


@pytest.mark.parametrize("given_as", ["ids", "embeddings"])
def test_behind_its_context_a_model_is_not_asked(tiny_model, tokenizer, sequences, given_as):
    """Rotary positions go on without an error, to answers that are wrong without a word."""
    context = max(map(len, sequences)) + 3
    model = tiny_model(max_position_embeddings=context)
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    rows = () if given_as == "ids" else (model.get_input_embeddings().weight[ids_U], ids_U)
    assert len(Decoder(model, tokenizer, 3).answers(sequences, *rows)) == len(sequences)
    with pytest.raises(InputError, match=rf"answer of 4 .*do not fit into the model's context of {context} tokens"):
        Decoder(model, tokenizer, 4).answers(sequences, *rows)


def test_padding_is_probed_within_a_context_of_20_tokens(tokenizer):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=20)
    assert Decoder(GPT2LMHeadModel(config).eval(), tokenizer, 4).batches


def test_a_padding_token_without_a_row_costs_nothing(tiny_model, tokenizer, sequences):
    own = copy.deepcopy(tokenizer)
    model = tiny_model()
    expected = Decoder(model, tokenizer, CAP).answers(sequences[:4])
    own.add_special_tokens({"pad_token": "[PAD]"})
    assert own.pad_token_id == model.get_input_embeddings().weight.shape[0]
    assert Decoder(tiny_model(), own, CAP).answers(sequences[:4]) == expected
