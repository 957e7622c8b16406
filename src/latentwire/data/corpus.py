"""A generator of invented question-answering articles in the official SQuAD v1.1 layout.

An article is a small invented world: persons, places, organisations and works whose facts stay the same
wherever they are mentioned in it. A paragraph tells of two subjects. Each is linked to another entity (a person to a
birthplace, say), and each subject and each linked entity has one more fact, so that every entity stands in at least
two sentences and every question has distractors: other relations of the same entity, and in a share of the
paragraphs the same relation of another one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from latentwire.data import lexicon

Article = dict[str, Any]


@dataclass(frozen=True)
class Relation:
    """One kind of fact: its sentences and its questions, with ``{s}`` the subject and ``{o}`` the object."""

    object_kind: str
    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    reverse_questions: tuple[str, ...] = ()


LINKS: dict[str, tuple[Relation, ...]] = {
    "person": (
        Relation(
            "place",
            ("{s} was born in {o}.", "{s} grew up in {o}.", "The childhood home of {s} was {o}."),
            ("Where was {s} born?", "In which place did {s} grow up?"),
            ("Who was born in {o}?", "Who grew up in {o}?"),
        ),
        Relation(
            "organisation",
            ("{s} worked for the {o}.", "{s} was hired by the {o}.", "The employer of {s} was the {o}."),
            ("Who hired {s}?", "Which organisation was the employer of {s}?"),
            ("Who worked for the {o}?", "Who was hired by the {o}?"),
        ),
        Relation(
            "work",
            ("{s} wrote {o}.", "{s} is the author of {o}.", "The best known book of {s} is {o}."),
            ("Which book did {s} write?", "What is {s} the author of?"),
            ("Who wrote {o}?", "Who is the author of {o}?"),
        ),
    ),
    "organisation": (
        Relation(
            "person",
            ("The {s} was founded by {o}.", "The founder of the {s} was {o}."),
            ("Who founded the {s}?", "Who was the founder of the {s}?"),
            ("What was founded by {o}?", "Which organisation did {o} found?"),
        ),
        Relation(
            "place",
            ("The {s} has its seat in {o}.", "The {s} is based in {o}.", "The seat of the {s} is {o}."),
            ("Where is the {s} based?", "In which place does the {s} have its seat?"),
            ("What is based in {o}?", "Which organisation has its seat in {o}?"),
        ),
    ),
    "work": (
        Relation(
            "place",
            ("{s} is set in {o}.", "The story of {s} takes place in {o}."),
            ("Where is {s} set?", "In which place does the story of {s} take place?"),
            ("Which book is set in {o}?", "What takes place in {o}?"),
        ),
        Relation(
            "person",
            ("{s} was translated by {o}.", "The translator of {s} was {o}."),
            ("Who translated {s}?", "Who was the translator of {s}?"),
            ("What did {o} translate?", "Which book was translated by {o}?"),
        ),
    ),
}

FACTS: dict[str, tuple[Relation, ...]] = {
    "person": (
        Relation(
            "occupation",
            ("{s} earned a living as a {o}.", "By profession {s} was a {o}.", "{s} became a {o}."),
            ("What was the profession of {s}?", "As what did {s} earn a living?"),
        ),
        Relation(
            "field",
            ("{s} studied {o}.", "At university {s} read {o}.", "{s} held a degree in {o}."),
            ("What did {s} study?", "In which field did {s} hold a degree?"),
        ),
        Relation(
            "year",
            ("{s} died in {o}.", "The death of {s} came in {o}."),
            ("When did {s} die?", "In which year did the death of {s} come?"),
        ),
    ),
    "place": (
        Relation(
            "river",
            ("{s} lies on the river {o}.", "The river {o} flows through {s}."),
            ("On which river does {s} lie?", "Which river flows through {s}?"),
        ),
        Relation(
            "product",
            ("{s} is known for its {o}.", "Many traders come to {s} for its {o}."),
            ("What is {s} known for?", "For what do traders come to {s}?"),
        ),
    ),
    "organisation": (
        Relation(
            "product",
            ("The {s} makes {o}.", "The {s} is a maker of {o}.", "Most of the income of the {s} comes from {o}."),
            ("What does the {s} make?", "From what does the income of the {s} come?"),
        ),
        Relation(
            "year",
            ("The {s} opened in {o}.", "The opening of the {s} was in {o}."),
            ("When did the {s} open?", "In which year was the opening of the {s}?"),
        ),
    ),
    "work": (
        Relation(
            "theme",
            ("{s} is a tale of {o}.", "The theme of {s} is {o}."),
            ("What is the theme of {s}?", "Of what is {s} a tale?"),
        ),
        Relation(
            "year",
            ("{s} was printed in {o}.", "The first printing of {s} was in {o}."),
            ("When was {s} printed?", "In which year was the first printing of {s}?"),
        ),
    ),
}


@dataclass(frozen=True)
class Fact:
    """One sentence of a paragraph and what can be asked about it."""

    subject: str
    relation: Relation
    object: str


@dataclass
class World:
    """The invented entities of one article; a relation of an entity has one value in all its paragraphs."""

    rng: random.Random
    words: dict[str, lexicon.WordList]
    values: dict[tuple[str, Relation], str] = field(default_factory=dict)

    def invent(self, kind: str) -> str:
        """A new value of ``kind``: an entity's name, a year, or a phrase."""
        rng, words = self.rng, self.words
        match kind:
            case "person":
                return words[rng.choice(("given", "surname"))].draw(rng)
            case "place":
                prefix = f"{rng.choice(lexicon.PLACE_PREFIXES)} " if rng.random() < 0.2 else ""
                return prefix + words["place"].draw(rng)
            case "organisation":
                name = words[rng.choice(("surname", "place"))].draw(rng)
                return f"{name} {rng.choice(lexicon.ORGANISATION_KINDS)}"
            case "work":
                return f"The {rng.choice(lexicon.ADJECTIVES)} {rng.choice(lexicon.NOUNS)}"
            case "river":
                return words["river"].draw(rng)
        phrases = {
            "occupation": lexicon.OCCUPATIONS,
            "field": lexicon.FIELDS,
            "product": lexicon.PRODUCTS,
            "theme": lexicon.THEMES,
            "year": lexicon.YEARS,
        }
        return rng.choice(phrases[kind])

    def value(self, subject: str, relation: Relation, taken: set[str]) -> str | None:
        """The object of ``relation`` for ``subject``, or None if it is already in ``taken``."""
        key = (subject, relation)
        if key not in self.values:
            self.values[key] = self.invent(relation.object_kind)
        known = self.values[key]
        return None if known in taken else known


@dataclass(frozen=True)
class Chain:
    """The relations told of one subject: its link to another entity, its own fact, and the linked entity's fact."""

    kind: str
    link: Relation
    own: Relation
    other: Relation

    @property
    def relations(self) -> set[Relation]:
        """All three."""
        return {self.link, self.own, self.other}


def _draw_chain(rng: random.Random) -> Chain:
    kind = rng.choice(tuple(LINKS))
    link = rng.choice(LINKS[kind])
    return Chain(kind, link, rng.choice(FACTS[kind]), rng.choice(FACTS[link.object_kind]))


def _draw_chains(rng: random.Random, count: int, same_relations: float) -> list[Chain]:
    """The paragraph's chains: with probability ``same_relations`` alike, otherwise without a relation in common."""
    chains = [_draw_chain(rng)]
    alike = rng.random() < same_relations
    while len(chains) < count:
        drawn = chains[0] if alike else _draw_chain(rng)
        if alike or all(drawn.relations.isdisjoint(chain.relations) for chain in chains):
            chains.append(drawn)
    return chains


def _paragraph_facts(
    world: World, pool: dict[str, list[str]], chains: list[Chain], facts_per_chain: int
) -> list[Fact] | None:
    """The facts of a paragraph, or None if a drawn value would make them ambiguous."""
    facts: list[Fact] = []
    taken: set[str] = set()
    for chain in chains:
        subject = world.rng.choice(pool[chain.kind])
        linked = world.value(subject, chain.link, taken | {subject})
        if linked is None or subject in taken:
            return None
        taken |= {subject, linked}
        own = world.value(subject, chain.own, taken)
        other = world.value(linked, chain.other, taken | {own or ""})
        if own is None or other is None:
            return None
        taken |= {own, other}
        facts += [
            Fact(subject, chain.link, linked),
            Fact(subject, chain.own, own),
            Fact(linked, chain.other, other),
        ][:facts_per_chain]
    if any(a != b and a in b for a in taken for b in taken):
        return None  # a name inside another one would make answer_start ambiguous
    return facts


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]


def _tell(facts: list[Fact], rng: random.Random) -> str:
    """The paragraph's text: one sentence a fact, in random order."""
    sentences = [_capitalise(rng.choice(f.relation.sentences).format(s=f.subject, o=f.object)) for f in facts]
    rng.shuffle(sentences)
    return " ".join(sentences)


def _ask(facts: list[Fact], rng: random.Random, count: int) -> list[tuple[str, str]]:
    """``count`` (question, answer) pairs about different facts or directions."""
    options: list[tuple[Fact, bool]] = [(fact, False) for fact in facts]
    options += [(fact, True) for fact in facts if fact.relation.reverse_questions]
    pairs = []
    for fact, reverse in rng.sample(options, min(count, len(options))):
        wordings = fact.relation.reverse_questions if reverse else fact.relation.questions
        question = rng.choice(wordings).format(s=fact.subject, o=fact.object)
        pairs.append((question, fact.subject if reverse else fact.object))
    return pairs


def generate_article(
    seed: int,
    index: int,
    *,
    paragraphs: int = 6,
    questions: int = 5,
    chains: int = 2,
    facts_per_chain: int = 3,
    same_relations: float = 0.1,
    tail: float = 0.6,
) -> Article:
    """Article ``index`` of the corpus with this ``seed``; articles are independent of each other.

    Args:
        seed: the corpus; two seeds share words but no article.
        index: the article's number in the corpus, from 0.
        paragraphs: paragraphs in the article.
        questions: questions about each paragraph (at most four per chain).
        chains: subjects told of in a paragraph.
        facts_per_chain: facts about each: its link, then its own fact, then the linked entity's. Only three give
            every entity two sentences; fewer are easier paragraphs to begin training with.
        same_relations: share of the paragraphs that tell the same relations of every subject, so that a question has
            distractors of its own relation.
        tail: exponent of the names' long-tailed frequencies.

    Returns:
        One entry of official SQuAD v1.1 ``data``: ``title`` and ``paragraphs`` with ``context`` and ``qas``.
    """
    rng = random.Random(f"latentwire-demo-corpus/{seed}/{index}")
    world = World(rng, lexicon.word_lists(tail))
    title = f"{world.invent('place')} ({seed}-{index})"
    pool = {kind: sorted({world.invent(kind) for _ in range(6)}) for kind in LINKS}
    entries: list[dict[str, Any]] = []
    while len(entries) < paragraphs:
        facts = _paragraph_facts(world, pool, _draw_chains(rng, chains, same_relations), facts_per_chain)
        if facts is None:
            continue
        context = _tell(facts, rng)
        qas = [
            {
                "id": f"demo-{seed}-{index}-{len(entries)}-{number}",
                "question": question,
                "answers": [{"text": answer, "answer_start": context.index(answer)}],
            }
            for number, (question, answer) in enumerate(_ask(facts, rng, questions))
        ]
        entries.append({"context": context, "qas": qas})
    return {"title": title, "paragraphs": entries}


def generate_articles(seed: int, *, start: int = 0, **options: Any) -> Iterator[Article]:
    """Articles ``start``, ``start + 1``, … of the corpus with this ``seed``, without end."""
    index = start
    while True:
        yield generate_article(seed, index, **options)
        index += 1


def generate_corpus(seed: int, articles: int, *, start: int = 0, **options: Any) -> dict[str, Any]:
    """A whole corpus in the official SQuAD v1.1 layout: ``{"version": "1.1", "data": [article, …]}``."""
    data = [generate_article(seed, start + index, **options) for index in range(articles)]
    return {"version": "1.1", "data": data}


def demo_splits(seed: int, *, train_articles: int = 120, dev_articles: int = 60) -> dict[str, dict[str, Any]]:
    """The demo's ``train`` and ``validation`` corpora: disjoint articles of one seed."""
    return {
        "train": generate_corpus(seed, train_articles),
        "validation": generate_corpus(seed, dev_articles, start=train_articles),
    }
