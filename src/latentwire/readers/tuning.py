"""Training a language model to answer SQuAD questions: LoRA or all weights, loss on the answer's tokens alone.

Shape suffixes: B sequences, L length, D embedding dimensions, N answer tokens, V vocabulary.
"""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from latentwire.configuration import content_identity
from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import read_squad_json
from latentwire.device import described
from latentwire.errors import InputError
from latentwire.files import atomic_path, sha256_of, write_json
from latentwire.fingerprint import fingerprint
from latentwire.lm import load_model, load_tokenizer, model_identity
from latentwire.provenance import library_versions
from latentwire.readers.branches import IGNORED, Branched, branch_mask, branched, padded
from latentwire.resuming.work import Work
from latentwire.settings import PromptStyle, Tuning
from latentwire.training.loop import batch_at, train_adapter

log = logging.getLogger(__name__)

# Every matrix of a block: attention and MLP.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Sequences that are read at once; more are no faster on a CPU.
MICRO_BATCH = 4
# Times that held-out questions are measured in a training.
MEASUREMENTS = 10


def sequences(
    rows: Iterable[dict[str, Any]], renderer: PromptRenderer, questions: int, max_tokens: int
) -> list[Branched]:
    """A paragraph's questions behind its context, at most so many, with the first reference and the end of turn.

    Raises:
        InputError: a single question does not fit into ``max_tokens``.
    """
    paragraphs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        paragraphs.setdefault((row["title"], row["context"]), []).append(row)
    return [
        sequence
        for own in paragraphs.values()
        for start in range(0, len(own), questions)
        for sequence in _fitting(own[start : start + questions], renderer, max_tokens)
    ]


def _fitting(rows: list[dict[str, Any]], renderer: PromptRenderer, max_tokens: int) -> Iterator[Branched]:
    """One sequence of ``rows``, or its halves' if it is too long."""
    tokenizer = renderer.tokenizer
    answers = [
        [*tokenizer(_answer_text(row, renderer), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for row in rows
    ]
    sequence = branched([prompt.input_ids for prompt in renderer.prompts(rows)], answers)
    if len(sequence.ids_L) <= max_tokens:
        yield sequence
    elif len(rows) > 1:
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            yield from _fitting(half, renderer, max_tokens)
    else:
        raise InputError(
            f"question {rows[0].get('id')!r} takes {len(sequence.ids_L)} tokens with its answer, not {max_tokens}"
        )


def _answer_text(row: dict[str, Any], renderer: PromptRenderer) -> str:
    space = " " if renderer.style == "plain" else ""
    return space + str(row["answers"]["text"][0]).strip()


def held_out_articles_of(titles: Iterable[str], count: int, seed: int) -> set[str]:
    """So many of the titles, by a seeded draw: questions that a training is measured on and never trained on."""
    return set(random.Random(seed).sample(sorted(set(titles)), count))


def answer_logits(model: Any, batch: Branched, precision: str = "float32") -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``[N, V]`` where the answer tokens of a padded batch are predicted, and those tokens ``[N]``."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    device = embed.weight.device
    mask_B1LL = branch_mask(batch.branch_L)
    bias_B1LL = torch.zeros(mask_B1LL.shape).masked_fill_(~mask_B1LL, torch.finfo(torch.float32).min)
    # Embeddings in float32 keep the sums over layers in float32, whatever the weights are stored in.
    embeddings_BLD = embed(batch.ids_L.to(device)).float()
    kept_BL = batch.labels_L != IGNORED
    with _autocast(device.type, precision):
        hidden_BLD = model.base_model(
            inputs_embeds=embeddings_BLD,
            attention_mask=bias_B1LL.to(device),
            position_ids=batch.positions_L.to(device),
            use_cache=False,
        ).last_hidden_state
        logits_NV = head(hidden_BLD[kept_BL.to(device)])
    return logits_NV.float(), batch.labels_L[kept_BL].to(device)


def _autocast(device: str, precision: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


def micro_batches(batch: list[Branched]) -> list[Branched]:
    """The sequences as padded batches of at most ``MICRO_BATCH``, of similar lengths."""
    ordered = sorted(batch, key=lambda sequence: len(sequence.ids_L))
    return [padded(ordered[start : start + MICRO_BATCH]) for start in range(0, len(ordered), MICRO_BATCH)]


def answer_loss(model: Any, batch: list[Branched], precision: str = "float32") -> torch.Tensor:
    """Mean cross-entropy of the batch's answer tokens, in nats."""
    parts = [answer_logits(model, part, precision) for part in micro_batches(batch)]
    total = sum(F.cross_entropy(logits_NV, labels_N, reduction="sum") for logits_NV, labels_N in parts)
    return torch.as_tensor(total) / sum(len(labels_N) for _, labels_N in parts)


@torch.no_grad()
def measure_answers(model: Any, batch: list[Branched], precision: str = "float32") -> dict[str, float]:
    """``held_out_nats`` per answer token, and ``held_out_exact``, the share of answers that greedy decoding gives.

    A greedy answer equals the first reference exactly if every token of it is the most likely one after those before.
    """
    nats, tokens, exact, answers = 0.0, 0, 0, 0
    for part in micro_batches(batch):
        logits_NV, labels_N = answer_logits(model, part, precision)
        kept_BL = part.labels_L != IGNORED
        answer_N2 = torch.stack([kept_BL.nonzero()[:, 0], part.branch_L[kept_BL]], dim=1)
        right_N = (logits_NV.argmax(-1) == labels_N).cpu()
        nats += F.cross_entropy(logits_NV, labels_N, reduction="sum").item()
        tokens += len(labels_N)
        whole = {tuple(answer) for answer in answer_N2.tolist()}
        exact += len(whole - {tuple(answer) for answer in answer_N2[~right_N].tolist()})
        answers += len(whole)
    return {"held_out_nats": nats / tokens, "held_out_exact": exact / answers}


def with_lora(model: Any, settings: Tuning) -> Any:
    """The model in PEFT's LoRA wrapper, seeded; the base is frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.dropout,
            target_modules=list(LORA_TARGETS),
        ),
        autocast_adapter_dtype=True,
    )


class _Trained(nn.Module):
    """The parameters of a model that are trained: what an optimiser steps and a checkpoint holds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.register_parameter(name.replace(".", "/"), parameter)


def tune(
    model: Any,
    train: list[Branched],
    held_out: list[Branched],
    settings: Tuning,
    *,
    identity: Any,
    work: Work,
    diagnostics: Path,
) -> list[dict[str, Any]]:
    """Train ``model`` in place, LoRA already in it.

    Args:
        model: its trained parameters require gradients, the others do not.
        train: sequences to train on.
        held_out: sequences of other articles, measured as training goes.
        settings: of the training.
        identity: JSON value that names the base and the questions; part of the state's name.
        work: that this training is a part of; it continues where it was interrupted.
        diagnostics: the training log to write.

    Returns:
        The measurements.

    Raises:
        FloatingPointError: the loss is not finite; the checkpoints are kept.
        Stopped: the run was told to stop; the state is kept.
    """
    per_epoch = -(-len(train) // settings.batch_size)
    steps = settings.epochs * per_epoch
    device = model.get_input_embeddings().weight.device

    def loss_at(step: int) -> dict[str, torch.Tensor]:
        model.train()
        order = batch_at(step, len(train), settings.batch_size, settings.seed)
        return {"loss": answer_loss(model, [train[index] for index in order.tolist()], settings.precision)}

    def measure(_: int) -> dict[str, float]:
        model.eval()
        return measure_answers(model, held_out, settings.precision)

    torch.manual_seed(settings.seed)
    code = fingerprint(__name__, "latentwire.cli.set_threads")
    return train_adapter(
        _Trained(model),
        loss_at,
        steps=steps,
        steps_per_epoch=per_epoch,
        settings=settings,
        checkpoints=work.checkpoints([settings.model_dump(), identity], code=code, device=described(device)),
        measure=measure,
        measure_every=max(1, steps // MEASUREMENTS),
        diagnostics=diagnostics,
        description="tuning",
    )


def _save_adapter(wrapped: Any, base_name: str, output: Path) -> None:
    """Write the adapter's two files; PEFT would write its own card over the one that is there."""
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            with atomic_path(output / name) as temporary:
                shutil.copyfile(Path(folder) / name, temporary)


def tune_reader(
    model: str,
    revision: str | None,
    train_file: Path,
    settings: Tuning,
    *,
    prompt_style: PromptStyle,
    system_prompt: str | None,
    held_out_articles: int,
    measure_sequences: int,
    device: torch.device,
    work: Work,
    output: Path,
    base_name: str | None = None,
) -> list[dict[str, Any]]:
    """Tune ``model`` on a SQuAD file and write the LoRA adapter in PEFT's format, or the whole model, to ``output``.

    Args:
        model: directory, or name on the hub.
        revision: of the model on the hub.
        train_file: official SQuAD v1.1 JSON.
        settings: of the training.
        prompt_style, system_prompt: as the experiment's prompts will be.
        held_out_articles: articles that are measured on and not trained on.
        measure_sequences: sequences of them, by a seeded draw.
        device: where to train.
        work: that this training is a part of.
        base_name: what the adapter's configuration calls its base; None for ``model``.
        output: folder; ``diagnostics.jsonl`` and ``tuning.json`` (what it was made from) are written into it too.

    Returns:
        The measurements.

    Raises:
        InputError: the model or the questions can't be read.
        FloatingPointError, Stopped: see :func:`tune`.
    """
    rows = read_squad_json(train_file)
    renderer = PromptRenderer(load_tokenizer(model, revision), prompt_style, system_prompt)
    apart = held_out_articles_of([row["title"] for row in rows], held_out_articles, settings.seed)
    train, held_out = (
        sequences(
            [row for row in rows if (row["title"] in apart) == out], renderer, settings.questions, settings.max_tokens
        )
        for out in (False, True)
    )
    measured = random.Random(settings.seed).sample(held_out, min(measure_sequences, len(held_out)))
    trained_on = {"articles": sorted({row["title"] for row in rows} - apart), "held_out_articles": sorted(apart)}
    log.info("%d sequences to train on, %d of %d held-out ones measured", len(train), len(measured), len(held_out))
    dtype = "bfloat16" if settings.method == "lora" and settings.precision == "bfloat16" else "float32"
    loaded = load_model(model, revision, dtype, device)
    # For masks of this kind its kernels are the faster ones on a CPU.
    loaded.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")
    wrapped = with_lora(loaded, settings) if settings.method == "lora" else loaded.requires_grad_(True)
    identity = [
        model_identity(model, revision, dtype, device), sha256_of(train_file), prompt_style, system_prompt,
        held_out_articles, measure_sequences,
    ]  # fmt: skip
    history = tune(
        loaded,
        train,
        measured,
        settings,
        identity=identity,
        work=work,
        diagnostics=output / "diagnostics.jsonl",
    )
    for parameter in wrapped.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    if settings.method == "full":
        loaded.save_pretrained(output)
        renderer.tokenizer.save_pretrained(output)
    else:
        _save_adapter(wrapped, base_name or model, output)
    record = {
        "settings": settings.model_dump(),
        "prompt_style": prompt_style,
        "system_prompt": system_prompt,
        "train_file": {"name": train_file.name, "sha256": sha256_of(train_file)},
        "base": content_identity(Path(model)),
        "sequences": {"train": len(train), "measured": len(measured)},
        "versions": library_versions(),
        **trained_on,
        "last": history[-1],
    }
    write_json(output / "tuning.json", record)
    return history
