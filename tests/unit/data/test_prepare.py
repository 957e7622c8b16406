"""Data preparation: from a source to tokenised, disjoint, hashed splits, with a note for everything left out."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latentwire.data import prepare as module
from latentwire.data.corpus import generate_corpus
from latentwire.data.prepare import content_hash, draw, prepare, prepare_split, read_source, split_rows
from latentwire.data.prompts_table import read_prompts
from latentwire.data.splits import SPLITS
from latentwire.data.squad import flatten_squad
from latentwire.errors import InputError
from latentwire.files import write_json
from latentwire.settings import Data

REAL = Path(__file__).parents[4] / "shared" / "data" / "squad"


def data_settings(samples=None, **changes) -> Data:
    """Settings; ``samples`` are the questions of each split."""
    sizes = {f"{split}_samples": size for split, size in (samples or {"train": 40, "gate": 20, "final": 20}).items()}
    own = {"source": "demo", "path": None, "revision": None, "seed": 1, "max_prompt_tokens": 512}
    return Data(**own | sizes | changes)


@pytest.fixture
def files(tmp_path):
    """Official JSON files of a training and a development set."""
    for name, start, articles in [("train", 0, 5), ("dev", 5, 4)]:
        content = generate_corpus(9, articles, start=start, paragraphs=2, questions=2)
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return {"source": "local", "train_file": str(tmp_path / "train.json"), "dev_file": str(tmp_path / "dev.json")}


@pytest.fixture
def prepared(renderer, tmp_path):
    manifest = prepare(data_settings(), renderer, tmp_path)
    return manifest, {name: read_prompts(tmp_path / f"{name}.parquet") for name in SPLITS}


def test_every_split_is_written_with_all_that_later_stages_read(prepared, renderer):
    manifest, splits = prepared
    for name, frame in splits.items():
        assert set(frame.columns) == {
            *("id", "article", "source", "answers", "input_ids", "label_mask", "answer_mask", "question_ids"),
            "unseen_answer_type",
        }
        assert frame["id"].is_unique
        for row in frame.itertuples():
            assert row.input_ids.dtype == np.int32
            assert row.label_mask.dtype == row.answer_mask.dtype == bool
            assert len(row.input_ids) == len(row.label_mask) == len(row.answer_mask)
            assert row.answer_mask.any() and not (row.answer_mask & ~row.label_mask).any()
            assert len(row.answers) >= 1
            assert renderer.tokenizer.decode(row.input_ids) == renderer.render(row.source)
            question = row.source[row.source.index("Question: ") :]
            assert renderer.tokenizer.decode(row.question_ids) == renderer.render(question)
        counts = manifest["splits"][name]
        assert counts["questions"] == len(frame) == {"train": 40, "gate": 20, "final": 20}[name]
        assert counts["articles"] == frame["article"].nunique()
        assert counts["tokens"] == sum(map(len, frame["input_ids"]))
        assert counts["longest_prompt"] == max(map(len, frame["input_ids"]))
        assert counts["sha256"] == content_hash(frame)
    assert manifest["dropped_or_trimmed"] == []
    assert manifest["fewer_than_asked"] == {}


def test_no_article_is_in_two_splits(prepared):
    articles = [set(frame["article"]) for frame in prepared[1].values()]
    assert sum(map(len, articles)) == len(set.union(*articles))


def test_a_manifest_is_json_and_the_same_at_every_run(prepared, renderer, tmp_path):
    manifest, _ = prepared
    write_json(tmp_path / "manifest.json", manifest)
    assert prepare(data_settings(), renderer, tmp_path / "again") == manifest
    for name in SPLITS:
        assert (tmp_path / "again" / f"{name}.parquet").read_bytes() == (tmp_path / f"{name}.parquet").read_bytes()


def test_another_seed_gives_other_splits(prepared, renderer, tmp_path):
    other = prepare(data_settings(seed=2), renderer, tmp_path / "other")
    for name in SPLITS:
        assert other["splits"][name]["sha256"] != prepared[0]["splits"][name]["sha256"]


def test_an_answer_with_a_token_type_that_no_training_prompt_holds_is_flagged(prepared):
    _, splits = prepared
    seen = set(np.concatenate(list(splits["train"]["input_ids"])).tolist())
    for frame in splits.values():
        for row in frame.itertuples():
            assert row.unseen_answer_type == bool(set(row.input_ids[row.answer_mask].tolist()) - seen)
    assert not splits["train"]["unseen_answer_type"].any()
    assert splits["gate"]["unseen_answer_type"].any()


def test_the_content_hash_depends_on_ids_tokens_and_references_alone(prepared):
    frame = prepared[1]["gate"]
    assert content_hash(frame.assign(source="x")) == content_hash(frame)
    assert content_hash(frame.iloc[::-1]) != content_hash(frame)
    for column in ("id", "answers", "input_ids"):
        values = list(frame[column])
        values[3] = values[4]
        assert content_hash(frame.assign(**{column: values})) != content_hash(frame), column


# Sources


def test_local_files_a_development_set_is_halved(files, renderer, tmp_path):
    samples = dict.fromkeys(SPLITS)
    manifest = prepare(data_settings(**files, samples=samples), renderer, tmp_path / "out")
    assert {name: own["articles"] for name, own in manifest["splits"].items()} == {"train": 5, "gate": 2, "final": 2}
    assert sum(own["questions"] for own in manifest["splits"].values()) == 9 * 2 * 2


def test_the_data_seed_moves_the_sample_and_the_halves(files):
    drawn = {}
    for seed in (1, 2):
        settings = data_settings(**files, seed=seed, samples={"train": 6, "gate": None, "final": None})
        rows = split_rows(*read_source(settings), settings.seed)
        drawn[seed] = {name: draw(name, own, settings)[0] for name, own in rows.items()}
    assert set(drawn[1]["train"]["id"]) != set(drawn[2]["train"]["id"])
    assert set(drawn[1]["gate"]["title"]) != set(drawn[2]["gate"]["title"])


def test_a_single_local_file_is_cut_three_ways(files):
    settings = data_settings(**files | {"dev_file": None}, samples=dict.fromkeys(SPLITS))
    rows = split_rows(*read_source(settings), settings.seed)
    articles = {name: set(frame["title"]) for name, frame in rows.items()}
    assert {name: len(own) for name, own in articles.items()} == {"train": 3, "gate": 1, "final": 1}
    assert len(set.union(*articles.values())) == 5


def test_the_same_article_in_both_files_is_refused(files):
    settings = data_settings(**files | {"dev_file": files["train_file"]})
    with pytest.raises(InputError, match="splits would leak"):
        split_rows(*read_source(settings), settings.seed)


def test_the_hubs_data_set_takes_the_same_path(files, monkeypatch):
    corpora = [generate_corpus(9, count, start=start) for start, count in [(0, 3), (3, 2)]]
    tables = tuple(flatten_squad(corpus, "x") for corpus in corpora)
    monkeypatch.setattr(module, "read_hub", lambda *_: tables)
    train, dev = read_source(data_settings(source="hub", path="rajpurkar/squad"))
    assert train.to_dict("records") == flatten_squad(corpora[0], "x")
    assert dev is not None and dev.to_dict("records") == flatten_squad(corpora[1], "x")


def test_of_a_data_set_on_the_hub_malformed_questions_are_passed_over_too(hub_data):
    rows = flatten_squad(generate_corpus(9, 2), "x")
    hub_data(train=[*rows[:3], rows[3] | {"context": None}, rows[4] | {"id": rows[0]["id"]}], validation=rows[5:])
    passed_over: list[str] = []
    train, _ = read_source(data_settings(source="hub", path="owner/data"), passed_over)
    assert train["id"].tolist() == [row["id"] for row in rows[:3]]
    assert ["'context' must be text" in passed_over[0], "occurs twice" in passed_over[1]] == [True, True]
    with pytest.raises(InputError, match=r"'owner/data' \(data.path\), train\[3\]: 'context' must be text, not None"):
        read_source(data_settings(source="hub", path="owner/data"))


@pytest.mark.parametrize(("source", "key"), [("local", "data.train_file"), ("hub", "data.path")])
def test_a_source_without_its_path_names_the_key(source, key):
    with pytest.raises(InputError, match=key):
        read_source(data_settings(source=source))


# Every question is accounted for


def assert_accounted_for(manifest: dict, folder: Path, settings: Data) -> dict[str, set[str]]:
    """Every question of the source is in one split's file, or listed once with a reason; returns those in the files."""
    used = {name: set(read_prompts(folder / f"{name}.parquet", ["id"])["id"]) for name in SPLITS}
    dropped = [note["id"] for note in manifest["dropped_or_trimmed"] if note["action"] == "dropped"]
    not_sampled = [own["ids"] for own in manifest["not_sampled"].values()]
    assert all(own["questions"] == len(own["ids"]) and own["reason"] for own in manifest["not_sampled"].values())
    places = [*used.values(), dropped, *not_sampled]
    source = [identifier for frame in read_source(settings) if frame is not None for identifier in frame["id"]]
    assert sorted(identifier for place in places for identifier in place) == sorted(source)
    return used


@pytest.mark.parametrize("with_dev", [True, False])
def test_every_question_is_used_or_listed_with_its_reason(files, renderer, tmp_path, with_dev):
    source = files if with_dev else files | {"dev_file": None}
    samples = {"train": 7, "gate": 2, "final": None}
    # A limit at which some prompts are trimmed and one question alone is too long.
    settings = data_settings(**source, samples=samples, max_prompt_tokens=40, on_long_prompt="trim")
    content = json.loads(Path(files["train_file"]).read_text())
    for article in content["data"]:
        article["paragraphs"][0]["qas"][0]["question"] = "What " + "is " * 60 + "big?"
    Path(files["train_file"]).write_text(json.dumps(content))
    manifest = prepare(settings, renderer, tmp_path / "out")
    assert_accounted_for(manifest, tmp_path / "out", settings)
    assert {note["action"] for note in manifest["dropped_or_trimmed"]} == {"trimmed", "dropped"}
    assert manifest["not_sampled"].keys() == {"train", "gate"}
    assert manifest["not_sampled"]["gate"]["reason"] == "data.gate_samples is 2"


def test_a_split_with_fewer_questions_than_asked_for_is_listed_and_warned_of(files, renderer, tmp_path, caplog):
    settings = data_settings(**files, samples={"train": 500, "gate": 8, "final": None})
    manifest = prepare(settings, renderer, tmp_path / "out")
    assert manifest["fewer_than_asked"] == {"train": {"asked": 500, "available": 20}}
    assert [record.message for record in caplog.records] == [
        "train: 500 questions were asked for and there are 20: all are taken"
    ]
    assert manifest["not_sampled"] == {}


@pytest.mark.slow
def test_every_question_of_the_official_files_is_accounted_for(renderer, tmp_path):
    """With the demo's tokenizer, which cuts most of their words into bytes: most contexts are trimmed."""
    real = {"train_file": REAL / "train-v1.1-44-articles.json", "dev_file": REAL / "dev-v1.1.json"}
    if not all(path.is_file() for path in real.values()):
        pytest.skip(f"the official files {', '.join(map(str, real.values()))} are not here")
    settings = data_settings(
        source="local",
        **{name: str(path) for name, path in real.items()},
        samples={"train": 3000, "gate": 300, "final": 150},
        max_prompt_tokens=400,
        on_long_prompt="trim",
    )
    manifest = prepare(settings, renderer, tmp_path)
    used = assert_accounted_for(manifest, tmp_path, settings)
    listed = {name: own["questions"] for name, own in manifest["not_sampled"].items()}
    actions = Counter((note["split"], note["action"]) for note in manifest["dropped_or_trimmed"])
    assert actions["train", "trimmed"] > 1500
    drawn = {name: len(own) + actions[name, "dropped"] for name, own in used.items()}
    assert drawn == {split: getattr(settings, f"{split}_samples") for split in SPLITS}
    assert sum(drawn.values()) + sum(listed.values()) == 22_447
    assert listed["train"] == 8877
    articles = [set(read_prompts(tmp_path / f"{name}.parquet", ["article"])["article"]) for name in SPLITS]
    assert [len(own) for own in articles] == [44, 24, 24]
    assert len(set.union(*articles)) == 44 + 48


# Prompts that do not fit


def demo_rows() -> pd.DataFrame:
    return pd.DataFrame(flatten_squad(generate_corpus(9, 2, paragraphs=3, questions=3), "x"))


def split(rows, renderer, name, limit, on_long_prompt="error"):
    return prepare_split(name, rows, renderer, max_prompt_tokens=limit, on_long_prompt=on_long_prompt)


@pytest.mark.parametrize("limit", [35, 50])
def test_training_prompts_are_trimmed_around_the_answer(renderer, limit):
    rows = demo_rows()
    whole, _ = split(rows, renderer, "train", 512)
    frame, notes = split(rows, renderer, "train", limit)
    lengths = dict(zip(whole["id"], whole["input_ids"].map(len), strict=True))
    assert {note["id"] for note in notes} == {key for key, length in lengths.items() if length > limit}
    assert frame["input_ids"].map(len).max() <= limit
    originals = rows.set_index("id")
    for row in frame.itertuples():
        assert row.answer_mask.any()  # the answer's sentence is still there
        question = originals.loc[row.id, "question"]
        assert row.source.endswith(f"\nQuestion: {question}\n")
        assert renderer.tokenizer.decode(row.input_ids).endswith(f"Question: {question}\n<|end|><|assistant|>")
        context = row.source.removeprefix("Context: ").split("\nQuestion: ")[0]
        assert context in originals.loc[row.id, "context"]
    trimmed = next(note for note in notes if note["action"] == "trimmed")
    assert trimmed == {
        "split": "train",
        "id": trimmed["id"],
        "tokens": str(lengths[trimmed["id"]]),
        "action": "trimmed",
        "reason": f"longer than {limit} tokens",
    }


@pytest.mark.parametrize("name", ["gate", "final"])
def test_an_evaluation_prompt_that_does_not_fit_is_an_error_with_the_way_out(renderer, name):
    with pytest.raises(InputError, match=rf"of split '{name}': its prompt has \d+ tokens.*is 40.*on_long_prompt"):
        split(demo_rows(), renderer, name, 40)


def test_evaluation_prompts_are_trimmed_from_the_end_where_the_settings_say_so(renderer):
    frame, notes = split(demo_rows(), renderer, "gate", 50, "trim")
    assert notes and frame["input_ids"].map(len).max() <= 50
    contexts = demo_rows().set_index("id")["context"]
    for row in frame.itertuples():
        assert contexts[row.id].startswith(row.source.removeprefix("Context: ").split("\nQuestion: ")[0])
    assert not all(mask.any() for mask in frame["answer_mask"])  # it does not look at the answer


def test_a_question_of_which_no_word_fits_is_dropped_with_a_note(renderer):
    rows = demo_rows()
    long = rows.iloc[:1].assign(id="long", question="What " + "is " * 60 + "big?")
    frame, notes = split(pd.concat([rows, long]), renderer, "train", 60)
    assert "long" not in set(frame["id"])
    assert notes[-1] == {
        "split": "train",
        "id": "long",
        "tokens": notes[-1]["tokens"],
        "action": "dropped",
        "reason": "no word of the context fits",
    }


def test_a_split_of_which_nothing_fits_is_refused(renderer):
    with pytest.raises(InputError, match="split 'train' has no question left.*10 tokens"):
        split(demo_rows(), renderer, "train", 10)


def test_what_an_evaluation_split_lacks_is_warned_of(renderer, tmp_path, caplog):
    assert prepare(data_settings(), renderer, tmp_path / "good")["warnings"] == []
    articles = []
    for number in range(6):
        context, answer = f"\u8fd9\u6761\u6cb3\u5411\u5317\u6d41 {number}.", "\u5411\u5317"
        qas = [
            {"id": f"{number}-{q}", "question": question, "answers": [{"text": answer, "answer_start": 4}]}
            for q, question in enumerate(["Where?", "Where " + "is " * 300 + "it?"])
        ]
        articles.append({"title": f"A{number}", "paragraphs": [{"context": context, "qas": qas}]})
    (tmp_path / "foreign.json").write_text(json.dumps({"data": articles}), encoding="utf-8")
    given = {"source": "local", "train_file": str(tmp_path / "foreign.json"), "on_long_prompt": "trim"}
    everything = dict.fromkeys(SPLITS)
    manifest = prepare(data_settings(everything, **given, max_prompt_tokens=200), renderer, tmp_path / "out")
    (dropped,) = (w for w in manifest["warnings"] if " final " in w or " of final" in w)
    assert "questions of final were dropped: no part of the context fits" in dropped
    assert not any("train" in warning for warning in manifest["warnings"])
    assert all(warning in caplog.text for warning in manifest["warnings"])


def test_prompts_that_were_never_prepared_say_by_which_command_they_are(tmp_path):
    with pytest.raises(InputError, match=r"does not exist; of an experiment, it is made by: .*--force .*"):
        read_prompts(tmp_path / "gate.parquet")


def spoilt_file(folder):
    """Ten articles, of which the first holds what SQuAD v1.1 does not have."""
    content = generate_corpus(5, 10, paragraphs=2, questions=3)
    first, second = content["data"][0]["paragraphs"]
    first["qas"][0]["answers"] = []
    first["qas"][1]["is_impossible"] = True
    first["qas"][2]["answers"][0]["answer_start"] += 1
    second["qas"][0]["question"] = 7
    second["qas"][1]["answers"][0]["text"] = "not there"
    second["qas"][2]["id"] = content["data"][1]["paragraphs"][0]["qas"][0]["id"]
    content["data"][2]["paragraphs"][0].pop("context")
    (folder / "spoilt.json").write_text(json.dumps(content))
    return {"source": "local", "train_file": str(folder / "spoilt.json")}


def test_malformed_questions_are_passed_over_and_counted_where_that_is_asked_for(renderer, tmp_path, caplog):
    given = spoilt_file(tmp_path)
    with pytest.raises(
        InputError, match=r"data\[0\].*paragraphs\[0\], qas\[0\] \(id 'demo-5-0-0-0'\): the question has no"
    ):
        prepare(data_settings(dict.fromkeys(SPLITS), **given), renderer, tmp_path / "refused")
    own = data_settings(dict.fromkeys(SPLITS), **given, skip_invalid=True)
    manifest = prepare(own, renderer, tmp_path / "out")
    assert manifest["passed_over"]["questions"] == 5  # three questions, a repeated id, a paragraph
    assert manifest["misplaced_answers"] == {"not_in_context": 1, "not_at_answer_start": 1}
    kept = sum(split["questions"] for split in manifest["splits"].values())
    assert kept == 10 * 2 * 3 - 4 - 3
    assert "5 malformed articles, paragraphs or questions were passed over, the first: " in manifest["warnings"][0]
    assert "1 questions have an answer that is not in context" in caplog.text


def test_sound_data_have_nothing_to_pass_over(renderer, tmp_path):
    manifest = prepare(data_settings(), renderer, tmp_path)
    assert manifest["passed_over"] == {"questions": 0, "first": []}
    assert set(manifest["misplaced_answers"].values()) == {0}
