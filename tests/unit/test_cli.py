"""How a program ends: with the message alone if the user can mend it."""

import argparse
import signal
import sys
from pathlib import Path

import pytest
import torch

from latentwire import cli
from latentwire.errors import InputError
from latentwire.settings import Model


def ended_by(error: BaseException, capsys) -> tuple[object, str]:
    """The exit status and standard error of a program that raises this."""

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("error", [InputError("no such thing"), FloatingPointError("no such thing")])
def test_an_error_that_the_user_can_mend_is_its_message_alone(error, capsys):
    status, said = ended_by(error, capsys)
    assert status == 1 and said.endswith("error: no such thing\n") and said.count("\n") == 1


def test_memory_that_is_full_names_the_settings_that_need_less(capsys):
    status, said = ended_by(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nMore."), capsys)
    assert status == 1 and said.count("\n") == 1
    assert "Tried 2 GiB. What was finished is kept" in said and "phase2.activation_checkpointing" in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "results/a"), "results/a: No such file or directory"),
        (IsADirectoryError(21, "Is a directory", "results/a"), "results/a: Is a directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            MemoryError("Unable to allocate 2 GiB"),
            "out of memory: Unable to allocate 2 GiB. What was finished is kept",
        ),
        (MemoryError(), "out of memory: an allocation failed"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "DefaultCPUAllocator"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory: libtorch_cpu.so"),
        (InputError("two\nlines"), "error: two lines"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, words, capsys):
    status, said = ended_by(error, capsys)
    assert status == 1 and words in said and said.count("\n") == 1


def test_another_runtime_error_keeps_its_traceback():
    def main() -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="mistake of ours"):
        cli.run(main)


def test_a_setting_that_is_an_object_is_json_on_the_command_line(capsys):
    parser = argparse.ArgumentParser()
    cli.add_settings(parser, Model, "template_arguments")
    assert parser.parse_args([]).template_arguments == {}
    given = parser.parse_args(["--template_arguments", '{"enable_thinking": false, "depth": 2}'])
    assert given.template_arguments == {"enable_thinking": False, "depth": 2}
    for wrong in ("{", "[1]", '{"a": null}'):
        with pytest.raises(SystemExit):
            parser.parse_args(["--template_arguments", wrong])
        assert "argument --template_arguments: " in capsys.readouterr().err


def test_ctrl_c_without_a_state_to_keep_is_a_line(capsys):
    status, said = ended_by(KeyboardInterrupt(), capsys)
    assert status == 130 and said.endswith(": interrupted\n") and said.count("\n") == 1


@pytest.mark.parametrize("error", [InputError("check model.path"), ImportError("Could not import module")])
def test_ctrl_c_that_a_library_makes_an_error_of_its_own_is_the_same_line(error, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def main() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    try:
        with pytest.raises(SystemExit) as ended:
            cli.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"{Path(sys.argv[0]).name}: interrupted\n"


def test_ctrl_c_while_a_program_is_imported_is_the_same_line(capsys):
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert sys.excepthook is not sys.__excepthook__
    assert capsys.readouterr().err == f"{Path(sys.argv[0]).name}: interrupted\n"
    sys.excepthook(ZeroDivisionError, ZeroDivisionError("a mistake of ours"), None)
    assert "ZeroDivisionError: a mistake of ours" in capsys.readouterr().err
