"""Threads of the programs: a job that computes with fewer than it was given says so."""

import logging

import pytest
import torch

from latentwire import cli


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    for library in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(library, "1")
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize(("given", "warned"), [(None, False), ("1", False), ("2", False), ("8", True)])
def test_fewer_threads_than_slurm_gave_are_reported(monkeypatch, caplog, given, warned):
    if given is None:
        monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    else:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
    with caplog.at_level(logging.WARNING):
        cli.set_threads(2)
    assert torch.get_num_threads() == 2
    assert ("2 threads where Slurm gave 8" in caplog.text) == warned
