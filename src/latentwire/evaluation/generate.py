"""Greedy generation of answers from prompts, as token ids or as embeddings; the same decoding for every arm.

Only the prompt's embeddings differ between arms: generated tokens are embedded by the model's own table.

Shape suffixes: B batch, L length, U token types, D embedding dimensions.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from latentwire.abilities import Lengths, declared_context, does_not_fit
from latentwire.attention import attends_by_position, takes_positions
from latentwire.errors import InputError, said
from latentwire.evaluation.cache import preallocated_cache
from latentwire.evaluation.prefixes import prefix_runs
from latentwire.evaluation.steps import FixedSteps, has_fixed_steps
from latentwire.lm import added_names, control_tokens
from latentwire.templates import rendered

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A generated answer: its text, the number of tokens, and why it ended (``stop`` or ``length``)."""

    text: str
    tokens: int
    finished: str


class NewlineAfterText(StoppingCriteria):
    """Ends an answer at a newline after its first non-space text; a leading newline does not end it."""

    def __init__(self, tokenizer: Any, prompt_length: int) -> None:
        self.tokenizer, self.prompt_length = tokenizer, prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :], skip_special_tokens=True)
        return torch.tensor([has_second_line(text) for text in texts], dtype=torch.bool, device=input_ids.device)


class NotFinite(LogitsProcessor):
    """Notes whether logits of a batch were not finite, without waiting for the device at every token.

    Args:
        prompt_length: tokens before the new ones.
        ended: tokens of which one ends an answer; what the model makes of its row after that does not count.
    """

    def __init__(self, prompt_length: int, ended: Sequence[int]) -> None:
        self.prompt_length, self.ended = prompt_length, list(ended)
        self.seen: torch.Tensor | bool = False

    def __call__(self, input_ids: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """The logits as they are. A model may rule tokens out with -inf, so the largest of each row counts."""
        new_BL = input_ids[:, self.prompt_length :]
        going_B = ~torch.isin(new_BL, torch.tensor(self.ended, device=new_BL.device)).any(dim=1)
        self.seen = (going_B & ~scores_BV.amax(dim=-1).isfinite()).any() | self.seen
        return scores_BV


def end_of_turn(tokenizer: Any) -> int | None:
    """The token with which the chat template ends the assistant's turn; None if it has none.

    It is one that was added to the vocabulary, as a control token or as an ordinary one.
    """
    if not tokenizer.chat_template:
        return None
    answer = "An answer"
    messages = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": answer}]
    try:
        text = rendered(tokenizer, messages)
    except Exception as error:  # whatever a template raises: prompts are rendered without an assistant's turn
        log.warning("the chat template does not render an answer (%s): its end of turn is not known", said(error))
        return None
    behind = tokenizer(text.rpartition(answer)[2], add_special_tokens=False)["input_ids"]
    written = control_tokens(tokenizer) | added_names(tokenizer)
    found = next((token for token in behind if token in written), None)
    if found is None:
        log.warning("the chat template ends an answer with no token of its own: what ends one is its line or the cap")
    return found


# Where a text's line ends, in all scripts: what str.splitlines takes for it.
LINE_END = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")


def has_second_line(text: str) -> bool:
    """Whether a line end follows the first text, white space aside."""
    return LINE_END.search(text.lstrip()) is not None


def first_line(text: str) -> str:
    """The answer: the first line with text on it, stripped."""
    return LINE_END.split(text.strip(), maxsplit=1)[0].strip()


def padded_embeddings(
    rebuilt_UD: torch.Tensor, ids_U: torch.Tensor, ids_BL: torch.Tensor, mask_BL: torch.Tensor
) -> torch.Tensor:
    """Embeddings ``[B, L, D]`` of padded prompts, gathered from rebuilt rows on their device; zeros on padding."""
    index_BL = torch.searchsorted(ids_U, ids_BL).clamp_max(len(ids_U) - 1)
    return rebuilt_UD[index_BL.to(rebuilt_UD.device)] * mask_BL[..., None].to(rebuilt_UD.device)


def positions(mask_BL: torch.Tensor) -> torch.Tensor:
    """The position of each token ``[B, L]`` behind padding on the left; 0 on padding."""
    return (mask_BL.cumsum(dim=1) - 1).clamp_min(0)


PROBE_TOKENS = (5, 24)  # of a short and a long prompt
PROBE_TOLERANCE = 0.05  # far above rounding, far below what other positions make of the logits


@torch.inference_mode()
def padding_is_harmless(model: Any) -> bool:
    """Whether a padded prompt of a batch has the logits that it has alone, up to rounding.

    Models that count positions from the beginning of the row, padding included, do not.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    device = model.get_input_embeddings().weight.device
    most = declared_context(model.config.to_dict()) or max(PROBE_TOKENS)
    short_L, long_L = (torch.arange(1, min(count, most) + 1, device=device) * 7919 % rows for count in PROBE_TOKENS)
    ids_BL, mask_BL = torch.zeros(2, 2, len(long_L), dtype=torch.int64, device=device)
    for row, ids_L in enumerate((short_L, long_L)):
        ids_BL[row, -len(ids_L) :], mask_BL[row, -len(ids_L) :] = ids_L, 1
    told = {"position_ids": positions(mask_BL)} if takes_positions(model) else {}
    padded_V = model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False, **told).logits[0, -1].float()
    alone_V = model(input_ids=short_L[None], use_cache=False).logits[0, -1].float()
    return bool((padded_V - alone_V).norm() <= PROBE_TOLERANCE * (alone_V - alone_V.mean()).norm())


def require_fit(prompts: Iterable[Sequence[int] | np.ndarray], max_new_tokens: int, context: int | None) -> None:
    """Refuse prompts that do not fit into a model's context with their answers.

    Args:
        prompts: token ids of each.
        max_new_tokens: cap of an answer.
        context: in tokens; None if the model declares none.

    Raises:
        InputError: the longest does not fit.
    """
    if misfit := does_not_fit(Lengths(max(map(len, prompts), default=0), max_new_tokens), context):
        raise InputError(misfit)


class Decoder:
    """Our own greedy decoding of one model, never the checkpoint's.

    Args:
        model: a frozen Hugging Face causal language model; its generation configuration is replaced.
        tokenizer: its tokenizer, with a padding token.
        max_new_tokens: one cap for every answer.
        fixed_steps: whether to decode in steps of fixed shapes (:mod:`latentwire.evaluation.steps`) if the model can;
            by default on a GPU. The same tokens up to the rounding of logits.
    """

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int, *, fixed_steps: bool | None = None) -> None:
        self.model, self.tokenizer = model, tokenizer
        stops = {tokenizer.eos_token_id}
        # Chat models name their end of turn only in the checkpoint's generation configuration.
        named = getattr(model.generation_config, "eos_token_id", None)
        stops |= {*(named if isinstance(named, list) else [named]), end_of_turn(tokenizer)}
        # A padding token of the tokenizer's own may have no row; padding is masked, so any other will do.
        pad = tokenizer.pad_token_id
        if pad is None or pad >= model.get_input_embeddings().weight.shape[0]:
            pad = 0
        self.settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(stop for stop in stops if stop is not None),
            pad_token_id=pad,
        )
        # An answer ends at the first of them, whichever it is.
        self.control = {*control_tokens(tokenizer), *self.settings.eos_token_id, pad}
        # The stops stay with the model: another decoder of it must find them again.
        model.generation_config = GenerationConfig(eos_token_id=self.settings.eos_token_id)
        self.device = next(model.parameters()).device
        self.context = declared_context(model.config.to_dict())
        self.shares_prefixes = attends_by_position(model)
        self.fixed: FixedSteps | None = None
        wanted = self.device.type == "cuda" if fixed_steps is None else fixed_steps
        if wanted and self.shares_prefixes and has_fixed_steps(model):
            self.fixed = FixedSteps(model, self.settings.eos_token_id, pad, max_new_tokens)
        self.batches = padding_is_harmless(model)
        if not self.batches:
            log.warning("padding changes this model's answers: prompts are read one by one, which takes longer")

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[np.ndarray], rebuilt_UD: torch.Tensor | None = None, ids_U: torch.Tensor | None = None
    ) -> list[Answer]:
        """Answers to one batch of prompts.

        What neighbours have in common at their beginning is read once, if that saves reading.

        Args:
            prompts: token ids, unpadded.
            rebuilt_UD: rebuilt embeddings of the sorted token ids ``ids_U`` to read instead of the token ids.
            ids_U: sorted; every prompt token is among them.

        Raises:
            InputError: a prompt and its answer do not fit into the model's context.
            FloatingPointError: the model's logits are not finite.
        """
        require_fit(prompts, self.settings.max_new_tokens, self.context)
        if not self.batches and len(prompts) > 1:
            return [answer for prompt in prompts for answer in self.answers([prompt], rebuilt_UD, ids_U)]
        runs = prefix_runs(prompts)
        shares = self.shares_prefixes and runs.saves([len(ids) for ids in prompts])
        cut_B = [runs.shared[run] if shares else 0 for run in runs.run_of]
        prefixes = self._padded([ids[:cut] for ids, cut in zip(prompts, cut_B, strict=True)])
        suffixes = self._padded([ids[cut:] for ids, cut in zip(prompts, cut_B, strict=True)])
        ids_BL, mask_BL = (torch.cat(parts, dim=1) for parts in zip(prefixes, suffixes, strict=True))
        cache = None
        if self.fixed is not None:
            cache = self.fixed.begin(*ids_BL.shape)
        elif self.shares_prefixes:
            cache = preallocated_cache(ids_BL.shape[1] + self.settings.max_new_tokens)
        if shares:
            first_ids, first_mask = (part[runs.starts] for part in prefixes)
            self._read_once(self._given(first_ids, first_mask, rebuilt_UD, ids_U), runs.run_of, cache)
        read = prefixes[0].shape[1] if shares else 0
        try:
            if self.fixed is not None:
                given = self._given(ids_BL[:, read:].contiguous(), mask_BL[:, read:], rebuilt_UD, ids_U)
                mask_BL = mask_BL.to(self.device)
                given["attention_mask"] = mask_BL
                tokens = self.fixed.answers(given, positions(mask_BL)[:, read:], self._ended)
            else:
                tokens = self._generate(ids_BL, mask_BL, rebuilt_UD, ids_U, cache)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"the model's logits are not finite in {next(self.model.parameters()).dtype}: another model.dtype "
                "(bfloat16 has float32's range), or something not finite in the weights or the rebuilt embeddings"
            ) from error
        return [self._answer(own) for own in tokens]

    def _generate(
        self,
        ids_BL: torch.Tensor,
        mask_BL: torch.Tensor,
        rebuilt_UD: torch.Tensor | None,
        ids_U: torch.Tensor | None,
        cache: Any,
    ) -> list[list[int]]:
        """The new tokens of every prompt, by the library's own decoding, behind what is in ``cache`` already."""
        # Given embeddings alone, generate() returns the new tokens only.
        prompt_length = ids_BL.shape[1] if rebuilt_UD is None else 0
        not_finite = NotFinite(prompt_length, [*self.settings.eos_token_id, self.settings.pad_token_id])
        generated = self.model.generate(
            **self._given(ids_BL, mask_BL, rebuilt_UD, ids_U),
            past_key_values=cache,
            generation_config=self.settings,
            logits_processor=LogitsProcessorList([not_finite]),
            stopping_criteria=StoppingCriteriaList([NewlineAfterText(self.tokenizer, prompt_length)]),
        )
        if bool(not_finite.seen):
            raise FloatingPointError
        tokens: list[list[int]] = generated[:, prompt_length:].tolist()
        return tokens

    def _padded(self, prompts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids padded on the left, and their mask, int64 ``[B, L]``; the mask is 0 on padding."""
        length = max(map(len, prompts))
        ids_BL = torch.full((len(prompts), length), self.settings.pad_token_id, dtype=torch.int64)
        mask_BL = torch.zeros_like(ids_BL)
        for row, ids in enumerate(prompts):
            ids_BL[row, length - len(ids) :] = torch.from_numpy(np.array(ids, dtype=np.int64))
            mask_BL[row, length - len(ids) :] = 1
        return ids_BL, mask_BL

    def _given(
        self,
        ids_BL: torch.Tensor,
        mask_BL: torch.Tensor,
        rebuilt_UD: torch.Tensor | None,
        ids_U: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """What the model is given of padded prompts: token ids or rebuilt embeddings, and the mask."""
        mask = {"attention_mask": mask_BL.to(self.device)}
        if rebuilt_UD is None:
            return {"input_ids": ids_BL.to(self.device), **mask}
        assert ids_U is not None
        embeddings_BLD = padded_embeddings(rebuilt_UD, ids_U, ids_BL, mask_BL)
        return {"inputs_embeds": embeddings_BLD.to(self.device, next(self.model.parameters()).dtype), **mask}

    def _read_once(self, given: dict[str, torch.Tensor], run_of: list[int], cache: Any) -> None:
        """Read the beginning of every run, and put its keys and values into ``cache`` for each prompt of the run."""
        positions_BL = positions(given["attention_mask"])
        # The base model alone: no logits are computed.
        read = self.model.base_model(**given, position_ids=positions_BL, use_cache=True).past_key_values
        run_of_B = torch.tensor(run_of, device=self.device)
        for number, layer in enumerate(read.layers):
            cache.update(layer.keys[run_of_B], layer.values[run_of_B], number)

    def _ended(self, tokens: list[int]) -> bool:
        """Whether an answer that begins with these tokens has ended, below the cap."""
        kept = self._before_control(tokens)
        return len(kept) < len(tokens) or has_second_line(self._text(kept))

    def _answer(self, tokens: list[int]) -> Answer:
        kept = self._before_control(tokens)
        text = self._text(kept)
        if has_second_line(text):  # no token after the one that ended it
            count = next(count for count in range(1, len(kept) + 1) if has_second_line(self._text(kept[:count])))
            return Answer(first_line(self._text(kept[:count])), count, "stop")
        stopped = len(kept) < self.settings.max_new_tokens
        return Answer(first_line(text), len(kept), "stop" if stopped else "length")

    def _before_control(self, tokens: list[int]) -> list[int]:
        return list(itertools.takewhile(lambda token: token not in self.control, tokens))

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def answer_batches(
    batches: Sequence[Sequence[int]], answer: Callable[[int, Sequence[int]], list[Answer]], description: str
) -> Iterator[tuple[int, Answer]]:
    """Each index with its answer, batch after batch, under a progress bar; ``answer`` gets a batch and its number."""
    for number, batch in enumerate(tqdm(batches, desc=description, unit="batch", mininterval=5)):
        yield from zip(batch, answer(number, batch), strict=True)


def generate_answers(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    batches: Sequence[Sequence[int]],
    rebuilt_UD: torch.Tensor | None = None,
    ids_U: torch.Tensor | None = None,
    *,
    description: str = "answers",
) -> Iterator[tuple[int, Answer]]:
    """Answers to the prompts in ``batches``, as (index, answer), batch after batch."""
    return answer_batches(
        batches,
        lambda _, batch: decoder.answers([prompts[index] for index in batch], rebuilt_UD, ids_U),
        description,
    )
