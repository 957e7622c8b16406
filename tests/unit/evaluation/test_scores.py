"""Scores: one row a question and arm, nothing missing, nothing twice, collapse counted."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.errors import InputError
from latentwire.evaluation.generate import first_line
from latentwire.evaluation.scores import (
    distinct_1,
    is_degenerate,
    is_wrapped,
    score_predictions,
    scoring_warnings,
    summarise_arm,
)


def split(questions: int = 6) -> pd.DataFrame:
    """Questions ``q0``, ``q1``, … of three articles; the answer of ``q2`` alone holds an unseen token type."""
    return pd.DataFrame(
        {
            "id": [f"q{i}" for i in range(questions)],
            "article": [f"a{i % 3}" for i in range(questions)],
            "answers": [np.array([f"name {i}", f"the name {i} again"], dtype=object) for i in range(questions)],
            "unseen_answer_type": [i == 2 for i in range(questions)],
            "input_ids": [np.arange(i + 1) for i in range(questions)],
        }
    )


def records(arm: str, predictions: dict[str, str], finished: str = "stop") -> list[dict]:
    return [
        {
            "arm": arm,
            "k": None,
            "seed": None,
            "id": key,
            "article": "x",
            "prediction": text,
            "tokens": 2,
            "finished": finished,
        }
        for key, text in predictions.items()
    ]


RIGHT = {f"q{i}": f"name {i}" for i in range(6)}


def test_each_question_gets_its_best_reference_and_its_own_article():
    predictions = RIGHT | {"q1": "name one", "q2": "name 2 again", "q3": ""}
    scored = score_predictions(records("text", predictions), split(), 2)
    assert scored["id"].tolist() == list(RIGHT)
    assert scored["article"].tolist() == split()["article"].tolist()
    assert scored["em"].tolist() == [1, 0, 1, 0, 1, 1]
    assert scored["f1"].tolist() == pytest.approx([1, 0.5, 1, 0, 1, 1])


def test_the_order_of_predictions_and_of_shards_does_not_matter():
    rows = records("text", RIGHT) + records("pca", RIGHT | {"q0": "wrong"})
    scored = score_predictions(rows, split(), 2)
    shuffled = score_predictions(rows[::-1], split(), 2)
    for arm in ("text", "pca"):
        pd.testing.assert_frame_equal(
            scored[scored["arm"] == arm].reset_index(drop=True),
            shuffled[shuffled["arm"] == arm].reset_index(drop=True),
        )


@pytest.mark.parametrize(
    "rows",
    [
        records("pca", {k: v for k, v in RIGHT.items() if k != "q4"}),
        records("pca", RIGHT) + records("pca", {"q4": "name 4"}),
        records("pca", {k: v for k, v in RIGHT.items() if k != "q4"}) + records("pca", {"q5": "again"}),
        records("pca", RIGHT | {"other": "x"}),
        records("pca", {k: v for k, v in RIGHT.items() if k != "q4"} | {"other": "x"}),
    ],
    ids=["missing", "twice", "one for another", "foreign", "foreign for missing"],
)
def test_an_arm_without_exactly_one_prediction_for_each_question_is_refused(rows):
    with pytest.raises(InputError, match=r"arm 'pca': \d predictions .*6 questions.*again"):
        score_predictions(records("text", RIGHT) + rows, split(), 2)


def test_no_prediction_at_all_is_refused():
    with pytest.raises(InputError, match="no predictions"):
        score_predictions([], split(), 2)


def test_identity_answers_its_own_batches_and_nothing_else():
    """Batches of two: of six questions in the order of their length, three samples take the first and the second."""
    identity = records("identity", {k: RIGHT[k] for k in ("q0", "q1", "q2", "q3")})
    scored = score_predictions(records("text", RIGHT) + identity, split(), 2, identity_samples=3)
    assert scored.groupby("arm").size().to_dict() == {"text": 6, "identity": 4}
    for wrong in (identity[:3], [*identity[:3], records("identity", RIGHT)[4]]):
        with pytest.raises(InputError, match="arm 'identity': . predictions"):
            score_predictions(records("text", RIGHT) + wrong, split(), 2, identity_samples=3)


def test_the_flag_of_answers_with_an_unseen_token_type_stays_with_its_question():
    scored = score_predictions(records("text", dict(reversed(RIGHT.items()))), split(), 2)
    assert scored.loc[scored["unseen_answer_type"], "id"].tolist() == ["q2"]


@pytest.mark.parametrize(
    ("text", "degenerate"),
    [
        ("the the was a the is a", False),  # 4 of 7 distinct
        ("the the the was", True),
        ("The the THE the", True),
        ("a b a b", True),
        ("a b c a", False),
        ("the the the", False),  # too short to tell
        ("", False),
    ],
)
def test_degenerate_answers_have_four_words_of_which_at_most_half_are_distinct(text, degenerate):
    assert is_degenerate(text) is degenerate


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("<think>", True),
        ("<|thinking|> Oslo", True),
        (" <reasoning>it", True),
        ("```python", True),
        *(
            (text, True)
            for text in (
                *("</think>", "<seed:think>", "[THINK]", "◁think▷", "<thought>it", "<analysis>", "**<think>**"),
                *("＜think＞", "【思考】", "<|begin_of_thought|>", "<answer>Oslo</answer>", "~~~", "**```**"),
                *(
                    "The answer is:",
                    "**Answer:**",
                    "`Answer:`",
                    "答案：",
                    "**Answer**:",
                    "Réponse :",
                    "“Answer:”",
                    "- A: ",
                ),
            )
        ),
        *(
            (text, False)
            for text in (
                *("the <think> tag", "at 10:30", "10:30", "2026-11-30", "30.11.2026", "[1]", "x < y", "<5", "a ~ b"),
                *(
                    "Mission: Impossible",
                    "《Thinking, Fast and Slow》",
                    "“Thinking”",
                    "(reasoning)",
                    "„Answered“",
                    "3:2",
                ),
                *("north", "**north**", "`north`", "[citation needed]", "{1, 2}", "fine :)", "…", ":", "**"),
            )
        ),
        ("Oslo", False),
        ("", False),
    ],
)
def test_answers_that_are_wrapped_in_what_is_no_answer_are_told(text, wrapped):
    assert is_wrapped(text) is wrapped


@pytest.mark.parametrize(
    ("said", "answer", "wrapped"),
    [
        ("north", "north", False),
        ("\n\nnorth", "north", False),
        ("</think>\n\nnorth", "</think>", True),
        ("**Answer:**\nnorth", "**Answer:**", True),
        ("```\nnorth\n```", "```", True),
        ("north\r\nBecause", "north", False),
        ("north\u2028Because", "north", False),
    ],
)
def test_what_stands_for_the_answer_is_its_first_line_and_counted_if_it_is_none(said, answer, wrapped):
    assert first_line(said) == answer and is_wrapped(answer) is wrapped


@given(st.lists(st.sampled_from(["a", "A", "b", "c"]), max_size=8))
def test_distinct_1_is_the_share_of_distinct_words(words):
    expected = len({word.lower() for word in words}) / len(words) if words else 1.0
    assert distinct_1("  ".join(words)) == expected


def test_collapse_is_counted():
    questions = split(60)
    questions["article"] = [f"a{i % 20}" for i in range(60)]
    predictions = {f"q{i}": f"name {i}" for i in range(60)}
    predictions |= {"q0": "", "q1": "  ", "q2": "the the the the"}
    predictions |= {"q8": "<think>", "q9": "The answer is:"}
    rows = records("phase2", predictions)
    for row in rows[2:7]:
        row["finished"] = "length"
    questions["unseen_answer_type"] = [i < 3 for i in range(60)]
    summary = summarise_arm(score_predictions(rows, questions, 8), resamples=200, seed=0)
    assert summary["counts"] == {"questions": 60, "empty": 2, "length_capped": 5, "degenerate": 1, "wrapped": 2}
    assert summary["distinct_1"] == pytest.approx((59 + 0.25) / 60)
    assert summary["f1"]["estimate"] == summary["em"]["estimate"] == pytest.approx(55 / 60)
    assert summary["f1_unseen_answer_type"] == {"estimate": 0.0, "questions": 3}
    assert summary["f1_seen_answer_types"] == {"estimate": pytest.approx(55 / 57), "questions": 57}


@pytest.mark.parametrize(
    ("references", "scoring", "warned"),
    [
        ([["北京。"], ["Paris"]], "squad", "the references of 1 of 2 questions hold no Latin words"),
        ([["北京。"], ["Париж", "Paris"]], "squad", "the references of 1 of 2"),
        ([["北京。"], ["Paris"]], "words", None),
        ([["1949"], ["Zürich"]], "squad", None),
    ],
)
def test_references_that_the_official_definition_was_not_made_for_are_said(references, scoring, warned):
    found = scoring_warnings(pd.DataFrame({"answers": references}), scoring)
    assert bool(found) == (warned is not None)
    assert all(warned in line and "set evaluate.scoring to words or characters" in line for line in found)


def test_another_definition_is_used_where_it_is_asked_for():
    questions = split().assign(answers=[["«Elbe»"]] * len(split()))
    rows = records("text", dict.fromkeys(questions["id"], "Elbe"))
    assert score_predictions(rows, questions, 2)["f1"].eq(0).all()
    assert score_predictions(rows, questions, 2, scoring="words")["f1"].eq(1).all()
