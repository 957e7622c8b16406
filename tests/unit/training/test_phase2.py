"""Phase 2: prompt cross-entropy through the frozen model, without a single answer token, beside its control."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentwire.adapter import Adapter, LinearBottleneck
from latentwire.codecs.families import load_codec
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.errors import InputError
from latentwire.files import write_json
from latentwire.packing import IGNORED, PackedDecoder, prompt_batch
from latentwire.resuming import checkpoint
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.settings import Phase2
from latentwire.training import memory, phase2
from latentwire.training.loop import batch_at
from latentwire.training.objectives import TokenRows, held_out_types, unique_tokens, weighted_error
from latentwire.training.phase2 import (
    PROMPT_TERMS,
    PromptScorer,
    prompt_inputs,
    prompt_loss_by_mention,
    repeated_mask,
    train_phase2,
)
from latentwire.training.run_bottleneck import save_bottleneck

K = 8
CPU = torch.device("cpu")
SETTINGS = Phase2(epochs=1, batch_size=8, calibration_batches=3, measure_prompts=5, lr=1e-3, warmup_fraction=0.1)


@pytest.fixture
def model(tiny_model):
    return tiny_model()


@pytest.fixture
def table_VD(model):
    return model.get_input_embeddings().weight.detach().clone()


@pytest.fixture
def compressor(table_VD, sequences):
    return EmbeddingCompressor(table_VD.shape[1], K).fit(table_VD, count_tokens(sequences, len(table_VD)))


def warm_adapter(compressor) -> Adapter:
    """Phase 1's adapter, or one that has moved as much."""
    torch.manual_seed(1)
    adapter = Adapter.from_compressor(compressor)
    torch.nn.init.normal_(adapter.mlp[-1].weight, std=0.02)
    return adapter


@pytest.fixture
def train(model, table_VD, compressor, sequences, label_masks):
    """Runs Phase 2 on 40 prompts with 8 held out, and returns the adapter, the diagnostics and the summary.

    It starts from Phase 1's adapter, or from another that reads ``codes_VK`` in the space of its own compressor.
    """

    def run(
        folder, settings=SETTINGS, *, model=model, control=None, objective="cross_entropy",
        adapter=None, codes_VK=None, compressor=compressor,
    ):  # fmt: skip
        adapter = adapter or warm_adapter(compressor)
        history, summary = train_phase2(
            adapter,
            None if settings.beta == 0 else model,
            sequences[:40],
            label_masks[:40],
            sequences[40:],
            label_masks[40:],
            table_VD,
            compressor.codes(table_VD) if codes_VK is None else codes_VK,
            compressor,
            settings,
            seed=0,
            checkpoints=Checkpoints(folder / "state"),
            diagnostics=folder / "diagnostics.jsonl",
            control=control,
            objective=objective,
        )
        return adapter, history, summary

    return run


@pytest.fixture
def steps_of(train, monkeypatch, tmp_path):
    """The adapter and the losses of single steps as Phase 2 hands them to the training loop; nothing is trained."""

    def captured(settings=SETTINGS, objective="cross_entropy"):
        found = SimpleNamespace()

        def train_adapter(adapter, loss_at, *, measure, steps, **options):
            found.adapter, found.loss_at, found.steps, found.options = adapter, loss_at, steps, options
            return [measure(0)]

        with monkeypatch.context() as patch:
            patch.setattr(phase2, "train_adapter", train_adapter)
            _, _, found.summary = train(
                tmp_path / f"{settings.alpha}-{settings.beta}-{objective}", settings, objective=objective
            )
        return found

    return captured


# Labels and inputs


def test_labels_are_the_prompts_own_tokens_and_nothing_on_padding_and_template_tokens(tokenizer, prompts):
    some = prompts.iloc[:6]
    batch = prompt_batch(list(some["input_ids"]), list(some["label_mask"]))
    lengths = [len(ids) for ids in some["input_ids"]]
    assert len(set(lengths)) > 1  # or padding would not be tested
    for row, length in enumerate(lengths):
        assert batch.mask_BL[row].tolist() == [1] * length + [0] * (batch.mask_BL.shape[1] - length)
        assert (batch.labels_BL[row, length:] == IGNORED).all()
        labelled = batch.labels_BL[row] != IGNORED
        assert torch.equal(batch.labels_BL[row][labelled], batch.ids_BL[row][labelled])
        source = some["source"].iloc[row]
        content = source.removeprefix("Context:").replace("\nQuestion:", "").removesuffix("\n")
        assert tokenizer.decode(batch.labels_BL[row][labelled]) == content
        assert not set(batch.labels_BL[row][labelled].tolist()) & set(tokenizer.all_special_ids)


def test_no_answer_token_enters_a_prompt(tokenizer, prompts):
    for source, ids in zip(prompts["source"], prompts["input_ids"], strict=True):
        assert tokenizer.decode(ids) == f"<|begin|><|user|>{source}<|end|><|assistant|>"


@pytest.mark.parametrize("objective", PROMPT_TERMS)
def test_training_reads_the_prepared_prompts_and_nothing_else(train, tmp_path, monkeypatch, sequences, objective):
    """Neither rebuilt nor, as a teacher, in the original embeddings."""
    seen = []
    hidden = PackedDecoder.hidden

    def observed(decoder, inputs_BLD, batch):
        assert inputs_BLD.shape[:2] == batch.ids_BL.shape
        seen.extend(tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch.ids_BL, batch.mask_BL, strict=True))
        return hidden(decoder, inputs_BLD, batch)

    monkeypatch.setattr(PackedDecoder, "hidden", observed)
    train(tmp_path, objective=objective)
    assert set(seen) == {tuple(ids.tolist()) for ids in [*sequences[:40], *sequences[40:45]]}


def test_a_repeated_token_occurs_earlier_in_its_own_prompt():
    batch = prompt_batch([np.array([5, 7, 5, 9, 7]), np.array([7, 7])], [np.array([1, 1, 1, 0, 1]), np.array([1, 1])])
    assert batch.labels_BL[:, 1:].tolist() == [[7, 5, IGNORED, 7], [7, IGNORED, IGNORED, IGNORED]]
    assert repeated_mask(batch).tolist() == [False, True, True, True]


# Cross-entropy


@pytest.fixture
def batch(sequences, label_masks):
    return prompt_batch(sequences[:4], label_masks[:4])


@pytest.mark.parametrize("bias", [False, True])
def test_the_chunked_loss_is_the_plain_cross_entropy_also_in_its_gradient(model, table_VD, batch, bias):
    if bias:
        model.lm_head.bias = torch.nn.Parameter(torch.randn(len(table_VD)), requires_grad=False)
    inputs_BLD = table_VD[batch.ids_BL].requires_grad_()
    reader = PromptScorer(model)
    loss = reader.cross_entropy(inputs_BLD, batch)
    (gradient_BLD,) = torch.autograd.grad(loss, inputs_BLD)
    logits_BLV = model(inputs_embeds=inputs_BLD, attention_mask=batch.mask_BL).logits
    labels_N, logits_NV = batch.labels_BL[:, 1:].flatten(), logits_BLV[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED)
    (expected_BLD,) = torch.autograd.grad(expected, inputs_BLD)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient_BLD, expected_BLD, atol=1e-6, rtol=1e-4)
    assert (gradient_BLD[batch.mask_BL == 0] == 0).all()
    each_N = reader.cross_entropy(inputs_BLD, batch, "none")
    torch.testing.assert_close(each_N, F.cross_entropy(logits_NV, labels_N, reduction="none")[labels_N != IGNORED])


def test_the_mask_is_explicit(model, table_VD, batch, monkeypatch):
    masks, forward = [], model.model.forward

    def observed(*arguments, attention_mask, **keywords):
        masks.append(attention_mask)
        return forward(*arguments, attention_mask=attention_mask, **keywords)

    monkeypatch.setattr(model.model, "forward", observed)
    PromptScorer(model).cross_entropy(table_VD[batch.ids_BL], batch)
    assert torch.equal(masks[0], batch.mask_BL)


def test_a_padded_batch_gives_what_each_prompt_gives_alone(model, table_VD, sequences, label_masks):
    reader = PromptScorer(model)
    chosen = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))[:: len(sequences) // 5]
    assert len({len(sequences[index]) for index in chosen}) > 2
    batch = prompt_batch([sequences[i] for i in chosen], [label_masks[i] for i in chosen])
    together_N = reader.cross_entropy(table_VD[batch.ids_BL], batch, "none")
    alone = []
    for index in chosen:
        single = prompt_batch([sequences[index]], [label_masks[index]])
        alone.append(reader.cross_entropy(table_VD[single.ids_BL], single, "none"))
    torch.testing.assert_close(together_N, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reader.cross_entropy(table_VD[batch.ids_BL], batch), torch.cat(alone).mean())


def test_the_texts_loss_is_the_models_own_on_the_token_ids(model, train, tmp_path, sequences, label_masks):
    _, _, summary = train(tmp_path)
    losses = []
    for ids, mask in zip(sequences[40:45], label_masks[40:45], strict=True):
        tokens = torch.from_numpy(ids).long()
        logits = model(input_ids=tokens[None]).logits[0, :-1]
        losses.append(F.cross_entropy(logits, tokens[1:], reduction="none")[torch.from_numpy(mask[1:])])
    assert summary["prompt_loss"]["text"]["all"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert summary["prompt_loss"]["prompts"] == 5


def test_first_and_repeated_mentions_average_to_all(model, table_VD, batch):
    reader = PromptScorer(model)
    found = prompt_loss_by_mention(reader, [batch, batch], lambda own: table_VD[own.ids_BL])
    share = float(repeated_mask(batch).float().mean())
    assert 0 < share < 1
    assert found["all"] == pytest.approx(share * found["repeated"] + (1 - share) * found["first"], rel=1e-6)


def test_where_no_token_is_repeated_the_group_is_left_out_and_no_nan_is_written(model, table_VD, tmp_path):
    batch = prompt_batch([np.array([1, 2, 3])], [np.array([True] * 3)])
    found = prompt_loss_by_mention(PromptScorer(model), [batch], lambda own: table_VD[own.ids_BL])
    assert found.keys() == {"all", "first"}
    write_json(tmp_path / "summary.json", found)


def test_a_tied_output_head_keeps_the_original_table(tiny_model, batch):
    model = tiny_model(tie_word_embeddings=True)
    table_VD = model.get_input_embeddings().weight
    original_VD = table_VD.clone()
    inputs_BLD = table_VD[batch.ids_BL] + 0.1 * torch.randn(*batch.ids_BL.shape, table_VD.shape[1])
    loss = PromptScorer(model).cross_entropy(inputs_BLD, batch)
    hidden_BLD = model.model(inputs_embeds=inputs_BLD, attention_mask=batch.mask_BL).last_hidden_state
    expected = F.cross_entropy((hidden_BLD @ original_VD.T)[:, :-1].flatten(0, 1), batch.labels_BL[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    assert torch.equal(table_VD, original_VD)


def test_gathered_inputs_are_each_tokens_row_and_padding_costs_nothing():
    ids_U, rows_UD = torch.tensor([2, 5, 9]), torch.tensor([[2.0], [5.0], [9.0]])
    inputs_BLD = prompt_inputs(rows_UD, ids_U, torch.tensor([[9, 2, 2], [5, 99, 0]]))
    assert inputs_BLD[0].flatten().tolist() == [9, 2, 2]
    assert inputs_BLD[1, 0].item() == 5
    # The meta device stands for a GPU: it refuses to mix with CPU tensors.
    assert prompt_inputs(rows_UD.to("meta"), ids_U, torch.tensor([[9, 2]])).shape == (1, 2, 1)


@pytest.mark.parametrize("name", ["final_logit_softcapping", "logits_scaling", "logit_scale"])
def test_a_model_that_rescales_its_logits_is_refused(model, name):
    setattr(model.config, name, 30.0)
    with pytest.raises(InputError, match=rf"rescales its logits \({name}\)"):
        PromptScorer(model)


# Distillation


def test_the_divergence_is_kl_div_of_the_models_own_logits_also_in_its_gradient(model, table_VD, batch):
    original_BLD = table_VD[batch.ids_BL]
    inputs_BLD = (original_BLD + 0.1 * torch.randn(original_BLD.shape)).requires_grad_()
    reader = PromptScorer(model)
    loss = reader.divergence(inputs_BLD, original_BLD, batch)
    (gradient_BLD,) = torch.autograd.grad(loss, inputs_BLD)
    text_NV, own_NV = (
        model(inputs_embeds=own_BLD, attention_mask=batch.mask_BL).logits[:, :-1].flatten(0, 1).log_softmax(dim=1)
        for own_BLD in (original_BLD, inputs_BLD)
    )
    asked_N = batch.labels_BL[:, 1:].flatten() != IGNORED
    expected = F.kl_div(own_NV[asked_N], text_NV[asked_N], reduction="batchmean", log_target=True)
    (expected_BLD,) = torch.autograd.grad(expected, inputs_BLD)
    assert expected > 1e-3
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradient_BLD, expected_BLD, atol=1e-6, rtol=1e-3)
    each_N = reader.divergence(inputs_BLD, original_BLD, batch, "none")
    assert len(each_N) == int(asked_N.sum()) and each_N.mean().item() == pytest.approx(loss.item(), rel=1e-5)
    assert reader.divergence(inputs_BLD, original_BLD, batch, "sum").item() == pytest.approx(
        each_N.sum().item(), rel=1e-5
    )


def test_the_original_embeddings_distil_to_nothing(model, table_VD, batch):
    original_BLD = table_VD[batch.ids_BL]
    inputs_BLD = original_BLD.clone().requires_grad_()
    loss_N = PromptScorer(model).divergence(inputs_BLD, original_BLD, batch, "none")
    (gradient_BLD,) = torch.autograd.grad(loss_N.sum(), inputs_BLD)
    assert (loss_N == 0).all() and (gradient_BLD == 0).all()


def test_a_distilled_step_agrees_with_float64_autograd_one_prompt_at_a_time(
    steps_of, tiny_model, compressor, table_VD, sequences, label_masks
):
    found = steps_of(objective="distillation")
    losses = found.loss_at(2)
    losses["loss"].backward()

    reference, frozen = warm_adapter(compressor).double(), tiny_model().double()
    codes_VK = compressor.compress(table_VD).double()
    target_VD = (table_VD.double() - compressor.mean_D.double()) / compressor.scale.double()
    divergences, squared = [], []
    for index in batch_at(2, 40, 8, seed=0).tolist():
        tokens = torch.from_numpy(sequences[index]).long()
        squared.append((reference.standardised(codes_VK[tokens]) - target_VD[tokens]).square())
        text, own = (
            frozen(inputs_embeds=rows[None]).logits[0, :-1].log_softmax(dim=1)
            for rows in (table_VD.double()[tokens], reference(codes_VK[tokens]))
        )
        each = F.kl_div(own, text.detach(), reduction="none", log_target=True).sum(dim=1)
        divergences.append(each[torch.from_numpy(label_masks[index][1:])])
    calibration = found.summary["calibration"]
    reconstruction, divergence = torch.cat(squared).mean(), torch.cat(divergences).mean()
    (calibration["alpha"] * reconstruction + calibration["beta"] * divergence).backward()

    assert losses.keys() == {"loss", "reconstruction", "divergence"}
    assert losses["divergence"].item() == pytest.approx(divergence.item(), rel=1e-4)
    for (name, ours), theirs in zip(found.adapter.named_parameters(), reference.parameters(), strict=True):
        largest = float(theirs.grad.abs().max())
        torch.testing.assert_close(
            ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4 * largest, msg=lambda m, name=name: name + m
        )


def test_distillation_is_balanced_as_phase_2_is_and_sees_the_same_data(steps_of):
    phase, distilled = steps_of(), steps_of(objective="distillation")
    calibration = distilled.summary["calibration"]
    assert calibration["alpha"] == phase.summary["calibration"]["alpha"]
    assert distilled.steps == phase.steps and distilled.options["settings"] == phase.options["settings"]
    losses = [distilled.loss_at(step) for step in range(SETTINGS.calibration_batches)]
    assert np.mean([calibration["beta"] * step["divergence"].item() for step in losses]) == pytest.approx(1, rel=1e-5)
    for step, own in enumerate(losses):
        assert torch.equal(own["reconstruction"], phase.loss_at(step)["reconstruction"])


def test_distillation_moves_the_models_predictions_back_to_the_originals(
    model, train, tmp_path, table_VD, compressor, sequences, label_masks
):
    """Further than the same steps on cross-entropy do, on held-out prompts."""
    settings = SETTINGS.model_copy(update={"epochs": 4})
    held_out, codes_VK = prompt_batch(sequences[40:], label_masks[40:]), compressor.codes(table_VD)

    @torch.no_grad()
    def divergence(adapter):
        original_BLD = table_VD[held_out.ids_BL]
        return PromptScorer(model).divergence(adapter(codes_VK)[held_out.ids_BL], original_BLD, held_out).item()

    found = {name: divergence(train(tmp_path / name, settings, objective=name)[0]) for name in PROMPT_TERMS}
    assert found["distillation"] < found["cross_entropy"]
    assert found["distillation"] < divergence(warm_adapter(compressor))


# Uncompressed


def test_from_the_identity_it_starts_at_the_text_and_cross_entropy_alone_goes_below(
    train, table_VD, sequences, tmp_path
):
    whole = EmbeddingCompressor(table_VD.shape[1], table_VD.shape[1], "identity")
    whole.fit(table_VD, count_tokens(sequences, len(table_VD)))
    torch.manual_seed(1)
    settings = SETTINGS.model_copy(update={"alpha": 0.0, "epochs": 4})
    _, history, summary = train(tmp_path, settings, adapter=Adapter.from_compressor(whole), compressor=whole)
    loss, calibration = summary["prompt_loss"], summary["calibration"]
    assert loss["start"] == loss["text"] and loss["end"]["all"] < loss["text"]["all"]
    assert (calibration["reconstruction"], calibration["alpha"]) == (0, 0) and calibration["beta"] > 0
    assert history[0]["recon_fvu"] == 0 < history[-1]["recon_fvu"]


# The linear bottleneck


def test_a_bottleneck_starts_as_pca_trains_both_maps_and_is_stored_as_a_linear_codec(
    train, table_VD, compressor, tmp_path
):
    bottleneck = LinearBottleneck(compressor)
    rows_VD, everything = compressor.standardise(table_VD), torch.arange(len(table_VD))
    with torch.no_grad():
        torch.testing.assert_close(bottleneck(rows_VD), compressor.decompress(compressor.compress(table_VD)))
    settings = SETTINGS.model_copy(update={"epochs": 4})
    _, _, summary = train(tmp_path, settings, adapter=bottleneck, codes_VK=rows_VD)
    assert summary["prompt_loss"]["end"]["all"] < summary["prompt_loss"]["start"]["all"]
    assert summary["calibration"]["beta"] > 0
    assert not torch.equal(bottleneck.encoder.weight, compressor.components_KD)
    assert not torch.equal(bottleneck.decoder.weight, compressor.components_KD.T)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        save_bottleneck(tmp_path / str(dtype), bottleneck, rows_VD, dtype)
        codec = load_codec(tmp_path / str(dtype))
        assert isinstance(codec, LinearCodec) and codec.codes_VK.dtype == dtype
        assert codec.codes_VK.shape == (len(table_VD), K)
        with torch.no_grad():
            rebuilt_VD = bottleneck(rows_VD)
        torch.testing.assert_close(
            codec.decode(everything), rebuilt_VD, rtol=0, atol=tolerance * float(rebuilt_VD.abs().max())
        )


# A step


@pytest.mark.parametrize("beta", ["auto", 0.5])
def test_loss_and_gradient_agree_with_float64_autograd_one_prompt_at_a_time(
    steps_of, tiny_model, compressor, table_VD, sequences, label_masks, beta
):
    """Every occurrence is gathered and every prompt read alone, in float64; float32 agrees to 1e-4 of the largest entry."""
    found = steps_of(SETTINGS.model_copy(update={"beta": beta}))
    losses = found.loss_at(2)
    losses["loss"].backward()

    reference, frozen = warm_adapter(compressor).double(), tiny_model().double()
    codes_VK = compressor.compress(table_VD).double()
    target_VD = (table_VD.double() - compressor.mean_D.double()) / compressor.scale.double()
    predicted, squared = [], []
    for index in batch_at(2, 40, 8, seed=0).tolist():
        tokens = torch.from_numpy(sequences[index]).long()
        squared.append((reference.standardised(codes_VK[tokens]) - target_VD[tokens]).square())
        logits = frozen(inputs_embeds=reference(codes_VK[tokens])[None]).logits[0, :-1]
        each = F.cross_entropy(logits, tokens[1:], reduction="none")
        predicted.append(each[torch.from_numpy(label_masks[index][1:])])
    calibration = found.summary["calibration"]
    reconstruction, prompt_loss = torch.cat(squared).mean(), torch.cat(predicted).mean()
    expected = calibration["alpha"] * reconstruction + calibration["beta"] * prompt_loss
    expected.backward()

    assert losses["reconstruction"].item() == pytest.approx(reconstruction.item(), rel=1e-5)
    assert losses["prompt_loss"].item() == pytest.approx(prompt_loss.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, ours), theirs in zip(found.adapter.named_parameters(), reference.parameters(), strict=True):
        largest = float(theirs.grad.abs().max())
        torch.testing.assert_close(
            ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4 * largest, msg=lambda m, name=name: name + m
        )


def test_alpha_and_beta_are_one_over_the_mean_losses_at_the_start(steps_of, compressor, table_VD, sequences):
    calibration = steps_of().summary["calibration"]
    assert calibration["alpha"] == pytest.approx(1 / calibration["reconstruction"])
    assert calibration["beta"] == pytest.approx(1 / calibration["prompt_loss"])
    rows, adapter, losses = (
        TokenRows(table_VD, compressor.codes(table_VD), compressor, torch.arange(len(table_VD)), CPU),
        warm_adapter(compressor),
        [],
    )
    for step in range(3):
        ids_U, counts_U = unique_tokens([sequences[index] for index in batch_at(step, 40, 8, seed=0).tolist()])
        codes_UK, target_UD = rows.of(ids_U)
        losses.append(weighted_error(adapter.standardised(codes_UK), target_UD, counts_U).item())
    assert calibration["reconstruction"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_at_the_start_both_terms_weigh_one_on_average(steps_of):
    found = steps_of()
    losses = [found.loss_at(step) for step in range(SETTINGS.calibration_batches)]
    alpha, beta = found.summary["calibration"]["alpha"], found.summary["calibration"]["beta"]
    assert np.mean([alpha * step["reconstruction"].item() for step in losses]) == pytest.approx(1, rel=1e-5)
    assert np.mean([beta * step["prompt_loss"].item() for step in losses]) == pytest.approx(1, rel=1e-5)


def test_the_gradient_norms_at_calibration_are_those_of_the_unweighted_losses(steps_of):
    found = steps_of(SETTINGS.model_copy(update={"calibration_batches": 1}))
    calibration, losses = found.summary["calibration"], found.loss_at(0)
    for name, norm in [
        ("reconstruction", "gradient_norm_reconstruction"),
        ("prompt_loss", "gradient_norm_prompt_loss"),
    ]:
        gradients = torch.autograd.grad(losses[name], list(found.adapter.parameters()), retain_graph=True)
        assert calibration[norm] == pytest.approx(float(torch.cat([g.flatten() for g in gradients]).norm()), rel=1e-4)


def test_weights_that_are_set_are_used_as_they_are(steps_of):
    found = steps_of(SETTINGS.model_copy(update={"alpha": 2.0, "beta": 0.25}))
    losses = found.loss_at(0)
    expected = 2 * losses["reconstruction"].item() + 0.25 * losses["prompt_loss"].item()
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_the_control_has_the_same_data_steps_and_alpha_and_no_prompt_loss(steps_of):
    phase, control = steps_of(), steps_of(SETTINGS.model_copy(update={"beta": 0.0}))
    assert control.summary["calibration"]["alpha"] == phase.summary["calibration"]["alpha"]
    assert control.summary["calibration"]["beta"] == 0
    assert control.summary["calibration"]["prompt_loss"] is None and "prompt_loss" not in control.summary
    assert control.steps == phase.steps == 5
    assert control.options["settings"] == phase.options["settings"].model_copy(update={"beta": 0.0})
    for step in range(5):
        ours, theirs = control.loss_at(step), phase.loss_at(step)
        assert ours.keys() == {"loss", "reconstruction"}
        assert torch.equal(ours["reconstruction"], theirs["reconstruction"])
        assert torch.equal(ours["loss"], control.summary["calibration"]["alpha"] * ours["reconstruction"])


def test_the_control_measured_beside_phase_2_is_what_its_adapter_gives(train, tmp_path, compressor):
    """Before any step, Phase 1's adapter as the control gives the loss at the start."""
    _, _, summary = train(tmp_path, control=warm_adapter(compressor))
    assert summary["prompt_loss"]["control"] == summary["prompt_loss"]["start"]


def test_the_control_takes_no_model_and_phase_2_needs_one(train, tmp_path, model):
    with pytest.raises(ValueError, match="Phase 2 needs one"):
        train(tmp_path, model=None)


# A run


def test_the_language_model_gets_no_gradient_and_is_left_as_it_is(model, train, tmp_path):
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(tmp_path)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None, name
        assert torch.equal(parameter, before[name]), name


def test_training_lowers_the_prompts_loss_and_the_control_goes_elsewhere(train, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 4})
    control, control_history, _ = train(tmp_path / "control", settings.model_copy(update={"beta": 0.0}))
    adapter, history, summary = train(tmp_path / "phase2", settings, control=control)
    loss = summary["prompt_loss"]
    assert loss["end"]["all"] < loss["start"]["all"]
    assert history[0]["prompt_loss_all"] == loss["start"]["all"]
    assert history[-1]["prompt_loss_all"] == loss["end"]["all"] < loss["control"]["all"]
    assert "prompt_loss_all" not in control_history[-1]
    assert not torch.equal(adapter.linear.weight, control.linear.weight)
    assert "train_prompt_loss" in history[-1] and "train_prompt_loss" not in control_history[-1]


@pytest.mark.parametrize("beta", ["auto", 0.0])
def test_killed_and_started_again_it_gives_the_same_bits(train, tmp_path, monkeypatch, beta):
    settings = SETTINGS.model_copy(update={"beta": beta, "epochs": 2})
    straight, history, summary = train(tmp_path / "straight", settings)
    real, calls = phase2.batch_at, []

    def killed(step, *arguments):
        calls.append(step)
        if len(calls) == SETTINGS.calibration_batches + 7:
            raise KeyboardInterrupt
        return real(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(phase2, "batch_at", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken", settings)
    assert list((tmp_path / "broken" / "state").iterdir())
    with monkeypatch.context() as patch:
        # Its calibration is kept too: on a GPU another one would differ in the last digits.
        patch.delattr(phase2, "_calibrate")
        continued, continued_history, continued_summary = train(tmp_path / "broken", settings)
    assert (continued_history, continued_summary) == (history, summary)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(continued.state_dict()[name], tensor), name
    assert (tmp_path / "broken/diagnostics.jsonl").read_bytes() == (
        tmp_path / "straight/diagnostics.jsonl"
    ).read_bytes()


# Memory


@pytest.fixture
def scarce(monkeypatch):
    """Lets a batch of more than so many prompts be too much, in steps or in measurements; returns what was refused."""
    monkeypatch.setattr(phase2, "_in_parts", lambda device, processes: True)
    monkeypatch.setattr(memory, "MICRO_BATCH_TOKENS", 1000)
    cross_entropy, refused = PromptScorer.cross_entropy, []

    def limit(*, steps=8, measurements=8):
        def limited(self, inputs_BLD, batch, reduction="mean"):
            prompts = int(batch.owner_BL.max()) + 1
            if prompts > (steps if torch.is_grad_enabled() else measurements):
                refused.append(prompts)
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return cross_entropy(self, inputs_BLD, batch, reduction)

        monkeypatch.setattr(PromptScorer, "cross_entropy", limited)
        return refused

    return limit


def test_held_out_prompts_are_measured_in_micro_batches_if_memory_does_not_suffice(
    train, compressor, tmp_path, scarce, caplog
):
    adapter, history, summary = train(tmp_path / "all", control=(control := warm_adapter(compressor)))
    refused = scarce(measurements=2)
    frugal, parted, short = train(tmp_path / "frugal", control=control)
    assert 0 < len(refused) <= 4 and "micro-batches have at most" in caplog.messages[-1]
    assert len(parted) == len(history) and parted[0] == pytest.approx(history[0], rel=1e-5)
    assert parted[-1]["prompt_loss_all"] == pytest.approx(history[-1]["prompt_loss_all"], rel=1e-3)
    assert short["prompt_loss"].keys() == summary["prompt_loss"].keys()
    assert short["prompt_loss"]["text"] == pytest.approx(summary["prompt_loss"]["text"], rel=1e-5)
    for name, own in adapter.state_dict().items():  # the next steps are cut as the measurement was
        torch.testing.assert_close(frugal.state_dict()[name], own, rtol=1e-2, atol=1e-4)


def test_a_single_held_out_prompt_that_does_not_fit_is_an_error(train, tmp_path, scarce):
    scarce(measurements=0)
    with pytest.raises(torch.OutOfMemoryError):
        train(tmp_path)


def test_a_continued_run_has_the_micro_batches_that_it_had_and_the_bits_of_an_uninterrupted_one(
    train, tmp_path, scarce, monkeypatch
):
    refused = scarce(steps=3)
    straight, history, summary = train(tmp_path / "straight")
    learned = len(refused)
    real = phase2.batch_at

    def killed(step, *arguments):
        if step == SETTINGS.calibration_batches + 1:
            raise KeyboardInterrupt
        return real(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(phase2, "batch_at", killed)
        patch.setattr(checkpoint, "INTERVAL_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "broken")
    assert len(refused) == 2 * learned > 0
    continued, continued_history, continued_summary = train(tmp_path / "broken")
    assert len(refused) == 2 * learned, "nothing is tried in vain again"
    assert (continued_history, continued_summary) == (history, summary)
    for name, own in straight.state_dict().items():
        assert torch.equal(continued.state_dict()[name], own), name


@pytest.mark.parametrize("damage", [lambda text: text[:40], lambda text: text.replace("1", "2"), lambda _: "[]"])
def test_a_damaged_calibration_is_made_again(train, tmp_path, monkeypatch, caplog, damage):
    straight, history, summary = train(tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(phase2, "train_adapter", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "broken")
    kept = tmp_path / "broken/state/calibration.json"
    kept.write_text(damage(kept.read_text()))
    continued, continued_history, continued_summary = train(tmp_path / "broken")
    assert f"{kept} can't be read" in caplog.text
    assert (continued_history, continued_summary) == (history, summary)


@pytest.mark.parametrize("term", [0, 1])
def test_a_gradient_that_is_not_finite_is_found_before_the_first_step(train, tmp_path, monkeypatch, term):
    norms = itertools.cycle([math.nan, 1.0] if term == 0 else [1.0, math.nan])
    monkeypatch.setattr(phase2, "_gradient_norm", lambda *_, **__: next(norms))
    with pytest.raises(FloatingPointError, match="norms of their gradients .*nan.*; nothing was trained"):
        train(tmp_path)
    assert not (tmp_path / "state").exists()


def test_a_model_that_gives_nan_is_found_before_the_first_step(model, train, tmp_path):
    model.model.norm.weight[0] = torch.nan
    with pytest.raises(FloatingPointError, match="calibration: the mean losses are .*nan.*; nothing was trained"):
        train(tmp_path)
    assert not (tmp_path / "state").exists()


def test_a_bf16_model_trains_a_float32_adapter(tiny_model, train, tmp_path):
    adapter, history, _ = train(tmp_path, model=tiny_model(dtype=torch.bfloat16))
    assert adapter.linear.weight.dtype == torch.float32
    assert np.isfinite(history[-1]["prompt_loss_all"])


def test_the_summary_can_be_written_as_it_is(train, tmp_path, sequences, table_VD):
    _, history, summary = train(tmp_path)
    write_json(tmp_path / "summary.json", {**summary, "end": history[-1]})
    ids_U, counts_U = held_out_types(sequences[40:], len(table_VD))
    assert int(counts_U.sum()) == sum(map(len, sequences[40:]))
    assert torch.equal(ids_U, ids_U.unique())
