"""The paired comparison of two files of predictions: formats, refusals, and how often its claims are wrong."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from latentwire.arms_table import Variant
from latentwire.errors import InputError
from latentwire.evaluation.paired import Reference, compare, described, read_scores, references_of

REFERENCES = {"q1": Reference(["Oslo"], "Norway"), "q2": Reference(["the red fox", "fox"], "Animals")}


def written(path, records):
    path.write_text("".join(json.dumps(own) + "\n" for own in records), encoding="utf-8")
    return path


def scores(difference_N, article_N) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of A and B around one half that differ by so much."""
    names = [f"q{number}" for number in range(len(article_N))]
    a, b = (
        pd.DataFrame({"id": names, "score": 0.5 + sign * difference_N / 2, "article": article_N}) for sign in (1, -1)
    )
    return a, b


def drawn(mean: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Paired scores whose articles differ: 40 articles of 10 to 40 questions."""
    rng = np.random.default_rng(seed)
    article_N = np.repeat(np.arange(40), rng.integers(10, 41, 40))
    difference_N = mean + rng.normal(0, 0.03, 40)[article_N] + rng.normal(0, 0.2, len(article_N))
    return scores(difference_N, article_N.astype(str))


# Files


def test_all_formats_give_the_same_scores(tmp_path):
    answers = {"q1": "Oslo", "q2": "a red fox"}
    official = tmp_path / "official.json"
    official.write_text(json.dumps(answers), encoding="utf-8")
    ours = written(
        tmp_path / "ours.jsonl",
        [
            {"arm": arm, "k": k, "seed": None, "id": name, "article": REFERENCES[name].article, "prediction": text}
            for arm, k, found in (("text", None, answers), ("pca", 72, {"q1": "", "q2": ""}))
            for name, text in found.items()
        ],
    )
    plain = written(
        tmp_path / "plain.jsonl",
        [
            {"id": "q1", "cluster": "Norway", "prediction": "Oslo", "answers": ["Oslo"]},
            {"id": "q2", "cluster": "Animals", "prediction": "a red fox", "answers": {"text": ["the red fox"]}},
        ],
    )
    harness = written(
        tmp_path / "samples.jsonl",
        [
            {"doc_id": 0, "doc": {"id": "q1", "title": "Norway", "answers": {"text": ["Oslo"]}}, "f1": 1.0},
            {"doc_id": 1, "doc": {"id": "q2", "title": "Animals"}, "f1": 1.0, "filtered_resps": ["a red fox"]},
        ],
    )
    scored = pd.DataFrame(list(map(json.loads, ours.read_text().splitlines()))).astype({"k": "Int64", "seed": "Int64"})
    scored["answers"] = scored["id"].map(lambda name: REFERENCES[name].answers)
    scored.to_parquet(tmp_path / "scores.parquet")
    files = [(tmp_path / "scores.parquet", Variant("text"), {})]
    files += [
        (official, None, REFERENCES),
        (ours, Variant("text"), REFERENCES),
        (plain, None, {}),
        (harness, None, {}),
    ]
    for path, variant, references in files:
        table = read_scores(path, variant, "f1", references)
        assert table.to_dict("list") == {"id": ["q1", "q2"], "score": [1.0, 1.0], "article": ["Norway", "Animals"]}
    assert read_scores(ours, Variant("pca", 72), "f1", REFERENCES)["score"].tolist() == [0.0, 0.0]
    assert read_scores(official, None, "exact_match", REFERENCES)["score"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("records", "metric", "message"),
    [
        ([], "f1", "holds no predictions"),
        ([{"id": "q1", "prediction": "x"}], "f1", "neither the metric 'f1' nor a prediction with reference"),
        ([{"id": "q1", "prediction": "x", "answers": ["x"]}], "rouge", "neither the metric 'rouge'"),
        ([{"prediction": "x", "f1": 1}], "f1", "prediction 1 has neither 'id' nor 'doc_id'"),
        ([{"id": "q1", "f1": 87.5}], "f1", "the metric 'f1' is 87.5, not a fraction"),
        ([{"id": "q1", "f1": [1, 2]}], "f1", "not a fraction"),
        ([{"id": "q1", "f1": 1}, {"id": "q1", "f1": 0}], "f1", "question 'q1' is there twice"),
        (
            [{"id": "q1", "f1": 1, "arm": "text"}, {"id": "q1", "f1": 0, "arm": "pca", "k": 8}],
            "f1",
            "one of pca:8, text",
        ),
        ([["q1", 1]], "f1", "line 1: expected an object"),
    ],
)
def test_what_can_not_be_compared_is_refused_by_its_place(tmp_path, records, metric, message):
    with pytest.raises(InputError, match=message):
        read_scores(written(tmp_path / "some.jsonl", records), None, metric, {})


def test_files_that_are_missing_or_something_else_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "none.jsonl", None, "f1", {})
    (tmp_path / "some.txt").write_text("not\njson\n", encoding="utf-8")
    with pytest.raises(InputError, match="neither JSON lines nor JSON"):
        read_scores(tmp_path / "some.txt", None, "f1", {})


def test_references_come_from_an_official_file(tmp_path):
    answer = {"text": "Oslo", "answer_start": 0}
    paragraph = {"context": "Oslo is a city.", "qas": [{"id": "q1", "question": "What?", "answers": [answer]}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "Norway", "paragraphs": [paragraph]}]}))
    assert references_of(path) == {"q1": Reference(["Oslo"], "Norway")}
    assert references_of(None) == {}


# Pairs


def test_other_questions_or_articles_are_refused():
    a, b = scores(np.zeros(3), np.array(["x", "y", "z"]))
    with pytest.raises(InputError, match="1 questions are in one of the files alone, such as q2"):
        compare(a, b[:2], margin=0.01)
    with pytest.raises(InputError, match="the article of 3 questions is not known"):
        compare(a.assign(article=None), b.assign(article=None), margin=0.01)
    with pytest.raises(InputError, match="different articles for 1 questions, such as q2"):
        compare(a, b.assign(article=["x", "y", "x"]), margin=0.01)
    assert compare(a.assign(article=None), b, margin=0.01).difference.articles == 3


def test_few_articles_are_refused_with_the_reason():
    found = compare(*scores(np.linspace(-0.1, 0.1, 60), np.repeat([str(n) for n in range(12)], 5)), margin=0.01)
    assert found.verdict == "refused"
    assert "no interval: " in described(found) and "20" in described(found)


def test_equal_answers_are_no_worse_if_there_are_enough_of_them():
    for questions, verdict in ((120, "not shown"), (3000, "non-inferior")):
        articles = np.arange(questions) % 24
        own = pd.DataFrame({"id": np.arange(questions).astype(str), "score": 1.0, "article": articles.astype(str)})
        found = compare(own, own, margin=0.01)
        assert found.verdict == verdict and found.difference.lower is None
        assert "no interval: the articles don't differ" in described(found)


def test_the_order_of_the_lines_does_not_matter():
    a, b = drawn(-0.01, 0)
    again = compare(a.sample(frac=1, random_state=1), b.sample(frac=1, random_state=2), margin=0.01)
    assert again == compare(a, b, margin=0.01)


@pytest.mark.parametrize(
    ("mean", "margin", "verdict", "words"),
    [
        (0.05, 0.01, "better", "A is better"),
        (-0.05, 0.01, "worse", "A is worse by more than 1 points"),
        (-0.001, 0.05, "non-inferior", "A is no worse than B by 5 points"),
        (-0.01, 0.01, "not shown", "not shown that A is no worse than B by 1 points"),
    ],
)
def test_the_verdict_follows_from_interval_and_margin(mean, margin, verdict, words):
    found = compare(*drawn(mean, 1), margin=margin)
    assert found.verdict == verdict
    assert f"verdict   {words}" in described(found)


@pytest.fixture(scope="module")
def at_the_margin():
    """400 simulated comparisons in which A loses just as much as it may."""
    return [compare(*drawn(-0.02, seed), margin=0.02, resamples=400) for seed in range(400)]


@pytest.mark.slow
def test_no_worse_is_claimed_wrongly_as_seldom_as_it_says(at_the_margin):
    # 2.5% of 400 are 10; the limits leave out 1 in 1,000 such simulations of a test that is right.
    claims = sum(found.verdict in ("non-inferior", "better") for found in at_the_margin)
    assert 1 <= claims <= 22


@pytest.mark.slow
def test_the_detectable_loss_is_found_in_four_of_five_samples(at_the_margin):
    loss = float(np.median([found.detectable for found in at_the_margin]))
    found = sum(
        (upper := compare(*drawn(-loss, 1000 + seed), margin=0.0, resamples=400).difference.upper) is not None
        and upper < 0
        for seed in range(400)
    )
    # 80% of 400 are 320, with a standard deviation of 8.
    assert 290 <= found <= 350


def test_the_command_prints_and_writes_a_comparison(tmp_path):
    a, b = drawn(-0.01, 3)
    files = [
        written(
            tmp_path / name,
            [{"id": i, "f1": min(1.0, max(0.0, s)), "article": g} for i, s, g in table.itertuples(index=False)],
        )
        for name, table in (("a.jsonl", a), ("b.jsonl", b))
    ]
    output = tmp_path / "comparison.json"
    command = [sys.executable, "-m", "latentwire", "compare", *files, "--margin", "3", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "studentised bootstrap over articles" in done.stdout
    assert json.loads(output.read_text())["verdict"] == "non-inferior"
    refused = subprocess.run([*command[:-4], "--margin", "-1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "--margin is not negative" in refused.stderr
