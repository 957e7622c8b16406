"""Splits by article: disjoint, covering, seeded."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentwire.data.prepare import split_rows
from latentwire.data.splits import SPLITS, assign_articles, join_articles, sample_rows
from latentwire.errors import InputError

titles = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=30)


def numbered(count: int, prefix: str = "article") -> list[str]:
    return [f"{prefix} {index:03d}" for index in range(count)]


@given(titles.filter(lambda drawn: len(drawn) >= 3), st.integers(0, 1000))
def test_a_single_source_is_cut_three_ways_about_60_20_20(articles, seed):
    parts = assign_articles(articles, None, seed)
    assert tuple(parts) == SPLITS
    assert sorted(title for part in parts.values() for title in part) == sorted(articles)  # covering and disjoint
    for name, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(parts[name]) - share * len(articles)) < 1.5, name
        assert parts[name]


@given(titles.filter(len), st.lists(st.integers(), unique=True, min_size=2, max_size=30), st.integers(0, 1000))
def test_with_a_development_set_train_is_all_of_one_and_gate_and_final_are_halves_of_the_other(train, numbers, seed):
    dev = [f"dev {number}" for number in numbers]
    parts = assign_articles(train, dev, seed)
    assert parts["train"] == set(train)
    assert parts["gate"] | parts["final"] == set(dev)
    assert not parts["gate"] & parts["final"]
    assert abs(len(parts["gate"]) - len(parts["final"])) <= 1


def test_the_official_development_set_gives_24_and_24_articles():
    parts = assign_articles(numbered(442), numbered(48, "dev"), 0)
    assert (len(parts["gate"]), len(parts["final"])) == (24, 24)


def test_the_cut_depends_on_the_seed_and_not_on_the_order_of_the_titles():
    articles = numbered(40)
    cut = assign_articles(articles, None, 0)
    assert assign_articles(articles[::-1], None, 0) == cut
    assert assign_articles(articles, None, 1) != cut


def test_an_article_in_both_sources_is_a_leak_and_is_named():
    with pytest.raises(InputError, match="2 articles are in both sources, 'article 003'"):
        assign_articles(numbered(5), ["article 004", "dev", "article 003"], 0)


@pytest.mark.parametrize(
    ("train", "dev", "name"),
    [(0, None, "train"), (2, None, "train|gate|final"), (0, 4, "train"), (5, 1, "gate|final"), (5, 0, "gate")],
)
def test_a_split_without_an_article_is_refused(train, dev, name):
    dev_titles = None if dev is None else numbered(dev, "dev")
    message = (
        rf"no article is left for the split '({name})': the source has {train} training and {dev or 0} development"
    )
    with pytest.raises(InputError, match=message):
        assign_articles(numbered(train), dev_titles, 0)


def test_three_articles_are_enough_for_three_splits():
    assert [len(part) for part in assign_articles(numbered(3), None, 0).values()] == [1, 1, 1]


@given(st.integers(0, 20), st.none() | st.integers(0, 25), st.integers(0, 100))
def test_a_sample_is_seeded_without_replacement_and_at_most_all(rows, samples, seed):
    frame = pd.DataFrame({"id": range(rows)}, index=range(100, 100 + rows))
    drawn = sample_rows(frame, samples, seed, name="train")
    assert len(drawn) == min(rows, rows if samples is None else samples)
    assert drawn["id"].is_unique
    assert drawn.index.tolist() == list(range(len(drawn)))
    pd.testing.assert_frame_equal(drawn, sample_rows(frame, samples, seed, name="gate"))


def test_a_smaller_sample_is_the_beginning_of_a_larger_one_in_random_order():
    frame = pd.DataFrame({"id": range(100)})
    large = sample_rows(frame, 50, 3, name="train")["id"].tolist()
    assert sample_rows(frame, 10, 3, name="train")["id"].tolist() == large[:10]
    assert large != sorted(large)
    assert sample_rows(frame, 50, 4, name="train")["id"].tolist() != large


@pytest.mark.parametrize(("samples", "warned"), [(None, False), (7, False), (8, True)])
def test_a_sample_that_is_smaller_than_asked_for_says_so(caplog, samples, warned):
    assert len(sample_rows(pd.DataFrame({"id": range(7)}), samples, 0, name="gate")) == 7
    expected = ["gate: 8 questions were asked for and there are 7: all are taken"] if warned else []
    assert [record.message for record in caplog.records] == expected


# Articles that share a paragraph


def rows_of(*articles):
    """Rows of (title, context) pairs."""
    return pd.DataFrame(
        [{"id": f"{title}-{number}", "title": title, "context": text} for number, (title, text) in enumerate(articles)]
    )


@pytest.mark.parametrize(
    "again",
    [
        *(
            "The river runs  north.",
            "the RIVER runs north.",
            "The river\nruns\u00a0north.",
            "The river runs&nbsp;north.",
        ),
        *(
            "The river\u200b runs north.",
            "The ri\u00adver runs north.",
            "\ufeffThe river runs north.",
            "The river runs north",
        ),
        *(
            "“The river” runs north!",
            "Ｔｈｅ river runs north。",
            "The river\u2060 runs\x00 north.",
            "The riv\u200der runs north.",
        ),
    ],
)
def test_articles_that_share_a_paragraph_are_one_whatever_their_titles(caplog, again):
    train = rows_of(("A", "The river runs north."), ("A, continued", again), ("B", "Elsewhere."))
    joined, none = join_articles(train, None)
    assert none is None and joined["title"].tolist() == ["A", "A", "B"]
    assert "'A' and 'A, continued' share a paragraph" in caplog.text


def test_paragraphs_with_other_letters_digits_or_symbols_are_others(caplog):
    texts = ("It costs 15 $.", "It costs 15 €.", "It costs 16 $.", "Es kostet 15 $.", "It costs 15 $. Yes.", "…", "—")
    alone = rows_of(*((f"A{number}", text) for number, text in enumerate(texts)))
    assert join_articles(alone, None)[0] is alone and not caplog.records


def test_sharing_goes_on_from_article_to_article():
    train = rows_of(("A", "one"), ("B", "two"), ("C", "three"), ("B", "one"), ("C", "two"), ("D", "four"))
    joined, _ = join_articles(train, None)
    assert joined["title"].tolist() == ["A", "A", "A", "A", "A", "D"]
    alone = rows_of(("A", "one"), ("B", "two"))
    assert join_articles(alone, None)[0] is alone


def test_a_paragraph_in_both_sources_is_a_leak_and_so_is_a_questions_id():
    train, dev = rows_of(("A", "one"), ("B", "two")), rows_of(("C", "ONE"), ("D", "three"))
    with pytest.raises(InputError, match="1 articles are in both sources, 'A'"):
        split_rows(train, dev, 0)
    with pytest.raises(InputError, match="1 question ids are in both sources, 'A-0'"):
        split_rows(train, rows_of(("C", "three"), ("D", "four")).assign(id=["A-0", "x"]), 0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 40), st.integers(0, 1000))
def test_a_spread_sample_is_even_over_articles_and_otherwise_random(sizes, samples, seed):
    rows = pd.DataFrame([{"id": f"{a}-{q}", "title": f"A{a}"} for a, size in enumerate(sizes) for q in range(size)])
    drawn = sample_rows(rows, samples, seed, name="gate", spread=True)
    assert len(drawn) == min(samples, len(rows)) and drawn["id"].is_unique
    counts = drawn["title"].value_counts()
    most = max(counts, default=0)
    for article, size in enumerate(sizes):
        assert counts.get(f"A{article}", 0) in (size, most, most - 1)
    everything = sample_rows(rows, None, seed, name="gate", spread=True)
    assert set(everything["id"]) == set(rows["id"])
    assert everything["id"][: len(drawn)].tolist() == drawn["id"].tolist()
