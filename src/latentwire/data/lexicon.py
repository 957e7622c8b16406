"""The invented words of the demo corpus, as fixed lists.

The lists depend on no corpus seed: the reader's tokenizer has one token per word, so every corpus draws
from the same words, and only who is who differs between seeds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

_ONSETS = "b br c cl d dr f fl g gr h j k kr l m n p pl qu r s sk st t th tr v w z".split()
_VOWELS = "a e i o u ae ei ia ou".split()
_CODAS = {
    "given": ["n", "ra", "lin", "s", "mar", "vi", "dan", "ta", "rik", "leth", "no", "wen"],
    "surname": ["noth", "vard", "skel", "mont", "brin", "dahl", "rova", "tzer", "quill", "hart", "stran", "peck"],
    "place": ["burg", "ford", "mere", "holm", "wick", "stad", "vale", "port", "dune", "fell", "crest", "moor"],
    "river": ["sk", "der", "lo", "ne", "th", "rin"],
}
_LEXICON_SEED = 20

ADJECTIVES = tuple(
    "Silent Crimson Hollow Golden Broken Distant Gentle Iron Winter Northern Hidden Burning Pale Restless Amber "
    "Forgotten Scarlet Wandering Silver Quiet Ancient Bitter Velvet Frozen Paper Copper Midnight Endless Salt "
    "Painted Lonely Emerald Borrowed Second Drowned Patient Shining Narrow Stolen Crooked".split()
)
NOUNS = tuple(
    "Harbour Garden Lantern Orchard Bridge Mirror Compass Tower Meadow Letter Voyage Clock Island Window Forest "
    "Violin Candle Winter Staircase Ribbon Anchor Feather Cathedral Market River Ladder Curtain Sparrow Atlas "
    "Fountain Kingdom Shoreline Telegram Quarry Labyrinth Umbrella Archive Beacon Chapel Tide".split()
)
ORGANISATION_KINDS = tuple("Foundry Institute Press Guild Bank Observatory Theatre Academy Mill Brewery".split())
PLACE_PREFIXES = tuple("Port Upper Lower North South East West New Old Lake".split())
OCCUPATIONS = tuple(
    f"{field} {trade}"
    for field in "marine rural royal chief travelling village court military".split()
    for trade in "surgeon painter engineer poet judge botanist architect cellist geologist tailor printer".split()
)
FIELDS = tuple(
    f"{kind} {subject}"
    for kind in "classical applied modern comparative medieval experimental".split()
    for subject in "astronomy law music chemistry history philosophy geography medicine optics grammar".split()
)
PRODUCTS = tuple(
    f"{material} {thing}"
    for material in "brass glass woollen oak leather porcelain steel silk clay walnut".split()
    for thing in "bells lamps boots barrels clocks carpets saddles bottles chairs buttons pipes kettles".split()
)
THEMES = tuple(
    f"{kind} {theme}"
    for kind in "lost forbidden family civil childhood imperial".split()
    for theme in "love war exile friendship treason grief ambition migration drought memory".split()
)
YEARS = tuple(str(year) for year in range(1640, 1960))


@dataclass(frozen=True)
class WordList:
    """Invented words with long-tailed sampling weights: weight of rank r is ``(r + 1) ** -tail``."""

    words: tuple[str, ...]
    cumulative_weights: tuple[float, ...]

    def draw(self, rng: random.Random) -> str:
        """One word, the first ones far more often than the last."""
        return rng.choices(self.words, cum_weights=self.cumulative_weights)[0]


def _invent(kind: str, count: int, rng: random.Random, taken: set[str]) -> tuple[str, ...]:
    words: list[str] = []
    while len(words) < count:
        stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 1, 2))))
        word = (stem + rng.choice(_CODAS[kind])).capitalize()
        if word not in taken:
            taken.add(word)
            words.append(word)
    return tuple(words)


@cache
def word_lists(tail: float = 0.6) -> dict[str, WordList]:
    """The invented words by kind: ``given``, ``surname``, ``place`` and ``river``; no word is in two kinds."""
    rng = random.Random(_LEXICON_SEED)
    taken: set[str] = set(ADJECTIVES) | set(NOUNS) | set(ORGANISATION_KINDS) | set(PLACE_PREFIXES)
    sizes = {"given": 700, "surname": 1100, "place": 900, "river": 160}
    lists = {}
    for kind, size in sizes.items():
        weights = tuple(accumulate((rank + 1) ** -tail for rank in range(size)))
        lists[kind] = WordList(_invent(kind, size, rng, taken), weights)
    return lists
