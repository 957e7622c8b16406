"""Commands that messages and verdicts propose hold in a shell without an active environment."""

import sys

import pytest

from latentwire.commands import typed


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A working directory with an environment, whose interpreter runs this."""
    programs = tmp_path / "a checkout/.venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "hf"):
        (programs / name).touch()
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path / "a checkout")
    return tmp_path / "a checkout"


def test_below_the_working_directory_a_program_is_relative(checkout):
    assert typed("hf") == ".venv/bin/hf"


def test_elsewhere_it_is_absolute_and_quoted(checkout, monkeypatch):
    monkeypatch.chdir(checkout.parent)
    assert typed("hf") == "'a checkout/.venv/bin/hf'"
    (checkout.parent / "other").mkdir()
    monkeypatch.chdir(checkout.parent / "other")
    assert typed("hf") == f"'{checkout}/.venv/bin/hf'"


def test_an_interpreter_that_is_named_through_a_link_is_below_it_too(checkout, monkeypatch):
    link = checkout.parent / "link"
    link.symlink_to(checkout)
    monkeypatch.setattr(sys, "executable", str(link / ".venv/bin/python"))
    assert typed("hf") == ".venv/bin/hf"


def test_a_program_that_is_not_beside_the_interpreter_keeps_its_name(checkout):
    assert typed("snakemake") == "snakemake"
