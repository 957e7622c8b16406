"""Exact match and F1 as SQuAD v1.1 defines them (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1).

That definition is English. Two others differ in what of a text counts, the tokens: ``words``, without the punctuation
and symbols of any script and with all articles, and ``characters``, in which each character of a script without spaces
is a token, as in evaluations of Chinese (Lewis et al. 2020, MLQA, section 3.2). All scores are fractions from 0 to 1.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from latentwire.settings import Scoring

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """``text`` in lower case, without ASCII punctuation, English articles and extra whitespace.

    Punctuation goes first and leaves no space behind, so "U.S." becomes "us" and "the-end" keeps its "the".
    """
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


# Scripts that put no space between words, by what the names of their characters begin with.
_WITHOUT_SPACES = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")


def answer_tokens(text: str, scoring: Scoring = "squad") -> list[str]:
    """What of an answer counts."""
    if scoring == "squad":
        return normalize_answer(text).split()
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(character for character in folded if unicodedata.category(character)[0] not in "PS")
    if scoring == "characters":
        bare = "".join(f" {own} " if unicodedata.name(own, "").startswith(_WITHOUT_SPACES) else own for own in bare)
    return bare.split()


def has_latin_words(text: str) -> bool:
    """Whether a text holds a Latin letter or a digit, which the official definition was made for."""
    return any(own.isdecimal() or unicodedata.name(own, "").startswith("LATIN ") for own in text)


def exact_match(prediction: str, references: str | Sequence[str], scoring: Scoring = "squad") -> float:
    """1.0 if the normalised prediction equals any normalised reference, otherwise 0.0.

    Args:
        prediction: the generated answer.
        references: the accepted answers, or the only one.
        scoring: the definition.

    Raises:
        ValueError: there is no reference.
    """
    answer = answer_tokens(prediction, scoring)
    return float(any(answer == answer_tokens(reference, scoring) for reference in _listed(references)))


def f1(prediction: str, references: str | Sequence[str], scoring: Scoring = "squad") -> float:
    """The largest token F1 of the prediction over the references, from 0 to 1.

    A token counts as often as it occurs in both texts. Where both normalise to nothing the F1 is 0 although the
    exact match is 1: so says v1.1 (v2.0 differs).

    Args:
        prediction: the generated answer.
        references: the accepted answers, or the only one.
        scoring: the definition.

    Raises:
        ValueError: there is no reference.
    """
    answer = answer_tokens(prediction, scoring)
    return max(_token_f1(answer, answer_tokens(reference, scoring)) for reference in _listed(references))


def batch_metrics(preds: Sequence[str], refs: Sequence[str | Sequence[str]]) -> tuple[float, float]:
    """Mean exact match and mean F1 over examples.

    Args:
        preds: one generated answer an example.
        refs: the accepted answers of each example: a list, or a string if there is only one.

    Returns:
        ``(em, f1)`` as fractions from 0 to 1.

    Raises:
        TypeError: ``preds`` or ``refs`` is one string, which would be scored letter by letter.
        ValueError: the lengths differ, there is no example, or an example has no reference.
    """
    if isinstance(preds, str) or isinstance(refs, str):
        raise TypeError("preds and refs must be lists with one entry an example, got a single string")
    if len(preds) != len(refs):
        raise ValueError(f"expected as many predictions as reference lists, got {len(preds)} and {len(refs)}")
    if not preds:
        raise ValueError("expected at least one example to score, got none")
    for index, references in enumerate(refs):
        if not isinstance(references, str) and not references:
            raise ValueError(f"example {index} has no reference answer")
    pairs = list(zip(preds, refs, strict=True))
    em = sum(exact_match(prediction, references) for prediction, references in pairs)
    return em / len(pairs), sum(f1(prediction, references) for prediction, references in pairs) / len(pairs)


def _listed(references: str | Sequence[str]) -> Sequence[str]:
    listed = [references] if isinstance(references, str) else references
    if not listed:
        raise ValueError("expected at least one reference answer, got none")
    return listed


def _token_f1(prediction: list[str], reference: list[str]) -> float:
    shared = (Counter(prediction) & Counter(reference)).total()
    # 2PR / (P + R), with P = shared / len(prediction) and R = shared / len(reference), in one division.
    return 2 * shared / (len(prediction) + len(reference)) if shared else 0.0
