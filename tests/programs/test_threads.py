"""What every program prepares: threads, of which a job says if they are fewer than allocated, and the devices."""

import logging
import os

import pytest
import torch

from latentwire import cli


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(library, "1")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    cudnn, tf32 = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.mark.parametrize(("given", "warned"), [(None, False), ("1", False), ("2", False), ("8", True)])
def test_fewer_threads_than_slurm_gave_are_reported(monkeypatch, caplog, given, warned):
    if given is None:
        monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    else:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    with caplog.at_level(logging.WARNING):
        cli.set_threads(2)
    assert torch.get_num_threads() == 2
    assert ("using 2 threads although Slurm allocated 8" in caplog.text) == warned


def test_every_device_computes_the_right_numbers_and_the_same_again():
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(True)
    cli.set_threads(1)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
