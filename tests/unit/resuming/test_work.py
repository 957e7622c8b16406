"""Long work: another folder for whatever would give other bytes, kept until all of the work has succeeded."""

import os

import pytest
import torch

from latentwire.resuming import work as module
from latentwire.resuming.stopping import Stopped, StopRequest
from latentwire.resuming.work import Work, resumable


@pytest.fixture
def inputs(tmp_path):
    paths = [tmp_path / "table", tmp_path / "prompts"]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_it_is_found_again_in_another_process(tmp_path, inputs):
    folder = Work(tmp_path).checkpoints({"seed": 0, "lr": 0.1}, inputs, code="code").folder
    for path in inputs:
        os.utime(path, (0, 0))
    assert Work(tmp_path).checkpoints({"lr": 0.1, "seed": 0}, inputs, code="code").folder == folder
    assert folder.parent == tmp_path


def test_what_changes_the_result_changes_the_folder(tmp_path, inputs, monkeypatch):
    def folder(settings=("a", 1), code="code", device="cpu"):
        return Work(tmp_path).checkpoints(settings, inputs, code=code, device=device).folder

    found = [folder(), folder(("a", 2)), folder(code="other code"), folder(device="cuda")]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 1000)
        found.append(folder())
        # A retry on a node with fewer cores goes on from where it was.
        assert folder(device="cuda") in found
    versions = module.library_versions()
    for name in ("torch", "transformers", "python"):
        with monkeypatch.context() as patch:
            patch.setattr(module, "library_versions", lambda name=name: versions | {name: "0.0"})
            found.append(folder())
    inputs[0].write_text("another table")
    found.append(folder())
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, Stopped, OSError])
def test_its_state_goes_when_all_of_it_has_succeeded_and_stays_otherwise(tmp_path, error):
    def run():
        with resumable(tmp_path / "state") as work:
            folders.extend([work.own("a part"), work.checkpoints({}, code="").folder])
            assert all(folder.is_dir() for folder in folders)
            if error is not None:
                raise error

    folders = []
    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert [folder.exists() for folder in folders] == [error is not None] * 2


def test_it_and_its_checkpoints_stop_when_they_are_told_to_and_what_is_to_be_kept_is(tmp_path):
    now, kept = 0.0, []
    work = Work(tmp_path, StopRequest(1, clock=lambda: now))
    checkpoints = work.checkpoints({}, code="")
    work.check()
    checkpoints.check(lambda: kept.append("too early"))
    now = 60.0
    with pytest.raises(Stopped):
        work.check()
    with pytest.raises(Stopped):
        checkpoints.check(lambda: kept.append("the state"))
    assert kept == ["the state"]


def test_a_part_that_another_process_has_taken_over_stops_here(tmp_path, monkeypatch):
    monkeypatch.setattr("latentwire.resuming.stopping.OWNER_SECONDS", 0.0)
    ours, theirs = Work(tmp_path, StopRequest()), Work(tmp_path, StopRequest())
    assert ours.own("a part") == theirs.own("a part")
    theirs.check()
    with pytest.raises(Stopped, match="another process"):
        ours.check()
