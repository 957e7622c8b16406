"""Checkpoints: everything comes back as it was, broken files are skipped with a warning, the last two are kept."""

import json
import logging
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from latentwire.resuming.checkpoint import Checkpoints

tensors = st.builds(
    lambda shape, dtype, seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]),
    st.integers(0, 99),
)
leaves = tensors | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers() | st.sampled_from(["__tensor__", "__dict__", "a", "a/b", "b"])
states = st.dictionaries(
    st.text(min_size=1),
    st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)),
    max_size=3,
)


def assert_same(found, expected):
    """Equal in value, type and dtype, all the way down."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            assert_same(ours, theirs)
    else:
        assert found == expected


def saved(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save(step, {"weight": torch.full((3,), float(step)), "step": step})


@given(states)
def test_any_nest_of_tensors_numbers_texts_lists_and_dictionaries_comes_back(tmp_path_factory, state):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("run"))
    checkpoints.save(7, state)
    step, found = checkpoints.load()
    assert step == 7
    assert_same(found, state)


def test_keys_that_would_make_the_same_path_stay_apart(tmp_path):
    state = {"a/b": torch.zeros(1), "a": {"b": torch.ones(1), 0: torch.full((1,), 2.0), "0": torch.full((1,), 3.0)}}
    Checkpoints(tmp_path).save(1, state)
    assert_same(Checkpoints(tmp_path).load()[1], state)


def test_views_and_tied_tensors_are_stored_by_value(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    Checkpoints(tmp_path).save(1, {"transposed": whole.T, "row": whole[1], "tied": [whole, whole]})
    whole += 1
    _, found = Checkpoints(tmp_path).load()
    assert torch.equal(found["transposed"], (whole - 1).T)
    assert torch.equal(found["row"], whole[1] - 1)
    assert torch.equal(found["tied"][1], whole - 1)


def test_adamw_and_its_schedule_continue_as_if_never_interrupted(tmp_path):
    def made():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=0.05)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 / (step + 1))
        return {"model": model, "optimiser": optimiser, "scheduler": scheduler}

    def steps(parts, first, last):
        for step in range(first, last):
            parts["optimiser"].zero_grad()
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
            parts["model"](x).square().sum().backward()
            parts["optimiser"].step()
            parts["scheduler"].step()

    straight, interrupted, continued = made(), made(), made()
    steps(straight, 0, 8)
    steps(interrupted, 0, 5)
    Checkpoints(tmp_path).save(5, {name: part.state_dict() for name, part in interrupted.items()})
    step, state = Checkpoints(tmp_path).load()
    for name, part in continued.items():
        part.load_state_dict(state[name])
    steps(continued, step, 8)
    assert torch.equal(continued["model"].weight, straight["model"].weight)
    for moment in ("step", "exp_avg", "exp_avg_sq"):
        for ours, theirs in zip(
            continued["optimiser"].state.values(), straight["optimiser"].state.values(), strict=True
        ):
            assert torch.equal(ours[moment], theirs[moment])


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path):
    assert Checkpoints(tmp_path / "missing").load() is None


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    saved(checkpoints, 5, 10, 100, 1000)
    assert sorted(os.listdir(tmp_path)) == ["step000000100.safetensors", "step000001000.safetensors"]
    step, state = checkpoints.load()
    assert (step, state["step"], state["weight"].tolist()) == (1000, 1000, [1000.0] * 3)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def other_header(path):
    save_file({"weight": torch.zeros(3)}, path, metadata={"state": "{", "step": "10"})


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # in the last tensor
    path.write_bytes(content)


def flipped_in_the_header(path):
    content = path.read_bytes()
    assert content.count(b'[\\"step\\", 10]') == 1
    path.write_bytes(content.replace(b'[\\"step\\", 10]', b'[\\"step\\", 11]'))


@pytest.mark.parametrize("damage", [cut, emptied, text, foreign, other_header, flipped, flipped_in_the_header])
def test_an_unreadable_newest_one_is_passed_over_aloud(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    saved(checkpoints, 5, 10)
    damage(tmp_path / "step000000010.safetensors")
    with caplog.at_level(logging.WARNING):
        step, state = checkpoints.load()
    assert (step, state["step"]) == (5, 5)
    assert "step000000010.safetensors can't be read" in caplog.text


def test_when_none_is_readable_the_run_starts_anew_and_says_so(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    saved(checkpoints, 5, 10)
    for path in tmp_path.iterdir():
        cut(path)
    assert checkpoints.load() is None
    assert caplog.text.count("can't be read") == 2


def test_unreadable_newer_ones_never_push_out_what_a_run_writes_after_them(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    saved(checkpoints, 50, 60)
    for path in tmp_path.iterdir():
        emptied(path)
    saved(checkpoints, 10)
    assert checkpoints.load()[0] == 10
    saved(checkpoints, 20)
    assert sorted(os.listdir(tmp_path)) == ["step000000010.safetensors", "step000000020.safetensors"]


def test_no_partial_checkpoint_is_ever_visible(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    saved(checkpoints, 5)
    seen = []

    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        seen.append([name for name in os.listdir(tmp_path) if name.startswith("step")])
        raise OSError("No space left on device")

    monkeypatch.setattr("latentwire.resuming.checkpoint.save_file", interrupted)
    with pytest.raises(OSError, match="No space left"):
        saved(checkpoints, 10)
    assert seen == [["step000000005.safetensors"]]
    assert os.listdir(tmp_path) == ["step000000005.safetensors"]
    assert checkpoints.load()[0] == 5


def test_no_pickle_is_in_it(tmp_path):
    saved(Checkpoints(tmp_path), 5)
    content = next(tmp_path.iterdir()).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["state"])["__dict__"][1] == ["step", 5]
