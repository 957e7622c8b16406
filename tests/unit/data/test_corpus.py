"""The demo corpus: valid SQuAD about invented worlds, deterministic, and hard enough to tell arms apart."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentwire.data.corpus import FACTS, LINKS, Relation, demo_splits, generate_article, generate_corpus
from latentwire.data.squad import flatten_squad
from latentwire.files import hash_of
from latentwire.readers.small import ReaderSettings

RELATIONS = [relation for relations in (*LINKS.values(), *FACTS.values()) for relation in relations]


@pytest.fixture(scope="module")
def splits() -> dict:
    return demo_splits(0)


def paragraphs_of(corpus: dict) -> list[dict]:
    return [paragraph for article in corpus["data"] for paragraph in article["paragraphs"]]


def told(context: str) -> list[tuple[Relation, str, str]]:
    """The facts of a paragraph, read back from its sentences by the relations' wordings."""
    patterns = [
        (relation, re.compile(re.escape(wording).replace(r"\{s\}", "(?P<s>.+)").replace(r"\{o\}", "(?P<o>.+)")))
        for relation in RELATIONS
        for wording in relation.sentences
    ]
    facts = []
    for sentence in re.findall(r"[^.]+\.", context):
        for relation, pattern in patterns:
            found = pattern.fullmatch(sentence.strip())
            if found:
                facts.append((relation, found["s"].removeprefix("The "), found["o"].removeprefix("The ")))
    return facts


def test_it_is_valid_squad_with_exact_answer_starts(splits):
    for name, corpus in splits.items():
        assert corpus["version"] == "1.1"
        rows = flatten_squad(corpus, name)
        for row in rows:
            for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
                assert row["context"][start : start + len(text)] == text
    assert len(flatten_squad(splits["train"], "train")) == 120 * 6 * 5


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_an_article_is_a_function_of_its_seed_and_number(seed, index):
    assert generate_article(seed, index) == generate_article(seed, index)
    assert generate_article(seed, index) != generate_article(seed + 1, index)
    assert generate_article(seed, index) != generate_article(seed, index + 1)


def test_the_corpus_is_the_same_in_every_process():
    """Whatever order Python's sets have there."""
    program = (
        "from latentwire.data.corpus import generate_corpus; from latentwire.files import hash_of; "
        "print(hash_of(generate_corpus(0, 10)))"
    )
    source = Path(__file__).parents[3] / "src"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(source)}
        found = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == hash_of(generate_corpus(0, 10))


def test_a_corpus_is_its_articles_whatever_number_it_starts_at():
    whole = generate_corpus(4, 5)["data"]
    assert generate_corpus(4, 3, start=2)["data"] == whole[2:]
    assert [article["title"] for article in whole] == [generate_article(4, index)["title"] for index in range(5)]


def test_seeds_share_no_article_no_paragraph_and_no_question_id():
    seeds = (0, 1, ReaderSettings().seed)
    corpora = [generate_corpus(seed, 40) for seed in seeds]
    for ours, theirs in itertools.combinations(corpora, 2):
        for part in (
            lambda corpus: {article["title"] for article in corpus["data"]},
            lambda corpus: {paragraph["context"] for paragraph in paragraphs_of(corpus)},
            lambda corpus: {row["id"] for row in flatten_squad(corpus, "x")},
        ):
            assert not part(ours) & part(theirs)


def test_train_and_validation_share_no_article(splits):
    train, validation = ({article["title"] for article in splits[name]["data"]} for name in ("train", "validation"))
    assert (len(train), len(validation)) == (120, 60)
    assert not train & validation


def test_every_entity_stands_in_at_least_two_sentences(splits):
    """Subjects and what they are linked to: otherwise a prompt's perplexity is blind to the answers."""
    for paragraph in paragraphs_of(splits["validation"]):
        sentences = re.findall(r"[^.]+\.", paragraph["context"])
        links = [fact for fact in told(paragraph["context"]) if fact[0] in itertools.chain(*LINKS.values())]
        assert len(links) == 2
        for _, subject, linked in links:
            for entity in (subject, linked):
                assert sum(entity in sentence for sentence in sentences) >= 2, (entity, paragraph["context"])


def relations_in_common(paragraph: dict) -> int:
    """How many relations a paragraph tells twice: of both subjects, or of what they are linked to."""
    facts = told(paragraph["context"])
    assert len(facts) == 6
    return 6 - len({relation for relation, _, _ in facts})


def test_every_question_has_a_distractor_about_the_same_entity(splits):
    for paragraph in paragraphs_of(splits["validation"]):
        facts = told(paragraph["context"])
        for fact in facts:
            others = [other for other in facts if other is not fact and {*fact[1:]} & {*other[1:]}]
            assert any(other[0] is not fact[0] for other in others), (fact, paragraph["context"])


def test_some_paragraphs_tell_the_same_relations_of_both_subjects_with_other_values(splits):
    """There a question has distractors of its own relation: the kind of word alone does not give the answer."""
    shared = [relations_in_common(paragraph) for paragraph in paragraphs_of(splits["validation"])]
    assert set(shared) == {0, 3}
    assert 0.05 < shared.count(3) / len(shared) < 0.3
    for paragraph in paragraphs_of(generate_corpus(0, 10, same_relations=1.0)):
        assert relations_in_common(paragraph) == 3
        facts = sorted(told(paragraph["context"]), key=lambda fact: fact[0].sentences)
        for first, second in zip(facts[::2], facts[1::2], strict=True):
            assert first[0] is second[0] and len({*first[1:], *second[1:]}) == 4
    assert not any(relations_in_common(p) for p in paragraphs_of(generate_corpus(0, 10, same_relations=0.0)))


def test_every_answer_is_told_in_its_paragraph_and_is_not_in_its_question(splits):
    for paragraph in paragraphs_of(splits["validation"]):
        names = {name for _, *pair in told(paragraph["context"]) for name in pair}
        for qa in paragraph["qas"]:
            answer = qa["answers"][0]["text"]
            assert answer.removeprefix("The ") in names
            assert answer not in qa["question"]


def test_a_fact_has_one_value_in_the_whole_article(splits):
    for article in splits["validation"]["data"]:
        values: dict[tuple[tuple[str, ...], str], str] = {}
        for paragraph in article["paragraphs"]:
            for relation, subject, value in told(paragraph["context"]):
                assert values.setdefault((relation.sentences, subject), value) == value


def test_one_paragraph_has_one_question_of_a_kind(splits):
    for paragraph in paragraphs_of(splits["train"]):
        questions = [qa["question"] for qa in paragraph["qas"]]
        assert len(questions) == len(set(questions)) == 5


def test_many_answers_are_of_several_words(splits):
    answers = [row["answers"]["text"][0] for row in flatten_squad(splits["validation"], "x")]
    words = Counter(len(answer.split()) for answer in answers)
    assert sum(count for size, count in words.items() if size > 1) > 0.3 * len(answers)
    assert words[1] > 0.2 * len(answers)
    assert words[3] > 0


def test_there_are_several_thousand_token_types_and_some_answers_hold_one_that_training_never_saw(
    splits, renderer, tokenizer
):
    seen, answered = {}, {}
    for name, corpus in splits.items():
        prompts = renderer.prompts(flatten_squad(corpus, name))
        seen[name] = {token for prompt in prompts for token in prompt.input_ids}
        answered[name] = [
            {token for token, on in zip(prompt.input_ids, prompt.answer_mask, strict=True) if on} for prompt in prompts
        ]
    assert len(tokenizer) > 3000
    assert len(seen["train"] | seen["validation"]) > 2000
    unseen = [bool(tokens - seen["train"]) for tokens in answered["validation"]]
    assert 0.02 < sum(unseen) / len(unseen) < 0.3


@pytest.mark.parametrize(("facts", "sentences"), [(1, 2), (2, 4), (3, 6)])
def test_easier_paragraphs_to_begin_training_with(facts, sentences):
    for paragraph in paragraphs_of(generate_corpus(0, 4, facts_per_chain=facts)):
        assert len(told(paragraph["context"])) == sentences


def test_it_is_json(splits):
    assert json.loads(json.dumps(splits)) == splits
