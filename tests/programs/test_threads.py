"""What every program prepares: threads, of which a job says if they are fewer than allocated, and the devices."""

import ast
import logging
import os
from pathlib import Path

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


def computing_benchmarks():
    """The syntax trees of benchmarks that import torch themselves, by name; modules that they share have no main."""
    trees = {
        path.name: ast.parse(path.read_text()) for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py")
    }
    for name, tree in sorted(trees.items()):
        imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        if "torch" in imported and any(getattr(node, "name", "") == "main" for node in tree.body):
            yield pytest.param(tree, id=name)


@pytest.mark.parametrize("tree", computing_benchmarks())
def test_benchmarks_prepare_the_device_as_the_programs_do(tree):
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    (main,) = (node for node in tree.body if getattr(node, "name", "") == "main")
    in_main = {ast.unparse(node.func) for node in ast.walk(main) if isinstance(node, ast.Call)}
    assert in_main & {"set_threads", "cli.set_threads"}
    assert not {name for name in called if name.endswith("set_num_threads")}
