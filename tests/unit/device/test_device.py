"""Which of several GPUs a process computes on."""

from types import SimpleNamespace

import pytest
import torch

from latentwire import device
from latentwire.device import choose_device
from latentwire.processes import Processes


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """A machine with two; what was made the current one."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"GPU-{index}"))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(device, "_held", held := [])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    yield current
    for file in held:
        file.close()


def test_jobs_at_the_same_time_take_a_gpu_each_and_share_when_there_are_more_jobs(two_gpus):
    assert [choose_device("cuda").index for _ in range(3)] == [0, 1, 0]
    assert two_gpus == [0, 1, 0]


def test_a_gpu_is_free_again_when_its_process_has_ended(two_gpus):
    choose_device("auto")
    device._held.pop().close()
    assert choose_device("auto").index == 0


def test_a_process_of_torchrun_has_the_gpu_of_its_rank(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device("cuda") == torch.device("cuda", 1)
    assert two_gpus == [1] and not device._held


def test_the_cpu_takes_no_gpu(two_gpus):
    assert choose_device("cpu") == torch.device("cpu")
    assert not two_gpus and not device._held


def test_processes_share_prompts_without_leaving_one_out_or_taking_one_twice(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares += Processes.started().share(range(8))
        assert Processes.started().follows == (rank > 0)
    assert sorted(shares) == list(range(8))
    assert Processes(2, 3).share(range(2)) == range(0)
