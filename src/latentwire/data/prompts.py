"""Prompts: one rendering, one tokenisation, used by every stage and arm.

The prompt is rendered once, by the model's chat template or in the plain style, and holds exactly one BOS. Where it
does not fit, only the context is trimmed: the question, the instruction and the answer cue are never cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from latentwire.errors import InputError
from latentwire.settings import PromptStyle

# Some chat templates print today's date; a constant keeps prompts the same from day to day.
_DATE = "26 Jul 2024"


def source_text(context: str, question: str) -> str:
    """The prompt text of a question about a context."""
    return f"Context: {context}\nQuestion: {question}\n"


def question_text(question: str) -> str:
    """The prompt text with the context removed (the ``question`` arm)."""
    return f"Question: {question}\n"


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt.

    Attributes:
        source: the text before rendering.
        input_ids: token ids, unpadded, BOS included.
        label_mask: boolean, True on tokens of the context or the question, False on constant template tokens.
        answer_mask: boolean, True on the context's tokens that belong to a reference answer.
    """

    source: str
    input_ids: list[int]
    label_mask: np.ndarray
    answer_mask: np.ndarray


class PromptRenderer:
    """Renders and tokenises prompts for one model.

    Args:
        tokenizer: a fast tokenizer (character offsets are needed).
        style: ``chat`` (the tokenizer's chat template) or ``plain`` (the text and ``Answer:``).
        system_prompt: the system message of the chat style, or None.

    Raises:
        InputError: the chat style without a chat template, or a slow tokenizer.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, style: PromptStyle = "chat", system_prompt: str | None = None
    ) -> None:
        if style == "chat" and not tokenizer.chat_template:
            raise InputError("model.prompt_style is 'chat' but the tokenizer has no chat template: use 'plain'")
        if not tokenizer.is_fast:
            raise InputError("the tokenizer gives no character offsets: a tokenizer.json ('fast' tokenizer) is needed")
        self.tokenizer, self.style, self.system_prompt = tokenizer, style, system_prompt

    def render(self, source: str) -> str:
        """The full prompt text up to where the answer begins."""
        if self.style == "plain":
            return f"{source}Answer:"
        messages = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages.append({"role": "user", "content": source})
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, date_string=_DATE)
        )

    def tokenise(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Token ids and character offsets of rendered prompts.

        A plain prompt begins with the model's BOS, where it has one; a chat prompt holds what the template gives.

        Raises:
            InputError: a prompt begins with two BOS tokens, or its text itself holds one.
        """
        if not texts:
            return []
        encoded = self._encode(texts)
        bos = self.tokenizer.bos_token_id
        # A template may mark every message with the BOS token, so a text without any tells how many belong.
        expected = self._encode([self.render("x")])[0][0].count(bos)
        for text, (ids, _) in zip(texts, encoded, strict=True):
            if bos is not None and (ids.count(bos) != expected or ids[:2] == [bos, bos]):
                raise InputError(
                    f"a rendered prompt holds {ids.count(bos)} BOS tokens ({self.tokenizer.bos_token!r}), expected "
                    f"{expected} and one at its start; it begins with {text[:80]!r}"
                )
        return encoded

    def _encode(self, texts: list[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        encoded = self.tokenizer(texts, add_special_tokens=self.style == "plain", return_offsets_mapping=True)
        pairs = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        bos = self.tokenizer.bos_token_id
        if self.style == "chat" or bos is None:
            return pairs
        # Not every tokenizer adds its BOS by itself.
        return [pair if pair[0][:1] == [bos] else ([bos, *pair[0]], [(0, 0), *pair[1]]) for pair in pairs]

    def question_only(self, questions: list[str]) -> list[list[int]]:
        """Token ids of the prompts with the context removed."""
        return [ids for ids, _ in self.tokenise([self.render(question_text(q)) for q in questions])]

    def prompts(self, rows: Sequence[dict[str, Any]]) -> list[Prompt]:
        """Tokenised prompts of rows with ``context``, ``question`` and ``answers``."""
        sources = [source_text(row["context"], row["question"]) for row in rows]
        texts = [self.render(source) for source in sources]
        return [
            _located(row, source, text, ids, offsets)
            for row, source, text, (ids, offsets) in zip(rows, sources, texts, self.tokenise(texts), strict=True)
        ]


def _overlaps(offsets: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Which of the tokens at ``offsets`` ``[T, 2]`` share a character with one of ``spans``."""
    starts, ends = offsets.T
    mask = np.zeros(len(offsets), dtype=bool)
    for begin, stop in spans:
        mask |= (starts < stop) & (begin < ends)
    return mask


def _located(row: dict[str, Any], source: str, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> Prompt:
    """The prompt with its masks, from where the source stands in the rendered text."""
    start = text.find(source.strip())  # chat templates may trim the message
    if start < 0:
        raise InputError(f"the chat template does not keep the prompt text verbatim (question {row.get('id')!r})")
    context = start + len("Context: ")
    question = context + len(row["context"]) + len("\nQuestion: ")
    kept = start + len(source.strip())
    content = [(context, context + len(row["context"])), (question, min(question + len(row["question"]), kept))]
    answers = [(context + begin, context + end) for begin, end in answer_spans(row)]
    places = np.array(offsets)
    return Prompt(source, ids, _overlaps(places, content), _overlaps(places, answers))


def answer_spans(row: dict[str, Any]) -> list[tuple[int, int]]:
    """Character spans of the references in the context; a wrong ``answer_start`` falls back to a search."""
    spans = set()
    for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
        if start < 0 or row["context"][start : start + len(text)] != text:
            start = row["context"].find(text)
        if start >= 0:
            spans.add((start, start + len(text)))
    return sorted(spans)


def _sentences(context: str) -> list[tuple[int, int]]:
    """Character spans of the context's sentences."""
    edges = [0, *(match.end() for match in re.finditer(r"(?<=[.!?])\s+", context)), len(context)]
    return [(start, end) for start, end in zip(edges, edges[1:], strict=False) if end > start]


def trim_context(row: dict[str, Any], fits: Any, *, keep_answer: bool) -> dict[str, Any] | None:
    """The row with whole sentences of its context removed until ``fits(row)`` is true.

    Args:
        row: with ``context``, ``question`` and ``answers``.
        fits: predicate on a row.
        keep_answer: drop the sentences farthest from the first reference (training data only: it looks at the
            answer); otherwise the last ones.

    Returns:
        The trimmed row, or None where nothing that may be kept fits.
    """
    spans = _sentences(row["context"])
    answers = answer_spans(row)[:1] if keep_answer else []
    home = [i for i, (start, end) in enumerate(spans) if any(begin < end and start < stop for begin, stop in answers)]
    first, last = (home[0], home[-1]) if home else (0, 0)  # "U.S. Army" looks like the end of a sentence
    order = sorted(range(len(spans)), key=lambda index: (max(first - index, index - last), index))
    for count in range(len(spans) - 1, last - first, -1):
        kept = sorted(order[:count])
        trimmed = _kept_sentences(row, [spans[index] for index in kept])
        if fits(trimmed):
            return trimmed
    return None


def _kept_sentences(row: dict[str, Any], spans: list[tuple[int, int]]) -> dict[str, Any]:
    context = "".join(row["context"][start:end] for start, end in spans).strip()
    texts = row["answers"]["text"]
    answers = {"text": texts, "answer_start": [context.find(text) for text in texts]}
    return {**row, "context": context, "answers": answers}
