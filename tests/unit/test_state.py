"""The folder of unfinished work: another one for whatever would give other bytes."""

import os

import pytest
import torch

from latentwire.resuming import state
from latentwire.resuming.state import state_folder


@pytest.fixture
def inputs(tmp_path):
    paths = [tmp_path / "table", tmp_path / "prompts"]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_it_is_found_again_in_another_process(tmp_path, inputs):
    folder = state_folder(tmp_path, {"seed": 0, "lr": 0.1}, inputs, "code")
    for path in inputs:
        os.utime(path, (0, 0))
    assert state_folder(tmp_path, {"lr": 0.1, "seed": 0}, inputs, "code") == folder
    assert folder.parent == tmp_path


def test_what_changes_the_result_changes_the_folder(tmp_path, inputs, monkeypatch):
    def folder(settings=("a", 1), code="code", device="cpu"):
        return state_folder(tmp_path, settings, inputs, code, device)

    found = [folder(), folder(("a", 2)), folder(code="other code"), folder(device="cuda")]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1000)
        found.append(folder())
        # A retry on a node with fewer cores goes on from where it was.
        assert folder(device="cuda") in found
    versions = state.library_versions()
    for name in ("torch", "transformers", "python"):
        with monkeypatch.context() as patch:
            patch.setattr(state, "library_versions", lambda name=name: versions | {name: "0.0"})
            found.append(folder())
    inputs[0].write_text("another table")
    found.append(folder())
    assert len(set(found)) == len(found)
