"""When and by which code a result is written, read at run time."""

import subprocess
from argparse import Namespace
from datetime import UTC, datetime
from importlib.metadata import version

import pytest

from latentwire.files import read_json, sha256_of, write_json
from latentwire.integrity import read_record
from latentwire.provenance import MODEL_CARD, code_commit, library_versions, provenance_path, utc_day, write_provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(
        ["git", *identity, "-C", folder, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one commit, a tag included: a name must not stand in its place."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/code.py").write_text("VALUE = 1\n")
    (tmp_path / "rules").write_text("")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "--annotate", "v1", "--message", "v1")
    return tmp_path


def test_the_commit_is_marked_where_tracked_files_have_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_commit(checkout / "package") == commit
    (checkout / "package/notes").write_text("not tracked")
    assert code_commit(checkout / "package") == commit
    (checkout / "rules").write_text("changed, beside the package")
    assert code_commit(checkout / "package") == f"{commit}-dirty"


def test_code_that_git_does_not_know_has_no_commit(checkout, tmp_path_factory, monkeypatch):
    copied = checkout / "copied"
    copied.mkdir()
    (copied / "code.py").write_text("VALUE = 1\n")
    assert code_commit(copied) is None
    assert code_commit(tmp_path_factory.mktemp("no-checkout")) is None
    monkeypatch.setenv("PATH", "")
    assert code_commit(checkout / "package") is None


def test_every_record_names_what_the_model_was_made_from(tmp_path):
    card = {"base": {"source": "wheel", "requirement": "a-model==1"}, "lora": {"name": "tuned", "sha256": "0"}}
    (tmp_path / "model").mkdir()
    write_json(tmp_path / "model" / MODEL_CARD, card | {"versions": {}})
    for name in ("table", "adapter", "other"):
        (tmp_path / name).write_text(name)
    write_provenance(tmp_path / "table", Namespace(model=str(tmp_path / "model")), [])
    write_provenance(tmp_path / "adapter", Namespace(), [None, tmp_path / "other", tmp_path / "table"])
    write_provenance(tmp_path / "other", Namespace(model="owner/on-the-hub"), [])
    found = {name: read_json(provenance_path(tmp_path / name))["model"] for name in ("table", "adapter", "other")}
    assert found == {"table": card, "adapter": card, "other": None}


def test_a_record_names_the_program_and_every_file_that_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/fit_pca.py"])
    for name in ("pca", "spectrum", "table"):
        (tmp_path / name).write_text(name)
    read = {str(tmp_path / "table"): "0" * 64}
    write_provenance(tmp_path / "pca", Namespace(), read, by_products=[tmp_path / "spectrum"])
    record = read_record(provenance_path(tmp_path / "pca"))
    assert (record.program, record.folder, record.inputs) == ("fit_pca.py", tmp_path, read)
    sizes = {name: (own.size, own.sha256) for name, own in record.outputs.items()}
    assert sizes == {name: (len(name), sha256_of(tmp_path / name)) for name in ("pca", "spectrum")}


def test_a_record_names_what_fits_quantisers_and_the_state_of_trainings_and_answers_is_not_named_after_it(tmp_path):
    (tmp_path / "codec").write_text("codec")
    write_provenance(tmp_path / "codec", Namespace(), [])
    recorded = read_json(provenance_path(tmp_path / "codec"))["versions"]
    assert recorded == library_versions() | {"faiss-cpu": version("faiss-cpu")}
    assert "faiss-cpu" not in library_versions()


def test_the_day_is_utc_and_can_be_given(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225599")
    assert utc_day() == "2025-12-31"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    before = datetime.now(UTC).date().isoformat()
    assert before <= utc_day() <= datetime.now(UTC).date().isoformat()
