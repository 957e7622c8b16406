"""Training of the demo's reader: a small causal language model that answers questions about a paragraph.

All questions about a paragraph share one sequence: the paragraph once, then one branch a question, each of which
attends to the paragraph and to itself only and continues the paragraph's positions. It is the same computation as
one sequence a question, at about a quarter of the cost.

Shape suffixes: B batch, L length, D width, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from latentwire.data.corpus import Article, generate_articles
from latentwire.data.tokenizer import ASSISTANT, END, USER, build_tokenizer
from latentwire.fingerprint import fingerprint
from latentwire.readers.branches import IGNORED, branch_mask
from latentwire.resuming.checkpoint import random_state, set_random_state
from latentwire.resuming.work import Work

log = logging.getLogger(__name__)

# More paragraphs with hard distractors than in the demo's corpora.
SAME_RELATIONS = 0.15
# Larger than usual: a name is told from another by its embedding.
EMBEDDING_STD = 0.1


@dataclass(frozen=True)
class ReaderSettings:
    """What determines the reader."""

    seed: int = 7
    """Start of the weights, and seed of the training corpus: a demo corpus must have another one."""
    steps: int = 3000
    contexts: int = 32
    """Paragraphs a step."""
    curriculum: tuple[int, ...] = (200, 400)
    """Steps at which a paragraph's facts per subject grow from one to two, and from two to three."""
    layers: int = 3
    width: int = 128
    heads: int = 8
    mlp_width: int = 384
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup: int = 100
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Batch:
    """Packed paragraphs; ``mask_B1LL`` is True where a token may attend, ``answer_BL`` on answers."""

    ids_BL: torch.Tensor
    positions_BL: torch.Tensor
    mask_B1LL: torch.Tensor
    labels_BL: torch.Tensor
    answer_BL: torch.Tensor


def build_reader(settings: ReaderSettings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained reader with tied embeddings, seeded by ``settings.seed``."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.mlp_width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.02,
        rope_theta=10000.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="float32_sdpa",
    )
    reader = LlamaForCausalLM(config)
    _start_attention_at_matching(reader)
    return reader


@torch.no_grad()
def _start_attention_at_matching(reader: LlamaForCausalLM) -> None:
    """Start every head as a matcher and copier: equal query and key projections, output the transpose of value.

    Tokens then attend to tokens like themselves and to their neighbours, and pass on what they are: most of what
    looking a name up takes. From the usual start the same training learns it several times more slowly. (After
    Trockman and Kolter 2023, Mimetic Initialization of Self-Attention Layers.) A direction common to all embeddings
    gives rotary positions something to act on.
    """
    table_VD = reader.model.embed_tokens.weight
    direction_D = torch.randn(table_VD.shape[1])
    table_VD.normal_(std=EMBEDDING_STD).add_(
        EMBEDDING_STD * direction_D / direction_D.norm() * direction_D.numel() ** 0.5
    )
    for layer in reader.model.layers:
        attention = layer.self_attn
        torch.nn.init.orthogonal_(attention.q_proj.weight)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        torch.nn.init.orthogonal_(attention.v_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T / 2)


class Packer:
    """Turns a paragraph and its questions into one branched sequence of token ids."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def pack(self, paragraph: dict[str, Any]) -> list[tuple[int, int, int, bool, bool]]:
        """One tuple a token: id, position, branch (0 is the paragraph), is answer, is a branch's first token."""
        prefix = self._ids(f"{self.tokenizer.bos_token}{USER}Context: {paragraph['context']}\n")
        branches = [
            (
                self._ids(f"Question: {qa['question']}\n{END}{ASSISTANT}"),
                self._ids(f" {qa['answers'][0]['text']}{END}"),
            )
            for qa in paragraph["qas"]
        ]
        tokens = [(token, position, 0, False, False) for position, token in enumerate(prefix)]
        for branch, (question, answer) in enumerate(branches, start=1):
            for offset, token in enumerate(question + answer):
                tokens.append((token, len(prefix) + offset, branch, offset >= len(question), offset == 0))
        return tokens

    def batch(self, paragraphs: list[dict[str, Any]]) -> Batch:
        """The paragraphs as one right-padded batch."""
        packed = [self.pack(paragraph) for paragraph in paragraphs]
        length = max(map(len, packed))
        blank = (self.tokenizer.pad_token_id, 0, -1, False, False)
        columns_BL5 = torch.tensor([tokens + [blank] * (length - len(tokens)) for tokens in packed])
        ids_BL, positions_BL, branch_BL, answer_BL, start_BL = columns_BL5.unbind(-1)
        return Batch(
            ids_BL,
            positions_BL,
            branch_mask(branch_BL),
            ids_BL.masked_fill((branch_BL < 0) | start_BL.bool(), IGNORED),
            answer_BL.bool(),
        )


def batches(settings: ReaderSettings, packer: Packer, start: int) -> Iterator[Batch]:
    """The training batches from step ``start`` on; a batch depends on the settings and its step alone."""

    def stream(facts_per_chain: int, first_batch: int) -> Iterator[dict[str, Any]]:
        first = first_batch * settings.contexts
        per_article = 6
        articles: Iterator[Article] = generate_articles(
            settings.seed,
            start=first // per_article,
            facts_per_chain=facts_per_chain,
            questions=5,
            same_relations=SAME_RELATIONS,
        )
        paragraphs = (paragraph for article in articles for paragraph in article["paragraphs"])
        return itertools.islice(paragraphs, first % per_article, None)

    for step in itertools.count(start):
        if step in (start, *settings.curriculum):
            paragraphs = stream(1 + sum(step >= stage for stage in settings.curriculum), step)
        yield packer.batch(list(itertools.islice(paragraphs, settings.contexts)))


def _float32_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention in float32 under bf16 autocast: on the CPU its backward is three times faster."""
    with torch.autocast("cpu", enabled=False):
        mixed = F.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), None if attention_mask is None else attention_mask.float()
        )
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register("float32_sdpa", _float32_attention)


def losses(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean cross-entropy (nats) of the prompts' tokens and of the answers' tokens, and the answers' token accuracy."""
    mask = torch.zeros(batch.mask_B1LL.shape).masked_fill_(~batch.mask_B1LL, -torch.inf)
    hidden_BLD = model.model(
        input_ids=batch.ids_BL, attention_mask=mask, position_ids=batch.positions_BL, use_cache=False
    ).last_hidden_state
    labels_BL, answer_BL = batch.labels_BL[:, 1:], batch.answer_BL[:, 1:]
    kept_BL = labels_BL != IGNORED
    labels_N, answer_N = labels_BL[kept_BL], answer_BL[kept_BL]
    logits_NV = model.lm_head(hidden_BLD[:, :-1][kept_BL])
    loss_N = F.cross_entropy(logits_NV.float(), labels_N, reduction="none")
    accuracy = (logits_NV[answer_N].argmax(-1) == labels_N[answer_N]).float().mean()
    return loss_N[~answer_N].mean(), loss_N[answer_N].mean(), accuracy


def _schedule(settings: ReaderSettings) -> Callable[[int], float]:
    def factor(step: int) -> float:
        """Warm-up, constant, then a linear decay over the last two fifths."""
        rest = (settings.steps - step) / (0.4 * settings.steps)
        return min(1.0, (step + 1) / settings.warmup, max(rest, 0.0))

    return factor


def train_reader(settings: ReaderSettings, output: Path, work: Work, *, progress: bool = True) -> dict[str, float]:
    """Train a reader and write it as a Hugging Face model directory (bf16 safetensors, tokenizer, chat template).

    Args:
        settings: what determines the result.
        output: the model directory to write.
        work: that this training is a part of; it continues where it was interrupted.
        progress: whether to show a progress bar.

    Returns:
        The last steps' mean ``prompt_loss``, ``answer_loss`` (nats per token) and ``answer_accuracy``.

    Raises:
        FloatingPointError: the loss is not finite; the checkpoints are kept.
        Stopped: the run was told to stop; the state is kept as a checkpoint.
    """
    tokenizer = build_tokenizer()
    model = build_reader(settings, tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, _schedule(settings))
    parts: dict[str, Any] = {"model": model, "optimiser": optimiser, "scheduler": scheduler}
    checkpoints = work.checkpoints(asdict(settings), code=fingerprint(__name__))
    start, recent = 0, torch.zeros(3)

    def save(step: int) -> None:
        stored = {name: part.state_dict() for name, part in parts.items()}
        checkpoints.save(step, stored | {"recent": recent, "random": random_state(torch.device("cpu"))})

    if (found := checkpoints.load()) is not None:
        start, stored = found
        recent = stored.pop("recent")
        set_random_state(stored.pop("random"), torch.device("cpu"))
        for name, part in parts.items():
            part.load_state_dict(stored[name])
        log.info("continuing at step %d", start)
    bar = tqdm(total=settings.steps, initial=start, disable=not progress, mininterval=10, unit="step")
    for step, batch in zip(range(start, settings.steps), batches(settings, Packer(tokenizer), start), strict=False):
        checkpoints.check(partial(save, step))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prompt_loss, answer_loss, accuracy = losses(model, batch)
        total = prompt_loss + answer_loss
        if not math.isfinite(total.item()):
            raise FloatingPointError(
                f"loss is {total.item()} at step {step}; the last checkpoint is kept in {checkpoints.folder}"
            )
        model.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        scheduler.step()
        new = torch.stack([prompt_loss, answer_loss, accuracy]).detach()
        recent = new if step == 0 else 0.98 * recent + 0.02 * new
        if step % 50 == 0:
            bar.set_postfix(prompt=f"{recent[0]:.3f}", answer=f"{recent[1]:.3f}", accuracy=f"{recent[2]:.3f}")
        bar.update()
        if (step + 1) % settings.checkpoint_every == 0 or checkpoints.due:
            save(step + 1)
    bar.close()
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    return dict(zip(("prompt_loss", "answer_loss", "answer_accuracy"), recent.tolist(), strict=True))
