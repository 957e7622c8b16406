"""The frontier's figure and page can be read without the text, and what comes from results is escaped."""

import copy

import pytest

from latentwire.report.frontier import frontier_figure, frontier_lines, frontier_page


def interval(estimate, lower=None, upper=None):
    return {"estimate": estimate, "lower": lower, "upper": upper}


def point(codec, bits, *, reaches, pareto, **times):
    lower, upper = {True: (0.75, 0.9), False: (0.1, 0.6), None: (0.6, 0.9)}[reaches]
    return {
        "codec": codec, "legend": f"the <{codec}> & more", "bits": bits, "megabytes": 1.5,
        "f1": interval(0.7, lower, upper), "retention": interval(0.8, 0.7, 0.9), "kl": interval(1 / bits, 0.9 / bits, 1.1 / bits),
        "same_top": interval(0.6, 0.5, 0.7), "fvu": 0.3, "reaches": reaches, "pareto": pareto,
        "keeps": [{"p": 0.01, "shown": True}, {"p": 0.4, "shown": False}],
        "seconds_to_make": times.get("make"), "seconds_to_decode": times.get("decode"),
    }  # fmt: skip


FOUND = {
    "experiment": "a <name>", "threshold": 0.7, "kept": [{"share": 0.99, "cheapest": "pq4"}, {"share": 0.999, "cheapest": None}],
    "questions": 100, "articles": 25, "confidence": 0.9, "ceiling": interval(0.8, 0.7, 0.9), "detectable": 0.05,
    "points": [
        point("pca:8", 2.0, reaches=False, pareto=True, make=3.21, decode=0.00456),
        point("pq4", 2.1, reaches=True, pareto=False),
        point("int4", 4.25, reaches=None, pareto=True, make=100, decode=0.0001),
    ],
    "noise": [],
    "methods": [
        {"bits": 2.0, "codec": "pq4", "codec_bits": 2.1, "kl": interval(0.47, 0.4, 0.5), "next_best": "pca:8",
         "next_bits": 2.0, "ratio": interval(0.95, 0.9, 0.99)},
    ],
}  # fmt: skip


def test_the_table_answers_every_question_for_every_codec():
    summary, _, heads, _, pca, pq4, int4, *choice = frontier_lines(FOUND)
    assert "keep 99% of the uncompressed model's F1 is `pq4`, at 2.10 bits" in summary
    assert "No codec is shown to keep 99.9% of the uncompressed model's F1." in summary
    columns = [head.strip() for head in heads.strip("|").split("|")]
    rows = [
        dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        for row in (pca, pq4, int4)
    ]
    assert [row["reaches 70%"] for row in rows] == ["no", "yes", "undecided"]
    assert [row["in the Pareto set"] for row in rows] == ["yes", "", "yes"]
    assert {(row["keeps 99% (p, Holm)"], row["keeps 99.9% (p, Holm)"]) for row in rows} == {
        ("shown (0.010)", "not shown (0.400)")
    }
    assert [row["made in (s)"] for row in rows] == ["3.21", "–", "100"]
    assert [row["prompt rebuilt in (ms)"] for row in rows] == ["4.56", "–", "0.1"]
    assert choice[-1] == "| 2 | `pq4` | 2.10 | 0.47 [0.4, 0.5] | `pca:8` (2.00) | 0.95 [0.9, 0.99] |"  # fmt: skip


def test_a_codec_without_an_interval_neither_reaches_the_threshold_nor_is_undecided():
    found = copy.deepcopy(FOUND)
    found["points"] = [point("pq4", 2.1, reaches=None, pareto=True)]
    found["points"][0]["f1"] = interval(0.7)
    assert "| yes | – | shown (0.010) |" in frontier_lines(found)[4]


def test_the_figure_has_a_key_and_every_measure_and_is_the_same_each_time():
    figure = frontier_figure(FOUND)
    assert frontier_figure(FOUND) == figure
    for said in (
        "Pareto set: no codec of as few bits has a smaller KL",
        "other codecs",
        "90% interval over articles",
        "KL from the uncompressed model's predictions",
        "same most likely next token",
        "retention: F1 of the answers",
    ):
        assert figure.count(said) == 1
    for codec in ("pca:8", "pq4", "int4"):
        assert figure.count(f">{codec}<") == 3


@pytest.mark.parametrize("methods", [FOUND["methods"], []])
def test_the_page_says_what_a_codec_is_and_escapes_it(methods):
    page = frontier_page(FOUND | {"methods": methods})
    assert "<td>pca:8<small>the &lt;pca:8&gt; &amp; more</small></td>" in page and "<pca:8>" not in page
    assert "<h1>Bits against harm: a &lt;name&gt;</h1>" in page
    assert page.count("<table>") == page.count("</table>") == 1 + bool(methods)
    assert ("<td>pq4</td><td>2.10</td>" in page) == bool(methods)
