"""Prompts: one rendering, one tokenisation, used by every stage and arm.

The prompt is rendered once, by the model's chat template or in the plain style, and holds exactly one BOS. Where it
does not fit, only the context is trimmed: the question, the instruction and the answer cue are never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import regex
from transformers import PreTrainedTokenizerFast

from latentwire.data.literal import Encoded, encode_around, forbidden_tokens, spans_of
from latentwire.errors import InputError, said
from latentwire.settings import PromptStyle
from latentwire.templates import chat_template, rendered

# Some chat templates print today's date; a constant keeps prompts the same from day to day, whichever way they ask.
_DAY = datetime(2024, 7, 26)
_DATE = _DAY.strftime("%d %b %Y")
# In front of a template that calls transformers' strftime_now, which takes today, this macro takes its place.
_DIRECTIVES = "".join(f"|replace('%{d}', '{_DAY.strftime('%' + d)}')" for d in "aAbBdeFHIjmMpSuwyY")
_FIXED_DAY = "{% macro strftime_now(format) %}{{ format|replace('%-', '%')" + _DIRECTIVES + " }}{% endmacro %}"
# Ends of sentences: Latin marks before white space, those of other scripts (Unicode's STerm) anywhere, and line ends.
_SENTENCE_ENDS = regex.compile(r"(?<=[.!?])\s+|(?<=\p{Sentence_Break=STerm})(?<![!?])\s*|\n+")
_WORD_ENDS = regex.compile(r"\s+")


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
        template_arguments: variables of the chat template.

    Raises:
        InputError: the chat style without a chat template, a slow tokenizer, or arguments that the template lacks.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        style: PromptStyle = "chat",
        system_prompt: str | None = None,
        template_arguments: Mapping[str, bool | int | str] | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise InputError("the tokenizer gives no character offsets: a tokenizer.json ('fast' tokenizer) is needed")
        self.tokenizer, self.style, self.system_prompt = tokenizer, style, system_prompt
        template = chat_template(tokenizer) if style == "chat" else ""
        self.template_arguments = dict(template_arguments or {})
        named = set(regex.findall(r"\w+", template))
        if unknown := [name for name in self.template_arguments if name not in named]:
            raise InputError(f"model.template_arguments: the chat template does not name {', '.join(unknown)}")
        if taken := sorted(self.template_arguments.keys() & tokenizer.special_tokens_map.keys()):
            raise InputError(f"model.template_arguments: {taken[0]} is the tokenizer's own")
        self._template = (_FIXED_DAY if "strftime_now" in template else "") + template

    def render(self, source: str) -> str:
        """The full prompt text up to where the answer begins."""
        if self.style == "plain":
            return f"{source}Answer:"
        messages = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages.append({"role": "user", "content": source})
        try:
            return rendered(
                self.tokenizer,
                messages,
                chat_template=self._template,
                add_generation_prompt=True,
                **{"date_string": _DATE} | self.template_arguments,
            )
        except Exception as error:  # whatever a template raises, or Jinja about it
            why = f"{type(error).__name__}: {said(error)}"
            system = "set model.system_prompt to null if it takes no system message, or " if self.system_prompt else ""
            raise InputError(
                f"the tokenizer's chat template can't render a question ({why}): {system}"
                "set model.prompt_style to 'plain'"
            ) from error

    def tokenise(self, texts: list[str], sources: Sequence[str] | None = None) -> list[Encoded]:
        """Token ids and character offsets of rendered prompts.

        A plain prompt begins with the model's BOS, if it has one, and ends with its cue; a chat prompt holds what the
        template gives.

        Args:
            texts: the rendered prompts.
            sources: what each of them was rendered from: names of control tokens in it are text.

        Raises:
            InputError: a prompt begins with two BOS tokens, or without ``sources`` its text itself holds one.
        """
        if not texts:
            return []
        encoded = self._encode(texts, sources)
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

    def _encode(self, texts: list[str], sources: Sequence[str] | None = None) -> list[Encoded]:
        plain = self.style == "plain"
        encoded = self.tokenizer(texts, add_special_tokens=plain, return_offsets_mapping=True)
        pairs = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
        for number, source in enumerate(sources or ()):
            start = texts[number].find(source.strip())
            span = (start, start + len(source.strip()))
            if start >= 0 and spans_of(self._forbidden, pairs[number], span):
                pairs[number] = encode_around(self.tokenizer, self._forbidden, texts[number], span)
        return [self._from_bos_to_cue(*pair) for pair in pairs] if plain else pairs

    @cached_property
    def _forbidden(self) -> set[int]:
        """Tokens that a question's own characters may not become."""
        frame = self.tokenizer(self.render("x"), add_special_tokens=False)["input_ids"]
        return forbidden_tokens(self.tokenizer, frame)

    def _from_bos_to_cue(self, ids: list[int], offsets: list[tuple[int, int]]) -> Encoded:
        """A plain prompt from its BOS, which not every tokenizer adds, to its cue, behind which some add an end."""
        bos = self.tokenizer.bos_token_id
        while ids and offsets[-1][0] == offsets[-1][1] and ids[-1] in self.tokenizer.all_special_ids:
            ids, offsets = ids[:-1], offsets[:-1]
        if bos is None or ids[:1] == [bos]:
            return ids, offsets
        return [bos, *ids], [(0, 0), *offsets]

    def question_only(self, questions: list[str]) -> list[list[int]]:
        """Token ids of the prompts with the context removed."""
        sources = [question_text(question) for question in questions]
        return [ids for ids, _ in self.tokenise([self.render(source) for source in sources], sources)]

    def prompts(self, rows: Sequence[dict[str, Any]]) -> list[Prompt]:
        """Tokenised prompts of rows with ``context``, ``question`` and ``answers``."""
        sources = [source_text(row["context"], row["question"]) for row in rows]
        texts = [self.render(source) for source in sources]
        encoded = self.tokenise(texts, sources)
        return [
            _located(row, source, text, ids, offsets)
            for row, source, text, (ids, offsets) in zip(rows, sources, texts, encoded, strict=True)
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


def _parts(context: str, ends: regex.Pattern[str]) -> list[tuple[int, int]]:
    """Character spans of what ``ends`` separates, each with the white space behind it."""
    edges = [0, *(match.end() for match in ends.finditer(context)), len(context)]
    return [(start, end) for start, end in zip(edges, edges[1:], strict=False) if end > start]


def trim_context(
    row: dict[str, Any], fits: Callable[[dict[str, Any]], bool], *, keep_answer: bool
) -> dict[str, Any] | None:
    """The row with as much of its context as fits: whole sentences, or words if not even one sentence does.

    Args:
        row: with ``context``, ``question`` and ``answers``.
        fits: predicate on a row; true for less text if it is for more.
        keep_answer: drop what is farthest from the first reference (training data only: it looks at the answer);
            otherwise the end.

    Returns:
        The trimmed row, or None if nothing that may be kept fits.
    """
    for ends in (_SENTENCE_ENDS, _WORD_ENDS):
        if (trimmed := _trimmed(row, _parts(row["context"], ends), fits, keep_answer=keep_answer)) is not None:
            return trimmed
    return None


def _trimmed(
    row: dict[str, Any],
    spans: list[tuple[int, int]],
    fits: Callable[[dict[str, Any]], bool],
    *,
    keep_answer: bool,
) -> dict[str, Any] | None:
    """The row with as many spans of its context as fit, by bisection."""
    answers = answer_spans(row)[:1] if keep_answer else []
    home = [i for i, (start, end) in enumerate(spans) if any(begin < end and start < stop for begin, stop in answers)]
    first, last = (home[0], home[-1]) if home else (0, 0)  # "U.S. Army" looks like the end of a sentence
    order = sorted(range(len(spans)), key=lambda index: (max(first - index, index - last), index))
    found = None
    least, most = last - first + 1, len(spans) - 1
    while least <= most:
        count = (least + most + 1) // 2
        trimmed = _kept(row, [spans[index] for index in sorted(order[:count])])
        if fits(trimmed):
            found, least = trimmed, count + 1
        else:
            most = count - 1
    return found


def _kept(row: dict[str, Any], spans: list[tuple[int, int]]) -> dict[str, Any]:
    context = "".join(row["context"][start:end] for start, end in spans).strip()
    texts = row["answers"]["text"]
    answers = {"text": texts, "answer_start": [context.find(text) for text in texts]}
    return {**row, "context": context, "answers": answers}
