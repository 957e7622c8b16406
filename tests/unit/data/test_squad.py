"""Questions from official SQuAD v1.1 JSON: flat rows, and errors that name the malformed item."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spoiling import JUNK, places, put

from latentwire import load_squad_subset
from latentwire.data import squad
from latentwire.data.corpus import generate_corpus
from latentwire.data.squad import flatten_squad, read_hub, read_squad_json
from latentwire.errors import InputError

REAL = Path(__file__).parents[4] / "shared" / "data" / "squad"


def small_corpus() -> dict:
    """Two articles in the official layout, with an article title that JSON files of SQuAD really have."""
    return {
        "version": "1.1",
        "data": [
            {
                "title": "Beyoncé",
                "paragraphs": [
                    {
                        "context": "Oslo is big. Bergen is wet.",
                        "qas": [
                            {"id": "q0", "question": "What is big?", "answers": [{"text": "Oslo", "answer_start": 0}]},
                            {
                                "id": "q1",
                                "question": "What is wet?",
                                "answers": [
                                    {"text": "Bergen", "answer_start": 13},
                                    {"text": "Bergen is", "answer_start": 13},
                                ],
                            },
                        ],
                    }
                ],
            },
            {
                "title": "Norway",
                "paragraphs": [
                    {"context": "Empty.", "qas": []},
                    {
                        "context": "It has fjords.",
                        "qas": [{"id": "q2", "question": "What?", "answers": [{"text": "fjords", "answer_start": 7}]}],
                    },
                ],
            },
        ],
    }


def test_a_row_is_a_question_with_its_article_and_context():
    rows = flatten_squad(small_corpus(), "file.json")
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert rows[1] == {
        "id": "q1",
        "title": "Beyoncé",
        "context": "Oslo is big. Bergen is wet.",
        "question": "What is wet?",
        "answers": {"text": ["Bergen", "Bergen is"], "answer_start": [13, 13]},
    }


PARAGRAPH = ("data", 0, "paragraphs", 0)
QUESTION = (*PARAGRAPH, "qas", 1)
ANSWER = (*QUESTION, "answers", 1)
IN_ARTICLE = r"file.json: data\[0\] \('Beyoncé'\)"
IN_PARAGRAPH = rf"{IN_ARTICLE}, paragraphs\[0\]"
IN_QUESTION = rf"{IN_PARAGRAPH}, qas\[1\] \(id 'q1'\)"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data",), ..., "file.json: no 'data' list"),
        (("data",), {}, "file.json: no 'data' list"),
        (("data",), [], "file.json: there is not a single question"),
        (("data", 0), "text", r"file.json: data\[0\]: 'title'"),
        (("data", 0, "title"), ..., r"file.json: data\[0\]: 'title'"),
        (("data", 0, "title"), 7, r"file.json: data\[0\]: 'title'"),
        (("data", 0, "paragraphs"), ..., f"{IN_ARTICLE}: 'paragraphs'"),
        (("data", 0, "paragraphs"), {}, f"{IN_ARTICLE}: 'paragraphs'"),
        (PARAGRAPH, None, f"{IN_PARAGRAPH}: a paragraph must be an object"),
        ((*PARAGRAPH, "context"), ..., f"{IN_PARAGRAPH}: 'context'"),
        ((*PARAGRAPH, "context"), " \n", f"{IN_PARAGRAPH}: 'context'"),
        ((*PARAGRAPH, "qas"), ..., f"{IN_PARAGRAPH}: 'qas'"),
        (QUESTION, "q1", rf"{IN_PARAGRAPH}, qas\[1\]: a question must be an object with an 'id'"),
        ((*QUESTION, "id"), ..., rf"{IN_PARAGRAPH}, qas\[1\]: .*'id'"),
        ((*QUESTION, "id"), None, rf"{IN_PARAGRAPH}, qas\[1\]: .*'id'"),
        *(
            ((*QUESTION, "id"), junk, rf"{IN_PARAGRAPH}, qas\[1\]: 'id' must be")
            for junk in ("", " ", True, 1.5, ["q1"])
        ),
        *(
            ((*QUESTION, "is_impossible"), junk, f"{IN_QUESTION}: 'is_impossible' must be true or false")
            for junk in ("true", "false", 1, "", [])
        ),
        ((*QUESTION, "is_impossible"), True, f"{IN_QUESTION}: 'is_impossible': SQuAD v1.1 has"),
        ((*QUESTION, "id"), "q0", "file.json: question id 'q0' occurs twice"),
        ((*QUESTION, "question"), ..., f"{IN_QUESTION}: 'question'"),
        ((*QUESTION, "question"), "", f"{IN_QUESTION}: 'question'"),
        ((*QUESTION, "answers"), ..., f"{IN_QUESTION}: the question has no answers"),
        ((*QUESTION, "answers"), [], f"{IN_QUESTION}: the question has no answers"),
        (ANSWER, "Bergen", f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "text"), ..., f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "text"), " ", f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "answer_start"), ..., f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "answer_start"), "13", f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "answer_start"), 13.0, f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "answer_start"), True, f"{IN_QUESTION}: an answer needs"),
        ((*ANSWER, "answer_start"), -1, f"{IN_QUESTION}: an answer needs"),
    ],
)
def test_a_malformed_item_is_named(path, value, message):
    with pytest.raises(InputError, match=message):
        flatten_squad(put(small_corpus(), path, value), "file.json")


@pytest.mark.parametrize("usual", [False, None, ...])
def test_a_question_that_is_not_impossible_is_one(usual):
    marked = put(small_corpus(), (*QUESTION, "is_impossible"), None)
    assert len(flatten_squad(put(marked, (*QUESTION, "is_impossible"), usual), "file.json")) == 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("data", 0, "title"), junk) for junk in (..., 7, None, "\ud83c")),
        *((("data", 0), junk) for junk in (None, "text", [], {})),
        *((("data", 0, "paragraphs"), junk) for junk in (..., None, {}, "text")),
    ],
)
def test_a_malformed_article_is_passed_over_with_its_questions(path, value):
    passed_over = []
    rows = flatten_squad(put(small_corpus(), path, value), "file.json", passed_over)
    assert [row["id"] for row in rows] == ["q2"]
    assert len(passed_over) == 1 and passed_over[0].startswith("file.json: data[0]")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data", 1, "title"), 7, r"data\[1\]: 'title' must be text, not 7"),
        (
            ("data", 0, "paragraphs", 0, "context"), "Oslo is big \ud83c",
            r"data\[0\] \('Beyoncé'\), paragraphs\[0\]: 'context' holds half of a surrogate pair at character 12",
        ),
        (
            ("data", 0, "paragraphs", 0, "qas", 0, "question"), "\udf00?",
            r"qas\[0\] \(id 'q0'\): 'question' holds half of a surrogate pair at character 0",
        ),
        (("data", 0, "paragraphs", 0, "qas", 0, "answers", 0, "text"), "Os\ud83c", "'text' holds half of a surrogate"),
        (("data", 0, "paragraphs", 0, "qas", 0, "id"), "q\ud83c", r"qas\[0\] \(id 'q.+'\): 'id' holds half of a surrogate"),
        (("data", 1, "title"), "\ud83c", r"data\[1\] \('.+'\): 'title' holds half of a surrogate"),
    ],
)  # fmt: skip
def test_what_no_tokenizer_reads_is_named(path, value, message):
    with pytest.raises(InputError, match=message):
        flatten_squad(put(small_corpus(), path, value), "file.json")


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(small_corpus()), encoding="utf-8-sig")
    assert read_squad_json(path) == flatten_squad(small_corpus(), "file.json")


@pytest.mark.parametrize("content", [None, [], "data", 5])
def test_other_json_is_not_squad(content):
    with pytest.raises(InputError, match="^file.json: no 'data' list: not SQuAD v1.1"):
        flatten_squad(content, "file.json")


PLACES, VALUES = st.sampled_from(list(places(small_corpus()))), st.sampled_from(JUNK)


@settings(max_examples=300)
@given(PLACES, VALUES, PLACES, VALUES)
def test_whatever_is_broken_is_named_or_was_not_broken(first, junk, second, more_junk):
    """Two values of a good file replaced by junk: an error that begins with the file's name, or well-formed rows."""
    content = put(small_corpus(), first, junk)
    if second in set(places(content)):
        content = put(content, second, more_junk)
    try:
        rows = flatten_squad(content, "file.json")
    except InputError as error:
        assert str(error).startswith("file.json: ")
    else:
        assert rows and len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            assert all(isinstance(row[name], str) for name in ("id", "title", "context", "question"))
            assert row["context"].strip() and row["question"].strip()
            assert len(row["answers"]["text"]) == len(row["answers"]["answer_start"]) > 0
            assert all(isinstance(text, str) and text.strip() for text in row["answers"]["text"])


def test_a_file_becomes_flat_rows(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(small_corpus()), encoding="utf-8")
    assert read_squad_json(path) == flatten_squad(small_corpus(), "file.json")
    assert list(read_squad_json(path)[0]) == ["id", "title", "context", "question", "answers"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not JSON"),
        (b'{"data": [', "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "no 'data' list"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "dev.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: .*{message}"):
        read_squad_json(path)


def test_a_data_set_that_the_hub_does_not_give_says_what_to_do(monkeypatch):
    def unreachable(name, repo_type, revision):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(squad, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"'rajpurkar/squad' \(data.path\) at revision 'abc'.*HF_HOME.*no route"):
        read_hub("rajpurkar/squad", "abc")


def test_a_data_set_on_the_hub_without_the_splits_is_named(monkeypatch):
    monkeypatch.setattr(squad, "snapshot_download", lambda name, repo_type, revision: "folder")
    monkeypatch.setattr("datasets.load_dataset", lambda folder: {"train": 1, "test": 2})
    with pytest.raises(InputError, match=r"'owner/data' \(data.path\): it has no split 'validation'.*'train', 'test'"):
        read_hub("owner/data", None)


def test_rows_of_the_hub_are_a_files_rows(hub_data):
    rows = flatten_squad(small_corpus(), "x")
    hub_data(train=rows, validation=rows[:1])
    assert read_hub("owner/data", None) == (rows, rows[:1])


def test_answers_on_the_hub_may_be_objects(hub_data):
    rows = flatten_squad(small_corpus(), "x")
    pairs = [zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True) for row in rows]
    listed = [[{"text": text, "answer_start": start} for text, start in own] for own in pairs]
    hub_data(train=[row | {"answers": own} for row, own in zip(rows, listed, strict=True)], validation=rows)
    assert read_hub("owner/data", None) == (rows, rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"context": None}, "'context' must be text, not None"),
        ({"context": " "}, "'context' is empty"),
        ({"context": ...}, "'context' is missing"),
        ({"title": ...}, "'title' is missing"),
        ({"title": 7}, "'title' must be text"),
        ({"answers": ...}, "'answers' is missing"),
        ({"answers": "Elbe"}, "the question has no answers"),
        ({"answers": ["Elbe"]}, "an answer needs a non-empty 'text'"),
        ({"answers": {"text": [], "answer_start": []}}, "the question has no answers.*data.skip_invalid"),  # SQuAD v2
        ({"answers": {"text": [""], "answer_start": [0]}}, "an answer needs a non-empty 'text'"),
        ({"answers": {"text": ["a", "b"], "answer_start": [0]}}, "as many 'text' as 'answer_start'"),
        ({"answers": {"text": "a", "answer_start": 0}}, "as many 'text' as 'answer_start'"),
        ({"question": "\ud83c"}, "half of a surrogate pair"),
        ({"id": None}, "'id' must be text or an integer, not None"),
        ({"id": "q0"}, "question id 'q0' occurs twice"),
    ],
)
def test_a_malformed_question_on_the_hub_is_named_or_passed_over(hub_data, change, said):
    rows = flatten_squad(small_corpus(), "x")
    spoilt = {name: value for name, value in (rows[1] | change).items() if value is not ...}
    hub_data(train=[rows[0], spoilt], validation=rows)
    with pytest.raises(InputError, match=rf"data set 'owner/data' \(data.path\), train.*{said}"):
        load_squad_subset("train", 1, "owner/data")
    passed_over: list[str] = []
    assert read_hub("owner/data", None, passed_over) == (rows[:1], rows)
    assert len(passed_over) == 1
    hub_data(train=[spoilt | {"context": ""}], validation=rows)
    with pytest.raises(InputError, match="not a single question in it; the first that was passed over: "):
        read_hub("owner/data", None, [])


@pytest.mark.parametrize(
    ("name", "articles", "questions", "references"),
    [("dev-v1.1.json", 48, 10_570, (1, 6)), ("train-v1.1-44-articles.json", 44, 11_877, (1, 1))],
)
def test_the_official_files_parse_completely(name, articles, questions, references):
    if not (REAL / name).is_file():
        pytest.skip(f"the official file {REAL / name} is not here")
    rows = flatten_squad(json.loads((REAL / name).read_text(encoding="utf-8")), name)
    assert len({row["title"] for row in rows}) == articles
    assert len({row["id"] for row in rows}) == len(rows) == questions
    counts = {len(row["answers"]["text"]) for row in rows}
    assert (min(counts), max(counts)) == references
    for row in rows:
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text


# load_squad_subset


ITEM = {"id", "title", "source", "answer", "answers"}


def test_the_interface_that_the_plan_names_on_the_embedded_demo():
    items = load_squad_subset("train", 10)
    assert len(items) == 10
    for item in items:
        assert item.keys() == ITEM
        assert item["source"].startswith("Context: ") and "\nQuestion: " in item["source"]
        assert item["answer"] == item["answers"][0]
        assert item["answer"] in item["source"]


def test_a_subset_is_seeded_and_the_splits_share_no_article():
    assert load_squad_subset("train", 10) == load_squad_subset("train", 10)
    assert load_squad_subset("train", 10, seed=1) != load_squad_subset("train", 10)
    train, validation = (load_squad_subset(split, 2000) for split in ("train", "validation"))
    assert not {item["title"] for item in train} & {item["title"] for item in validation}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_subset_of_a_local_file_and_of_a_folder(tmp_path, caplog, split):
    for name, seed in [("train-v1.1.json", 0), ("dev-v1.1.json", 1)]:
        content = json.dumps(generate_corpus(seed, 2, paragraphs=2, questions=2))
        (tmp_path / name).write_text(content, encoding="utf-8")
    wanted = tmp_path / ("train-v1.1.json" if split == "train" else "dev-v1.1.json")
    from_folder = load_squad_subset(split, 5, tmp_path)
    assert from_folder == load_squad_subset(split, 5, wanted) == load_squad_subset(split, 5, str(wanted))
    assert len(from_folder) == 5
    assert not caplog.records
    assert len(load_squad_subset(split, 500, wanted)) == 8  # all there are
    assert "500 questions were asked for, it holds 8" in caplog.text
    assert {item["id"] for item in from_folder} <= {row["id"] for row in read_squad_json(wanted)}


def test_a_subset_of_a_data_set_on_the_hub(monkeypatch):
    train, validation = (flatten_squad(generate_corpus(seed, 1), "x") for seed in (0, 1))
    asked = []
    monkeypatch.setattr(squad, "read_hub", lambda *arguments: asked.append(arguments) or (train, validation))
    items = load_squad_subset("validation", 3, "rajpurkar/squad", revision="abc")
    assert asked == [("rajpurkar/squad", "abc")]
    assert {item["id"] for item in items} <= {row["id"] for row in validation}


@pytest.mark.parametrize("split", ["test", "dev", ""])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(InputError, match=f"'train' or 'validation', got {split!r}"):
        load_squad_subset(split, 1)


def test_a_folder_without_the_splits_file_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}: no dev-v1.1\*.json"):
        load_squad_subset("validation", 1, tmp_path)


def test_a_folder_with_several_files_of_a_split_is_refused(tmp_path):
    for name in ("train-v1.1.json", "train-v1.1-44-articles.json"):
        (tmp_path / name).write_text(json.dumps(small_corpus()))
    message = rf"{tmp_path}: several files are train-v1.1\*.json: train-v1.1-44-articles.json, train-v1.1.json."
    with pytest.raises(InputError, match=message):
        load_squad_subset("train", 1, tmp_path)


def test_a_subset_of_the_official_files_is_found_in_their_folder():
    if not REAL.is_dir():
        pytest.skip(f"the official files {REAL} are not here")
    for split, articles in (("train", 44), ("validation", 48)):
        items = load_squad_subset(split, 3000, REAL)
        assert len({item["id"] for item in items}) == 3000
        assert len({item["title"] for item in items}) == articles
        assert all(item["answer"] in item["source"] for item in items)
