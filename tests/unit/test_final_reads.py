"""The split ``final`` is read once: whoever reads it second, under another configuration, is told so for ever."""

from latentwire.decisions.final_reads import is_confirmatory, record_read, recorded_configurations


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
