"""Tokens of a text that stays text: none of its characters becomes a control token.

Control tokens are looked for among the tokens that were made of the text, not by their names in it: tokenizers may
normalise a text before they look for names.
"""

from __future__ import annotations

import itertools
from collections.abc import Set
from typing import Any

from latentwire.errors import InputError
from latentwire.lm import added_names, control_tokens

# Token ids, and the characters of each token, from and to.
Encoded = tuple[list[int], list[tuple[int, int]]]
Span = tuple[int, int]


def forbidden_tokens(tokenizer: Any, frame: list[int]) -> set[int]:
    """Tokens that no text may become: control tokens, and added ones that stand around a text.

    Args:
        tokenizer: of the model.
        frame: token ids of a rendered prompt; added tokens that are mere words don't count.
    """
    marks = {token for token, name in added_names(tokenizer).items() if not name.strip().isalnum()}
    # Unknown characters are no control tokens, unless their token is one of these, too.
    unknown = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    return {*control_tokens(tokenizer), *(marks & {*frame})} - unknown


def spans_of(forbidden: Set[int], encoded: Encoded, within: Span) -> list[Span]:
    """The characters of forbidden tokens that were made, at least in part, of characters ``within`` a span."""
    return [
        (begin, end)
        for token, (begin, end) in zip(*encoded, strict=True)
        if token in forbidden and begin < end and begin < within[1] and within[0] < end
    ]


def encode_around(tokenizer: Any, forbidden: Set[int], text: str, span: Span) -> Encoded:
    """A rendered prompt whose part at ``span`` stays text.

    Raises:
        InputError: the tokenizer takes a single character of it for a control token.
    """
    start, end = span
    before, after = _part(tokenizer, text, 0, start), _part(tokenizer, text, end, len(text))
    return _joined([before, *_literal(tokenizer, forbidden, text, span), after])


def _literal(tokenizer: Any, forbidden: Set[int], text: str, span: Span) -> list[Encoded]:
    """The parts of a span: what the tokenizer still takes for a control token is cut behind its first character."""
    cuts = {*span}
    while True:
        parts = [_part(tokenizer, text, *own, literal=True) for own in itertools.pairwise(sorted(cuts))]
        found = [own for part in parts for own in spans_of(forbidden, part, span)]
        if not found:
            return parts
        if single := next((text[begin:end] for begin, end in found if end == begin + 1), None):
            raise InputError(f"the tokenizer takes {single!r} in a text for a control token: replace it in the data")
        cuts |= {begin + 1 for begin, _ in found}


def _part(tokenizer: Any, text: str, begin: int, end: int, *, literal: bool = False) -> Encoded:
    """A part of a text, with offsets in the whole."""
    part = tokenizer(
        text[begin:end], add_special_tokens=False, split_special_tokens=literal, return_offsets_mapping=True
    )
    return part["input_ids"], [(begin + first, begin + last) for first, last in part["offset_mapping"]]


def _joined(parts: list[Encoded]) -> Encoded:
    return [token for ids, _ in parts for token in ids], [own for _, offsets in parts for own in offsets]
