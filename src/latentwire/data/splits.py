"""Splits by article: no article is in two of ``train``, ``gate`` and ``final``."""

from __future__ import annotations

import html
import logging
import random
import unicodedata

import pandas as pd
import regex

from latentwire.errors import InputError

log = logging.getLogger(__name__)

_UNWRITTEN = regex.compile(r"[\s\p{P}\p{Default_Ignorable_Code_Point}\p{Cc}]+")

SPLITS = ("train", "gate", "final")


def _cut_articles(titles: list[str], shares: list[float], rng: random.Random) -> list[set[str]]:
    """Shuffled titles in consecutive parts of about these shares."""
    shuffled = sorted(titles)
    rng.shuffle(shuffled)
    parts, count = len(shares), len(shuffled)
    # Rounded, but no part is left empty if there is an article for each.
    edges = [min(max(round(sum(shares[:i]) * count), i), max(count - parts + i, 0)) for i in range(parts + 1)]
    return [set(shuffled[start:end]) for start, end in zip(edges, edges[1:], strict=False)]


def assign_articles(train_titles: list[str], dev_titles: list[str] | None, seed: int) -> dict[str, set[str]]:
    """The articles of each split.

    With a development set, ``train`` is all training articles and ``gate`` and ``final`` are halves of the
    development set's, so that both are scored under one reference policy. A single source is cut 60/20/20.

    Raises:
        InputError: a split would have no article, or an article stands in both sources.
    """
    rng = random.Random(seed)
    if dev_titles is None:
        train, gate, final = _cut_articles(train_titles, [0.6, 0.2, 0.2], rng)
    else:
        both = set(train_titles) & set(dev_titles)
        if both:
            raise InputError(
                f"{len(both)} articles are in both sources, {sorted(both)[0]!r} for one: splits would leak"
            )
        train = set(train_titles)
        gate, final = _cut_articles(dev_titles, [0.5, 0.5], rng)
    articles = {"train": train, "gate": gate, "final": final}
    for name, titles in articles.items():
        if not titles:
            raise InputError(
                f"no article is left for the split {name!r}: the source has {len(train_titles)} training and "
                f"{len(dev_titles or [])} development articles; splits are by article and need at least one each"
            )
    return articles


def _written(context: str) -> str:
    """What is written in a paragraph: no white space, no punctuation, nothing invisible, no case, in one normal form.

    Entities of HTML are what they stand for. A paragraph of punctuation alone is itself.
    """
    normal = unicodedata.normalize("NFKC", html.unescape(context)).casefold()
    return _UNWRITTEN.sub("", normal) or context


def join_articles(train: pd.DataFrame, dev: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The rows with one title for articles that share a paragraph, whatever their titles were.

    The same text under another title would be in training and in evaluation. Paragraphs are the same if their letters,
    digits and symbols are; one with a sentence more is another one.
    """
    sources = [train] if dev is None else [train, dev]
    joined: dict[str, str] = {}

    def first_of(title: str) -> str:
        while title in joined:
            title = joined[title]
        return title

    owner: dict[str, str] = {}
    for rows in sources:
        for title, context in rows[["title", "context"]].drop_duplicates().itertuples(index=False):
            one, other = first_of(owner.setdefault(_written(context), title)), first_of(title)
            if one != other:
                log.warning("articles %r and %r share a paragraph: they count as one article", one, other)
                joined[other] = one
    if not joined:
        return train, dev
    renamed = [rows.assign(title=rows["title"].map(first_of)) for rows in sources]
    return renamed[0], None if dev is None else renamed[1]


def sample_rows(
    rows: pd.DataFrame, samples: int | None, seed: int, *, name: str, spread: bool = False
) -> pd.DataFrame:
    """A seeded sample of ``samples`` rows (all if None), in the seed's random order.

    If there are fewer, all are taken, with a warning that calls them ``name``. With ``spread`` every article gives one
    row before any gives a second one, and so on.
    """
    if samples is not None and samples > len(rows):
        log.warning("%s: %d questions were asked for and there are %d: all are taken", name, samples, len(rows))
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if spread:
        earlier = rows["title"].iloc[order].groupby(rows["title"].iloc[order]).cumcount()
        order = [index for _, index in sorted(zip(earlier, order, strict=True), key=lambda pair: pair[0])]
    return rows.iloc[order[:samples]].reset_index(drop=True)
