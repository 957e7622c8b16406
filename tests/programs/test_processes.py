"""Phase 2 in several processes: the loss curve of one, one set of results, and a stop at the same step."""

import json
import os
import signal
import socket
import subprocess

import pytest
import torch
from interruptions import SCRIPTS, Interruption, _run, processes, run
from preloaded import preloaded_python
from safetensors.torch import load_file
from test_interruptions import command, inputs  # noqa: F401, a fixture

from latentwire.resuming.stopping import EXIT_STOPPED

pytestmark = pytest.mark.slow


@pytest.fixture
def phase2(inputs):  # noqa: F811
    script, arguments = command("phase 2", inputs)
    return script, [*arguments, "--epochs", "2"]


def curve(folder):
    """The losses of a run, by step."""
    lines = map(json.loads, (folder / "output/diagnostics.jsonl").read_text().splitlines())
    return {line["step"]: [line[name] for name in ("train_loss", "prompt_loss_all") if name in line] for line in lines}


def adapter(folder):
    return load_file(folder / "output/adapter.safetensors")


def run_together(script, arguments, folder, interruptions=(None, None)):
    """Two processes as torchrun starts them, each with what interrupts it; their exit statuses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for rank, interruption in enumerate(interruptions):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = {name: str(value) for name, value in own.items()}
        started.append(processes.Process(target=_with, args=(environment, script, arguments, folder, interruption)))
        started[-1].start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def _with(environment, *arguments):
    os.environ.update(environment)
    _run(*arguments)


def test_two_processes_have_the_loss_curve_of_one_and_write_one_result(phase2, tmp_path):
    script, arguments = phase2
    assert run(script, arguments, tmp_path / "one") == 0
    (tmp_path / "two").mkdir()
    python = str(preloaded_python())
    launch = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, SCRIPTS / script, *arguments], cwd=tmp_path / "two", env=os.environ | {"PYTHON_EXEC": python},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected, found = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert found.keys() == expected.keys() and len(found) > 3
    for step, losses in expected.items():
        assert found[step] == pytest.approx(losses, rel=1e-4), step
    for name, own in adapter(tmp_path / "one").items():
        torch.testing.assert_close(adapter(tmp_path / "two")[name], own, rtol=1e-3, atol=1e-5)
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"output", "state"}
    assert not list((tmp_path / "two/state").iterdir())


@pytest.mark.parametrize("signalled", [0, 1])
def test_processes_stop_at_the_same_step_whichever_is_told_to_and_continue_together(phase2, tmp_path, signalled):
    script, arguments = phase2
    assert run_together(script, arguments, tmp_path / "whole") == [0, 0]
    interruptions = [None, None]
    interruptions[signalled] = Interruption(signal.SIGTERM, after=3)
    assert run_together(script, arguments, tmp_path / "stopped", interruptions) == [EXIT_STOPPED] * 2
    assert not (tmp_path / "stopped/output/adapter.safetensors").exists()
    log = (tmp_path / "stopped/log").read_text()
    assert "received SIGTERM; the state is kept" in log and "another process of this run was told to stop" in log
    assert run_together(script, arguments, tmp_path / "stopped") == [0, 0]
    assert "continuing at step" in (tmp_path / "stopped/log").read_text()
    for name, own in adapter(tmp_path / "whole").items():
        assert torch.equal(adapter(tmp_path / "stopped")[name], own), name


def test_a_lost_process_ends_the_others_with_a_line_and_the_run_continues(phase2, tmp_path):
    script, arguments = phase2
    lost = Interruption(signal.SIGKILL, after=4)
    assert run_together(script, arguments, tmp_path, (None, lost)) == [EXIT_STOPPED, -signal.SIGKILL]
    log = (tmp_path / "log").read_text()
    assert "stopped: another process of this run was lost" in log and "Traceback" not in log
    assert run_together(script, arguments, tmp_path) == [0, 0]
    assert "continuing at step" in (tmp_path / "log").read_text()
