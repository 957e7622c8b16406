"""The SQuAD files of an experiment: the same bytes from a folder and from the hub's rows; a reader's official scores."""

import json
from unittest.mock import Mock

import numpy as np
import pytest

from latentwire.data import gather as gather_module
from latentwire.data.corpus import generate_corpus
from latentwire.data.gather import gather
from latentwire.data.squad import flatten_squad, read_squad_json
from latentwire.errors import InputError
from latentwire.evaluation.squad_metrics import batch_metrics
from latentwire.evaluation.store import AnswerStore
from latentwire.readers.scoring import answer_questions, read_questions, scores
from latentwire.resuming.stopping import Stopped


@pytest.fixture(scope="module")
def corpora():
    train, dev = generate_corpus(1, 4, paragraphs=2, questions=2), generate_corpus(2, 3, paragraphs=2, questions=2)
    train["data"].reverse()  # the written order is the titles', wherever the questions come from
    return train, dev


@pytest.fixture
def folder(corpora, tmp_path):
    for name, corpus in zip(("train-v1.1.json", "dev-v1.1.json"), corpora, strict=True):
        (tmp_path / "official").mkdir(exist_ok=True)
        (tmp_path / "official" / name).write_text(json.dumps(corpus))
    return tmp_path / "official"


def test_a_folder_and_the_hub_give_the_same_bytes(corpora, folder, tmp_path, monkeypatch):
    tables = [flatten_squad(corpus, "hub") for corpus in corpora]
    monkeypatch.setattr(gather_module, "read_hub", lambda path, revision: tables)
    titles = sorted(article["title"] for article in corpora[0]["data"])[1:]
    (tmp_path / "articles.json").write_text(json.dumps(titles))
    options = {"articles": tmp_path / "articles.json", "path": "some/squad", "revision": "abc"}
    from_folder = gather(folder, tmp_path / "a", **options)
    assert from_folder == gather(None, tmp_path / "b", **options)
    written = read_squad_json(tmp_path / "a" / "train.json")
    expected = [row for row in flatten_squad(corpora[0], "train") if row["title"] in titles]
    assert sorted(written, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])
    assert [row["title"] for row in written] == sorted(row["title"] for row in expected)


def test_files_that_are_there_are_kept_and_sources_are_checked(folder, tmp_path, monkeypatch):
    options = {"articles": None, "path": "some/squad", "revision": "abc"}
    first = gather(folder, tmp_path / "a", **options)
    monkeypatch.setattr(gather_module, "read_hub", lambda *_: pytest.fail("nothing is missing"))
    assert gather(None, tmp_path / "a", **options) == first
    with pytest.raises(InputError, match="no such folder"):
        gather(tmp_path / "none", tmp_path / "b", **options)
    (tmp_path / "articles.json").write_text(json.dumps(["Nobody"]))
    with pytest.raises(InputError, match="'Nobody'"):
        gather(folder, tmp_path / "b", **options | {"articles": tmp_path / "articles.json"})


def test_scores_are_the_official_ones_and_a_stopped_run_continues(tiny_model, renderer, folder, tmp_path):
    rows = read_questions(folder / "dev-v1.1.json")
    options = {"batch_size": 4, "max_new_tokens": 3, "store": AnswerStore(tmp_path / "answers", "the model")}
    model = tiny_model()

    stopping = Mock(side_effect=[None, Stopped("second batch")])
    with pytest.raises(Stopped):
        answer_questions(
            model,
            renderer,
            rows,
            **options | {"store": AnswerStore(tmp_path / "answers", "the model", check=stopping)},
        )
    assert len(list((tmp_path / "answers").rglob("*.json"))) == 1
    predictions = answer_questions(model, renderer, rows, **options)
    straight = answer_questions(
        model, renderer, rows, **options | {"store": AnswerStore(tmp_path / "other", "the model")}
    )
    assert predictions == straight and list(predictions) == [row["id"] for row in rows]
    perfect = {row["id"]: row["answers"]["text"][0] for row in rows[:3]}
    found = scores(rows, predictions | perfect, resamples=100, seed=0)
    em, f1 = batch_metrics(
        [(predictions | perfect)[row["id"]] for row in rows], [row["answers"]["text"] for row in rows]
    )
    assert found["f1"]["estimate"] == pytest.approx(f1) and found["em"]["estimate"] == pytest.approx(em)
    assert found["f1"]["questions"] == len(rows) == 12 and found["f1"]["articles"] == 3
    assert found["f1"]["lower"] is None  # refused below 20 articles


def test_some_articles_of_a_file_can_be_scored(folder, tmp_path):
    titles = sorted({row["title"] for row in read_questions(folder / "dev-v1.1.json")})
    (tmp_path / "some.json").write_text(json.dumps(titles[:1]))
    rows = read_questions(folder / "dev-v1.1.json", tmp_path / "some.json")
    assert np.unique([row["title"] for row in rows]).tolist() == titles[:1]
    (tmp_path / "some.json").write_text(json.dumps(["Nobody"]))
    with pytest.raises(InputError, match="'Nobody'"):
        read_questions(folder / "dev-v1.1.json", tmp_path / "some.json")
