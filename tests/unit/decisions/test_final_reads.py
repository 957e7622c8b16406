"""The split ``final`` is read once: verdicts of later configurations are marked permanently."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from latentwire.decisions import final_reads
from latentwire.decisions.final_reads import is_confirmatory, record_read, recorded_configurations
from latentwire.errors import InputError


def test_the_first_configuration_is_confirmatory_and_stays_so(tmp_path):
    record_read(tmp_path, "first")
    assert is_confirmatory(tmp_path, "first")
    record_read(tmp_path, "second")
    record_read(tmp_path, "first")  # reading again under the same configuration is the same experiment
    assert is_confirmatory(tmp_path, "first")
    assert not is_confirmatory(tmp_path, "second")


def test_a_later_configuration_never_becomes_confirmatory(tmp_path):
    for configuration in ("a", "b", "c", "b"):
        record_read(tmp_path, configuration)
    assert [is_confirmatory(tmp_path, configuration) for configuration in "abc"] == [True, False, False]
    assert recorded_configurations(tmp_path) == ["a", "b", "c"]


def test_a_configuration_that_has_not_read_yet(tmp_path):
    assert is_confirmatory(tmp_path / "nothing-here", "any")
    assert recorded_configurations(tmp_path / "nothing-here") == []


def test_reading_again_writes_nothing(tmp_path):
    record_read(tmp_path, "first")
    before = (tmp_path / "first.json").stat().st_mtime_ns
    record_read(tmp_path, "first")
    assert (tmp_path / "first.json").stat().st_mtime_ns == before


def test_jobs_of_one_configuration_that_read_at_the_same_time_are_one_read(tmp_path):
    """The record that another job is just writing is no earlier configuration."""
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as jobs:
            list(jobs.map(lambda _: record_read(folder, "first"), range(8)))  # noqa: B023
        assert is_confirmatory(folder, "first")


def test_the_record_of_another_job_of_the_configuration_is_no_earlier_one(tmp_path, monkeypatch):
    listed = final_reads.recorded_configurations

    def after_another_job(folder):
        (folder / "first.json").write_text('{"configuration": "first", "earlier": []}')
        (folder / ".first.json.abcdefgh.json").write_text("")
        return listed(folder)

    monkeypatch.setattr(final_reads, "recorded_configurations", after_another_job)
    record_read(tmp_path, "first")
    assert is_confirmatory(tmp_path, "first")


@pytest.mark.parametrize(
    "text", ["", '{"configuration": "fi', "[]", '{"configuration": "first"}', '{"configuration": "x", "earlier": []}']
)
def test_a_damaged_record_says_how_a_new_one_is_made(tmp_path, text):
    record_read(tmp_path, "second")
    (tmp_path / "first.json").write_text(text)
    with pytest.raises(InputError, match=r"first\.json is not the record that was written\. Remove it, then run"):
        is_confirmatory(tmp_path, "first")
    (tmp_path / "first.json").unlink()
    record_read(tmp_path, "first")
    assert not is_confirmatory(tmp_path, "first")
