"""SQuAD v1.1 scoring against a second transcription of its definition, and against cases worked by hand."""

import string
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import latentwire.core_utils
from latentwire.evaluation.squad_metrics import batch_metrics, exact_match, f1, normalize_answer

WORDS = st.sampled_from(["the", "An", "a", "Denver", "denver", "Broncos", "the-end", "U.S.", "1,000", "é", "--", "\n"])
TEXTS = st.one_of(st.lists(WORDS, max_size=7).map(" ".join), st.text(alphabet="aAnthe b.,-' \t", max_size=12))
REFERENCES = st.lists(TEXTS, min_size=1, max_size=4)


def tokens_by_definition(text: str) -> list[str]:
    """Lower case, drop punctuation, drop articles, split at white space, without a regular expression."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [token for token in kept.split() if token not in ("a", "an", "the")]


def f1_by_definition(prediction: str, reference: str) -> Fraction:
    """Harmonic mean of precision and recall, the overlap counted by merging the two sorted token lists."""
    left, right = sorted(tokens_by_definition(prediction)), sorted(tokens_by_definition(reference))
    i = j = shared = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            shared += 1
        i, j = i + (left[i] <= right[j]), j + (right[j] <= left[i])
    if shared == 0:
        return Fraction(0)
    precision, recall = Fraction(shared, len(left)), Fraction(shared, len(right))
    return 2 * precision * recall / (precision + recall)


@given(TEXTS, REFERENCES)
@example("the", ["a", "an."])
@example("b b", ["b", "b b b"])
def test_scores_follow_the_definition(prediction: str, references: list[str]) -> None:
    expected_f1 = max(f1_by_definition(prediction, reference) for reference in references)
    expected_em = any(tokens_by_definition(prediction) == tokens_by_definition(reference) for reference in references)
    assert f1(prediction, references) == pytest.approx(float(expected_f1), abs=1e-12)
    assert exact_match(prediction, references) == float(expected_em)


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The Denver Broncos!", "denver broncos"),
        ("  a\tcat \n an  owl ", "cat owl"),
        ("U.S.", "us"),
        ("the-end", "theend"),  # punctuation goes before articles
        ("another theory", "another theory"),
        ("$1,000.50", "100050"),
        ("“the”", "“ ”"),  # only ASCII punctuation is removed
        ("The A.", ""),
    ],
)
def test_normalised_text(text: str, normalised: str) -> None:
    assert normalize_answer(text) == normalised


@pytest.mark.parametrize(
    ("prediction", "references", "em", "expected_f1"),
    [
        ("Denver Broncos", ["the Denver Broncos"], 1.0, 1.0),
        ("Denver", ["Denver Broncos"], 0.0, 2 / 3),
        ("Broncos Denver", ["Denver Broncos"], 0.0, 1.0),  # F1 ignores the order, exact match doesn't
        ("b b", ["b"], 0.0, 2 / 3),  # a multiset: a set would give 1
        ("b b c", ["b b d"], 0.0, 2 / 3),  # a set would give 1/2
        ("gold", ["silver", "gold medal", "gold"], 1.0, 1.0),
        ("gold", ["silver", "gold medal"], 0.0, 2 / 3),
        ("gold", ["silver"], 0.0, 0.0),
        ("", ["the"], 1.0, 0.0),  # both normalise to nothing: v1.1
        ("", ["gold"], 0.0, 0.0),
        ("gold", ["the"], 0.0, 0.0),
    ],
)
def test_known_scores(prediction: str, references: list[str], em: float, expected_f1: float) -> None:
    assert exact_match(prediction, references) == em
    assert f1(prediction, references) == pytest.approx(expected_f1)


@given(TEXTS, TEXTS)
def test_scores_are_symmetric_and_bounded(left: str, right: str) -> None:
    assert f1(left, right) == f1(right, left)
    assert exact_match(left, right) == exact_match(right, left)
    assert 0.0 <= f1(left, right) <= 1.0


@given(TEXTS, REFERENCES)
def test_an_exact_match_has_the_full_f1_unless_it_is_empty(prediction: str, references: list[str]) -> None:
    assume(exact_match(prediction, references) == 1.0)
    assert f1(prediction, references) == (1.0 if normalize_answer(prediction) else 0.0)


@given(TEXTS, REFERENCES, st.sampled_from(["the {}", "{} an", "'{}'", "{}!?", " {}\n", "A ({})"]))
def test_articles_punctuation_space_and_case_change_nothing(text: str, references: list[str], frame: str) -> None:
    framed = frame.format(text).upper()
    assert f1(framed, references) == f1(text, references)
    assert exact_match(framed, references) == exact_match(text, references)


@given(TEXTS, REFERENCES, TEXTS)
def test_another_reference_never_lowers_a_score(prediction: str, references: list[str], more: str) -> None:
    assert f1(prediction, [*references, more]) >= f1(prediction, references)
    assert exact_match(prediction, [*references, more]) >= exact_match(prediction, references)


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


def test_batch_is_the_mean_over_examples_as_exact_match_then_f1() -> None:
    assert batch_metrics(["gold", "Denver", "x"], [["gold"], "Denver Broncos", ["y", "z"]]) == pytest.approx(
        (1 / 3, (1 + 2 / 3) / 3)
    )


def test_a_string_is_one_reference_and_not_its_letters() -> None:
    assert batch_metrics(["c"], ["abc"]) == (0.0, 0.0)
    assert f1("c", "abc") == exact_match("c", "abc") == 0.0


def test_bad_batches_are_refused_by_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        batch_metrics(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least one example"):
        batch_metrics([], [])
    with pytest.raises(ValueError, match="example 1 has no reference"):
        batch_metrics(["a", "b"], [["a"], []])
    with pytest.raises(TypeError, match="single string"):
        batch_metrics("ab", ["a", "b"])
    for score in (exact_match, f1):
        with pytest.raises(ValueError, match="at least one reference"):
            score("a", [])


def test_the_earlier_name_is_the_same_function() -> None:
    assert latentwire.core_utils.batch_metrics is batch_metrics


# Other definitions


@pytest.mark.parametrize(
    ("scoring", "prediction", "reference", "expected_f1", "expected_em"),
    [
        ("squad", "北京。", "北京", 0.0, 0.0),
        ("words", "北京。", "北京", 1.0, 1.0),
        ("words", "«Elbe»", "“Elbe”", 1.0, 1.0),
        ("words", "Die Elbe", "the Elbe", 0.5, 0.0),  # no articles are dropped
        ("words", "STRASSE", "Straße", 1.0, 1.0),
        ("words", "Ｎａｔｏ", "nato", 1.0, 1.0),
        ("words", "北京市", "北京", 0.0, 0.0),
        ("characters", "北京市", "北京", 0.8, 0.0),
        ("characters", "在1949年，北京", "1949年", 2 * 2 / (5 + 2), 0.0),
        ("characters", "New York", "york", 2 / 3, 0.0),
        ("characters", "東京タワー", "東京タワー。", 1.0, 1.0),
        ("characters", "กรุงเทพ", "กรุง", 2 * 4 / (7 + 4), 0.0),
    ],
)
def test_other_definitions_on_cases_worked_by_hand(scoring, prediction, reference, expected_f1, expected_em):
    assert f1(prediction, reference, scoring) == pytest.approx(expected_f1)
    assert exact_match(prediction, reference, scoring) == expected_em


@given(st.lists(st.sampled_from(["Denver", "u.s.", "1,000", "x-y", "--", "\n"]), max_size=6).map(" ".join), REFERENCES)
def test_without_articles_all_definitions_agree_on_ascii(prediction, references):
    plain = [" ".join(word for word in text.split() if normalize_answer(word)) for text in references]
    plain = [text for text in plain if text.isascii()] or ["denver"]
    for scoring in ("words", "characters"):
        expected = max(f1_by_definition(prediction, text) for text in map(normalize_answer, plain))
        without = [normalize_answer(text) for text in plain]
        assert f1(prediction, without, scoring) == pytest.approx(float(expected))
