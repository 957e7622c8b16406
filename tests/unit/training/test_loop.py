"""The loop of both phases: data order, schedule, weight decay, diagnostics, and failures that keep the last good state."""

import json
import math
import os
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentwire.adapter import Adapter
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.resuming.stopping import Stopped, StopRequest
from latentwire.settings import Optimiser
from latentwire.training.loop import (
    batch_at,
    epoch_order,
    planned_steps,
    prompts_seen,
    train_adapter,
)

SETTINGS = Optimiser(lr=0.01, weight_decay=0.1, warmup_fraction=0.2, gradient_clip=1.0)
STEPS = 10


@given(count=st.integers(1, 50), batch_size=st.integers(1, 60), seed=st.integers(0, 1000), epoch=st.integers(0, 3))
def test_every_epoch_covers_each_prompt_once(count, batch_size, seed, epoch):
    per_epoch = math.ceil(count / batch_size)
    batches = [batch_at(epoch * per_epoch + position, count, batch_size, seed) for position in range(per_epoch)]
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


@given(count=st.integers(1, 50), batch_size=st.integers(1, 60), epochs=st.floats(0.01, 3), seed=st.integers(0, 9))
def test_a_part_of_an_epoch_sees_that_part_of_the_prompts(count, batch_size, epochs, seed):
    steps = planned_steps(epochs, count, batch_size)
    seen = [len(batch_at(step, count, batch_size, seed)) for step in range(steps)]
    assert sum(seen) == prompts_seen(steps, count, batch_size)
    assert planned_steps(2, count, batch_size) == 2 * math.ceil(count / batch_size)
    assert steps == 1 or abs(sum(seen) - epochs * count) <= batch_size


def test_the_order_depends_on_the_seed_and_the_epoch_and_on_nothing_else():
    torch.manual_seed(1)
    first = epoch_order(100, seed=0, epoch=0)
    torch.manual_seed(2)
    assert torch.equal(first, epoch_order(100, seed=0, epoch=0))
    for seed, epoch in [(0, 1), (1, 0)]:
        assert not torch.equal(first, epoch_order(100, seed, epoch))


class Run:
    """A small adapter trained towards fixed targets; counts what the loop calls."""

    def __init__(self, folder, settings=SETTINGS):
        torch.manual_seed(0)
        self.adapter = Adapter(3, 4)
        self.codes, self.targets = torch.randn(20, 3), torch.randn(20, 4)
        self.folder, self.settings = folder, settings
        self.seen, self.measured, self.rates = [], [], []
        self.broken_step, self.broken = None, None

    def loss_at(self, step):
        self.seen.append(step)
        loss = (self.adapter(self.codes) - self.targets).square().mean()
        if step == self.broken_step:
            loss = self.broken(self.adapter, loss)
        return {"loss": loss, "half": loss / 2}

    def measure(self, step):
        self.measured.append(step)
        return {"recon_mse": float((self.adapter(self.codes) - self.targets).square().mean().detach())}

    def __call__(self, steps=STEPS, measure_every=4, stop=None):
        stop = stop or StopRequest()
        stop.take_over(self.folder / "state")
        return train_adapter(
            self.adapter,
            self.loss_at,
            steps=steps,
            steps_per_epoch=5,
            settings=self.settings,
            checkpoints=Checkpoints(self.folder / "state", stop),
            measure=self.measure,
            measure_every=measure_every,
            diagnostics=self.folder / "diagnostics.jsonl",
            description="a test",
        )

    @property
    def weights(self):
        return {name: tensor.clone() for name, tensor in self.adapter.state_dict().items()}

    @property
    def logged(self):
        return [json.loads(line) for line in (self.folder / "diagnostics.jsonl").read_text().splitlines()]


def assert_equal_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_it_measures_before_the_first_step_every_so_many_and_after_the_last(tmp_path):
    run = Run(tmp_path)
    history = run()
    assert run.measured == [0, 4, 8, 10]
    assert run.seen == list(range(STEPS))
    assert run.logged == history
    assert [row["epoch"] for row in history] == [0, 0.8, 1.6, 2.0]
    assert set(history[0]) == {"step", "epoch", "recon_mse"}
    assert set(history[1]) == set(history[0]) | {"train_loss", "train_half", "train_gradient_norm"}
    assert history[-1]["recon_mse"] < history[0]["recon_mse"]


def test_training_losses_are_means_since_the_last_measurement(tmp_path):
    run, losses = Run(tmp_path), []
    loss_at = run.loss_at
    run.loss_at = lambda step: (losses.append(found := loss_at(step)), found)[1]
    history = run()
    values = [loss["loss"].item() for loss in losses]
    for row, (start, end) in zip(history[1:], [(0, 4), (4, 8), (8, 10)], strict=True):
        assert row["train_loss"] == pytest.approx(sum(values[start:end]) / (end - start))
        assert row["train_half"] == pytest.approx(row["train_loss"] / 2)


def test_the_learning_rate_rises_peaks_and_falls_along_a_cosine(tmp_path, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    Run(tmp_path, Optimiser(lr=0.01, weight_decay=0.0, warmup_fraction=0.2, gradient_clip=1.0))(steps=20)
    expected = [(i + 1) / 4 for i in range(4)] + [0.5 * (1 + math.cos(math.pi * i / 16)) for i in range(16)]
    assert rates == pytest.approx([0.01 * factor for factor in expected])


def test_matrices_decay_and_biases_do_not(tmp_path):
    run = Run(tmp_path)
    run.loss_at = lambda step: {"loss": 0 * sum(parameter.sum() for parameter in run.adapter.parameters())}
    before = run.weights
    run()
    for name, tensor in run.weights.items():
        if tensor.ndim >= 2:
            assert tensor.norm() < before[name].norm(), name
        else:
            assert torch.equal(tensor, before[name]), name


def test_gradients_are_clipped_and_their_norm_before_it_is_logged(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def observed(optimiser, *arguments):
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", observed)
    run = Run(tmp_path, Optimiser(lr=0.01, weight_decay=0.0, warmup_fraction=0.0, gradient_clip=1e-3))
    history = run()
    assert norms == pytest.approx([1e-3] * STEPS, rel=1e-3)
    assert all(row["train_gradient_norm"] > 0.1 for row in history[1:])


@given(interrupted_at=st.integers(0, STEPS - 1), saved_every=st.integers(1, STEPS))
def test_interrupted_anywhere_and_continued_it_ends_in_the_same_bits(tmp_path_factory, interrupted_at, saved_every):
    folder = tmp_path_factory.mktemp("runs")
    straight = Run(folder / "straight")
    expected = straight()

    def interrupt(adapter, loss):
        raise KeyboardInterrupt

    broken = Run(folder / "broken")
    broken.broken_step, broken.broken = interrupted_at, interrupt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "due", property(lambda _: (broken.seen[-1] + 1) % saved_every == 0))
        with pytest.raises(KeyboardInterrupt):
            broken()
    continued = Run(folder / "broken")
    assert continued() == expected
    assert_equal_weights(continued.weights, straight.weights)
    assert continued.logged == straight.logged  # no line twice, none missing
    assert continued.seen == list(range(interrupted_at // saved_every * saved_every, STEPS))


class Noisy(Run):
    """A run whose loss draws random numbers, and which a request may stop."""

    stop_at = None

    def loss_at(self, step):
        losses = super().loss_at(step)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses | {"loss": losses["loss"] * (1 + torch.rand(()))}


@given(stopped_at=st.integers(0, STEPS - 2), every_step=st.booleans())
def test_told_to_stop_it_keeps_the_state_between_measurements_and_continues_in_the_same_bits(
    tmp_path_factory, stopped_at, every_step
):
    folder = tmp_path_factory.mktemp("runs")
    straight = Noisy(folder / "straight")
    expected = straight()
    stopped = Noisy(folder / "stopped")
    stopped.stop_at = stopped_at
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        if every_step:
            patch.setattr("latentwire.resuming.checkpoint.INTERVAL_SECONDS", 0.0)
        try:
            with pytest.raises(Stopped, match="received SIGTERM; the state is kept"):
                stopped(stop=StopRequest().listen())
        finally:
            signal.signal(signal.SIGTERM, before)
        kept = {int(path.stem.removeprefix("step")) for path in (folder / "stopped/state").glob("step*")}
        # It stops before the next step, whether or not anything is measured then.
        assert max(kept) == stopped_at + 1
        if every_step and stopped_at > 0:
            assert kept == {stopped_at, stopped_at + 1}
        continued = Noisy(folder / "stopped")
        assert continued() == expected
    assert continued.seen == list(range(stopped_at + 1, STEPS))
    assert_equal_weights(continued.weights, straight.weights)
    assert continued.logged == straight.logged


def test_a_run_that_is_taken_over_stops_and_leaves_its_successors_checkpoints_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("latentwire.resuming.stopping.OWNER_SECONDS", 0.0)
    expected = Run(tmp_path / "straight")()
    orphan, successor = Run(tmp_path / "shared"), Run(tmp_path / "shared")
    found = []

    def overtaken(adapter, loss):
        found.append(successor())
        return loss

    orphan.broken_step, orphan.broken = 6, overtaken
    successor_state = tmp_path / "shared/state/owner"
    with pytest.raises(Stopped, match="another process has taken over"):
        orphan()
    assert successor_state.exists()
    assert found == [expected]
    assert successor.seen == list(range(STEPS))
    assert successor.logged == expected
    assert Checkpoints(tmp_path / "shared/state").load()[0] == STEPS


def test_a_checkpoint_is_written_when_it_is_due_and_at_the_end(tmp_path, monkeypatch):
    saved, run = [], Run(tmp_path)
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, state: saved.append(step))
    monkeypatch.setattr(Checkpoints, "due", property(lambda _: run.seen[-1] + 1 in (3, 8)))
    run()
    assert saved == [3, 8, STEPS]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = Run(tmp_path)
    history = first()
    second = Run(tmp_path)
    assert second() == history
    assert second.seen == second.measured == []
    assert_equal_weights(second.weights, first.weights)


class InfiniteGradient(torch.autograd.Function):
    """A finite value with an infinite gradient, as an overflow in a backward pass gives."""

    @staticmethod
    def forward(context, value):
        return value.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.inf


@pytest.mark.parametrize(
    ("what", "broken"),
    [
        ("the loss is nan", lambda adapter, loss: loss * math.nan),
        ("the loss is inf", lambda adapter, loss: loss + math.inf),
        ("the gradient norm is (nan|inf)", lambda adapter, loss: InfiniteGradient.apply(loss)),
    ],
)
@pytest.mark.parametrize("step", [0, 3, 6])
def test_what_is_not_finite_stops_the_run_names_the_step_and_keeps_the_state_before_it(tmp_path, what, broken, step):
    good = Run(tmp_path / "good")
    with pytest.raises(ZeroDivisionError):
        good.broken_step, good.broken = step, lambda adapter, loss: 1 / 0
        good()
    bad = Run(tmp_path / "bad")
    bad.broken_step, bad.broken = step, broken
    with pytest.raises(FloatingPointError, match=rf"a test: {what} at step {step};.*state.*[Ll]earning rate"):
        bad()
    kept_step, kept = Checkpoints(tmp_path / "bad" / "state").load()
    assert kept_step == step
    assert_equal_weights(kept["adapter"], good.weights)
    assert all(tensor.isfinite().all() for tensor in kept["adapter"].values())
