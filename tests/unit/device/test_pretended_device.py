"""What runs on a GPU, on a pretended one: no tensor meets one of the other device, and results are the CPU's, bit for bit.

Where the package computes something else on a GPU than on the CPU, the CPU's run is made to do the same: Phase 1 and 2
round the adapter's products to bfloat16 (:func:`as_on_a_gpu`), by the CPU's own mixed precision in both runs, and Phase 2
lays its prompts in one row and makes their gradient with the loss. Attention without copies of keys is the same call
where each head has keys of its own; where heads share keys, answers are compared. What only a GPU can show, its kernels and their rounding, is not tested.

Shape suffixes: V table rows, U token types, D embedding dimensions.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from pretended import GPU, INDEX, READ, TO_CPU, TO_GPU, DeviceMismatch, Pretended, pretended_gpu

from latentwire import attention
from latentwire.adapter import Adapter
from latentwire.arms import ArmInputs
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.evaluation import generate
from latentwire.evaluation.divergence import DivergenceReader, forced_prompts
from latentwire.evaluation.generate import Decoder, NewlineAfterText
from latentwire.evaluation.prefixes import prefix_runs
from latentwire.evaluation.reconstruction import measure_arms
from latentwire.evaluation.reconstruction_metrics import type_errors
from latentwire.evaluation.rows import SplitRows
from latentwire.evaluation.steps import ASK_EVERY, WARM_UP_STEPS, FixedSteps
from latentwire.packing import Layout
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.resuming.stopping import Stopped, StopRequest
from latentwire.settings import Phase1, Phase2
from latentwire.training import loop, memory, phase1, phase2
from latentwire.training.phase1 import train_phase1
from latentwire.training.phase2 import PROMPT_TERMS, train_phase2

CPU = torch.device("cpu")
K, TRAIN, CAP = 8, 40, 9
STEPS_PER_EPOCH = 5  # of 8 prompts


@pytest.fixture
def inputs(tiny_model, sequences, label_masks):
    """A model's table with its compressor and codes, and prompts with their labels."""
    table_VD = tiny_model().get_input_embeddings().weight.detach().clone()
    compressor = EmbeddingCompressor(table_VD.shape[1], K).fit(table_VD, count_tokens(sequences, len(table_VD)))
    return SimpleNamespace(
        table_VD=table_VD,
        compressor=compressor,
        codes_VK=compressor.codes(table_VD),
        train=sequences[:TRAIN],
        labels=label_masks[:TRAIN],
        held_out=sequences[TRAIN:],
        held_out_labels=label_masks[TRAIN:],
    )


class StopAt(StopRequest):
    """Stops a training before its step of this number."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def check(self, keep=lambda: None):
        self.left -= 1
        if self.left < 0:
            keep()
            raise Stopped("a test stops it")


def run_phase1(inputs, device, folder, *, epochs=2, batch_size=8, stop=None):
    adapter, history = train_phase1(
        inputs.train,
        inputs.held_out,
        inputs.table_VD,
        inputs.codes_VK,
        inputs.compressor,
        Phase1(epochs=epochs, batch_size=batch_size, lr=3e-3),
        seed=0,
        device=device,
        checkpoints=Checkpoints(folder / "state", stop),
        diagnostics=folder / "diagnostics.jsonl",
    )
    return adapter, history


def run_phase2(inputs, model, folder, *, epochs=2, stop=None, objective="cross_entropy", checkpointing=False):
    torch.manual_seed(1)
    adapter = Adapter.from_compressor(inputs.compressor).to(next(model.parameters()).device)
    found = train_phase2(
        adapter,
        model,
        inputs.train,
        inputs.labels,
        inputs.held_out,
        inputs.held_out_labels,
        inputs.table_VD,
        inputs.codes_VK,
        inputs.compressor,
        Phase2(
            epochs=epochs,
            batch_size=8,
            calibration_batches=2,
            measure_prompts=5,
            lr=1e-3,
            activation_checkpointing=checkpointing,
        ),
        seed=0,
        checkpoints=Checkpoints(folder / "state", stop),
        diagnostics=folder / "diagnostics.jsonl",
        objective=objective,
    )
    return adapter, found


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """What a training on the CPU does on a GPU: mixed precision, prompts in one row, and gradients made early."""
    with pytest.MonkeyPatch.context() as patch:
        for own in (phase1, phase2):
            patch.setattr(own, "autocast", lambda device: torch.autocast("cpu", dtype=torch.bfloat16))
        patch.setattr(Layout, "of", lambda model: Layout(packs=True, one_row=True))
        patch.setattr(phase2, "_in_parts", lambda device, processes: True)
        yield


def assert_same_adapter(found: Adapter, expected: Adapter, world: Pretended) -> None:
    for name, own in expected.state_dict().items():
        there = found.state_dict()[name]
        assert world.has(there) and torch.equal(there.cpu(), own), name


def waits_in(world: Pretended, *functions: str) -> list:
    return [wait for wait in world.waits if wait.function in functions]


# The harness


def test_tensors_of_both_devices_do_not_meet_but_a_single_number_may_meet_any():
    with pretended_gpu() as world:
        there, here = torch.ones(3).to(GPU), torch.ones(3)
        assert (there.device, here.device, there.is_cuda) == (GPU, CPU, True)
        for mixed in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.add_(here)):
            with pytest.raises(DeviceMismatch, match=r"cuda:0 and cpu.*\(3,\)"):
                mixed()
        assert world.has(there * torch.tensor(2.0)) and world.has(2 * there)
        assert not world.has(here + here)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(there)


def test_an_index_of_the_cpu_is_taken_and_an_indexed_tensor_of_the_cpu_is_not():
    with pretended_gpu() as world:
        there, index = torch.arange(4.0, device="cuda"), torch.tensor([2, 0])
        assert world.has(there[index])
        with pytest.raises(DeviceMismatch):
            torch.arange(4.0)[index.to(GPU)]
        with pytest.raises(DeviceMismatch):
            there[index.to(GPU)] = torch.zeros(2)


def test_gradients_and_an_optimisers_state_are_where_the_parameters_are():
    with pretended_gpu() as world:
        layer = torch.nn.Linear(3, 2).to(GPU)
        optimiser = torch.optim.AdamW(layer.parameters(), fused=True)
        layer(torch.ones(4, 3, device=GPU)).square().sum().backward()
        optimiser.step()
        assert all(world.has(own.grad) for own in layer.parameters())
        assert all(world.has(own) for state in optimiser.state.values() for own in state.values())
        assert not world.waits
        with pytest.raises(DeviceMismatch):
            layer(torch.ones(4, 3))


@pytest.mark.parametrize(
    ("read", "operation"),
    [
        (lambda x: x[0].item(), READ),
        (lambda x: bool(x[0]), READ),
        (lambda x: float(x.sum()), READ),
        (lambda x: int(x[:1]), READ),
        (lambda x: f"{x.max():.1f}", READ),
        (lambda x: [0, 1, 2][x.long()[1]], READ),
        (lambda x: 2.0 in x, READ),
        (lambda x: x.tolist(), READ),
        (lambda x: torch.equal(x, x + 1), "equal"),
        (lambda x: x.unique(), "unique"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 1], INDEX),
        (lambda x: x.cpu(), TO_CPU),
        (lambda x: x.to("cpu", non_blocking=True), TO_CPU),
        (lambda x: torch.zeros(3).copy_(x), TO_CPU),
        (lambda x: torch.zeros(3).to(x.device), TO_GPU),
        (lambda x: torch.tensor([1.0], device=x.device), TO_GPU),
        (lambda x: x.copy_(torch.zeros(3)), TO_GPU),
    ],
)
@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
def test_a_wait_is_noted_once_with_its_place(read, operation, mode):
    with pretended_gpu() as world, mode():
        there = torch.arange(3.0, device="cuda")
        assert not world.waits
        read(there)
    (wait,) = world.waits
    assert (wait.operation, wait.function) == (operation, "<lambda>")
    assert wait.file == "test_pretended_device.py" and wait.line == read.__code__.co_firstlineno


def test_what_does_not_wait_is_not_noted():
    with pretended_gpu() as world:
        there = torch.arange(3.0, device="cuda")
        torch.zeros(3).to(GPU, non_blocking=True)
        there[torch.tensor([0, 2])] = 1.0
        there.copy_(torch.zeros(3), non_blocking=True)
        there.masked_fill(there > 1, 0.0).to(torch.bfloat16)
        torch.full((), 3.0, device=GPU)
    assert not world.waits


def test_a_graph_does_its_operations_again_on_the_same_tensors_and_captures_no_wait():
    with pretended_gpu() as world:
        total, step, graph = torch.zeros(2, device=GPU), torch.ones(2, device=GPU), torch.cuda.CUDAGraph()
        number = 1.0
        with torch.cuda.graph(graph):
            total += (step[:1] * number).expand(2)
        number = 100.0  # a captured step knows the number that it was captured with
        graph.replay()
        assert total.tolist() == [1, 1]
        step.fill_(5)
        graph.replay()
        assert total.tolist() == [6, 6]
        with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="captured.*read"):
            total.sum().item()
        assert world.graphs[0] is graph


# Training


def test_phase_1_stopped_and_continued_ends_in_the_cpus_bits(inputs, tmp_path):
    with as_on_a_gpu():
        expected, history = run_phase1(inputs, CPU, tmp_path / "cpu", epochs=4)
    with pretended_gpu() as world:
        with pytest.raises(Stopped):
            run_phase1(inputs, GPU, tmp_path / "gpu", epochs=4, stop=StopAt(13))
        found, there = run_phase1(inputs, GPU, tmp_path / "gpu", epochs=4)
        assert_same_adapter(found, expected, world)
    assert there == history
    assert len(history) > 2 and world.operations > 1000


@pytest.mark.slow
@pytest.mark.parametrize("objective", PROMPT_TERMS)
def test_phase_2_stopped_and_continued_ends_in_the_cpus_bits(inputs, tiny_model, tmp_path, objective):
    with as_on_a_gpu():
        expected, findings = run_phase2(inputs, tiny_model(), tmp_path / "cpu", objective=objective)
    with pretended_gpu() as world:
        model = tiny_model().to(GPU)
        with pytest.raises(Stopped):
            run_phase2(inputs, model, tmp_path / "gpu", stop=StopAt(3), objective=objective)
        found, there = run_phase2(inputs, model, tmp_path / "gpu", objective=objective)
        assert_same_adapter(found, expected, world)
    assert there == findings


@pytest.mark.slow
def test_phase_2_with_activations_computed_again_ends_in_the_cpus_bits(inputs, tiny_model, tmp_path, monkeypatch):
    """Of prompts in one row, as the CPU without that; each layer is called once more per step."""
    with as_on_a_gpu():
        expected, (history, _) = run_phase2(inputs, tiny_model(), tmp_path / "cpu", epochs=1)
    again = Mock(wraps=memory.checkpoint)
    monkeypatch.setattr(memory, "checkpoint", again)
    with pretended_gpu() as world:
        model = tiny_model().to(GPU)
        found, (there, _) = run_phase2(inputs, model, tmp_path / "gpu", epochs=1, checkpointing=True)
        assert_same_adapter(found, expected, world)
    assert there == history
    assert again.call_count > STEPS_PER_EPOCH * len(model.model.layers)


@pytest.mark.parametrize("broken_step", [0, 3, 12])
def test_what_is_not_finite_is_noticed_at_a_reading_and_the_state_before_its_step_is_kept(
    inputs, tmp_path, monkeypatch, broken_step
):
    """The steps until the reading change nothing, so that the state is the one that a stop before that step keeps."""
    with pretended_gpu(), pytest.raises(Stopped):
        run_phase1(inputs, GPU, tmp_path / "good", epochs=4, stop=StopAt(broken_step))
    steps, batch_at = [], phase1.batch_at
    monkeypatch.setattr(phase1, "batch_at", lambda step, *own: steps.append(step) or batch_at(step, *own))
    monkeypatch.setattr(phase1, "MEASUREMENTS", 1)
    weighted_error = phase1.weighted_error

    def broken(*own):
        return weighted_error(*own) * (torch.nan if steps[-1] == broken_step else 1.0)

    monkeypatch.setattr(phase1, "weighted_error", broken)
    message = f"phase 1: the loss is nan at step {broken_step}; the state before it is kept in .*/bad/state"
    with pretended_gpu(), pytest.raises(FloatingPointError, match=message):
        run_phase1(inputs, GPU, tmp_path / "bad", epochs=4)
    assert steps[-1] + 1 == -(-(broken_step + 1) // loop.READ_EVERY) * loop.READ_EVERY
    (step, kept), (_, good) = (Checkpoints(tmp_path / name / "state").load() for name in ("bad", "good"))
    assert step == broken_step
    for name, own in good["adapter"].items():
        assert torch.equal(kept["adapter"][name], own), name
    assert all(own.isfinite().all() for own in kept["adapter"].values())
    moments = kept["optimiser"]["state"]
    assert all(int(own["step"]) == broken_step for own in moments.values())
    assert all(own[name].isfinite().all() for own in moments.values() for name in ("exp_avg", "exp_avg_sq"))


def waits_of_a_step(run, monkeypatch, module) -> Counter:
    """The waits of 10 steps less those of 6, a step: what begins and ends a training is in both."""
    monkeypatch.setattr(module, "MEASUREMENTS", 1)
    counts = []
    for steps in (6, 10):
        with pretended_gpu() as world:
            run(steps)
        counts.append(world.counts())
    assert all((counts[1] - counts[0])[name] % 4 == 0 for name in counts[1])
    return Counter({name: count // 4 for name, count in (counts[1] - counts[0]).items()})


def test_the_host_waits_for_nothing_in_a_step_of_phase_1(inputs, tmp_path, monkeypatch):
    def run(steps):
        run_phase1(inputs, GPU, tmp_path / str(steps), epochs=steps, batch_size=TRAIN)

    assert waits_of_a_step(run, monkeypatch, phase1) == {}


@pytest.mark.slow
@pytest.mark.parametrize("objective", PROMPT_TERMS)
def test_the_host_waits_for_nothing_in_a_step_of_phase_2(inputs, tiny_model, tmp_path, monkeypatch, objective):
    def run(steps):
        model = tiny_model().to(GPU)
        run_phase2(inputs, model, tmp_path / str(steps), epochs=steps / STEPS_PER_EPOCH, objective=objective)

    assert waits_of_a_step(run, monkeypatch, phase2) == {}


@pytest.mark.parametrize("steps", [9, 10, 19, 25])
def test_the_host_reads_losses_every_so_many_steps_and_at_the_end(inputs, tmp_path, monkeypatch, steps):
    monkeypatch.setattr(phase1, "MEASUREMENTS", 1)
    with pretended_gpu() as world:
        run_phase1(inputs, GPU, tmp_path, epochs=steps, batch_size=TRAIN)
    # At the end before what is measured, and before what is saved.
    assert len(waits_in(world, "failure")) == (steps - 1) // loop.READ_EVERY + 2


# Evaluation


def given_as(kind: str, inputs, device) -> tuple:
    if kind == "text":
        return ()
    return inputs.table_VD.to(device) * 1.01, torch.arange(len(inputs.table_VD))


@pytest.mark.parametrize("kind", ["text", "embeddings"])
@pytest.mark.parametrize("fixed_steps", [None, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_answers_are_the_cpus(inputs, tiny_model, tokenizer, monkeypatch, kind, fixed_steps, kv_heads):
    """Batches whose prompts share beginnings, and one whose prompts don't; by default in captured steps.

    Four heads have keys of their own or share two, which the CPU copies and a GPU doesn't.
    """
    grouped = Mock(wraps=attention.grouped_attention)
    monkeypatch.setattr(attention, "grouped_attention", grouped)
    batches = [inputs.train[:9], inputs.train[::5], inputs.train[:9]]
    assert {len(set(prefix_runs(batch).run_of)) < len(batch) for batch in batches} == {True, False}

    def answers(device):
        model = tiny_model(num_key_value_heads=kv_heads).to(device)
        model.set_attn_implementation(attention.ROWS_NOT_EMPTY)
        decoder = Decoder(model, tokenizer, CAP, fixed_steps=fixed_steps)
        return [decoder.answers(batch, *given_as(kind, inputs, device)) for batch in batches]

    expected = answers(CPU)
    assert not grouped.called
    with pretended_gpu() as world:
        assert answers(GPU) == expected
    assert all(call.args[1].shape[1] == kv_heads for call in grouped.call_args_list) and grouped.called
    assert len({answer.text for batch in expected for answer in batch}) > 5
    assert bool(world.graphs) == (fixed_steps is None)
    assert all(graph.replays > 1 for graph in world.graphs)


def test_the_host_waits_for_nothing_in_a_decoding_step_and_asks_every_few(inputs, tiny_model, tokenizer, monkeypatch):
    monkeypatch.setattr(Decoder, "_ended", lambda self, tokens: False)
    counts = []
    for cap in (6, 10):
        with pretended_gpu() as world:
            Decoder(tiny_model().to(GPU), tokenizer, cap).answers(inputs.train[:9])
        assert not waits_in(world, "_step", "choose", "_advance")
        counts.append(world.counts())
    assert counts[1] - counts[0] == {READ: (10 - 1) // ASK_EVERY - (6 - 1) // ASK_EVERY}


def test_divergence_is_the_cpus(inputs, tiny_model, tokenizer, prompts):
    forced = forced_prompts(prompts.iloc[:6], tokenizer, 512)
    labels_N = torch.from_numpy(np.concatenate([one.ids[one.predicted] for one in forced]))
    ids_U = torch.from_numpy(np.unique(np.concatenate([one.prompt_ids for one in forced]))).long()
    rows = SplitRows(ids_U, inputs.table_VD[ids_U] * 1.1)

    def measured(device):
        reader = DivergenceReader(tiny_model().to(device))
        return reader.compare(reader.hidden(forced), [reader.hidden(forced, rows)], labels_N)[0]

    expected = measured(CPU)
    with pretended_gpu():
        found = measured(GPU)
    assert found.keys() == expected.keys()
    assert np.array_equal(found["same_top"], expected["same_top"])
    for name, values in expected.items():  # in one row there, in rows as long as the longest here
        assert np.allclose(found[name], values, rtol=1e-5, atol=1e-5), name
    assert (expected["kl"] > 0).any()


def test_reconstruction_is_measured_on_the_cpu_where_there_is_a_gpu(inputs, prompts):
    counts_V = count_tokens(inputs.train, len(inputs.table_VD))
    codec = LinearCodec.of(inputs.compressor, inputs.table_VD)
    arms = {"pca": ArmInputs(inputs.table_VD, counts_V, codec), "mean": ArmInputs(inputs.table_VD, counts_V)}
    sums, summaries = measure_arms(arms, prompts.iloc[:9], counts_V.numpy())
    with pretended_gpu() as world:
        sums_there, summaries_there = measure_arms(arms, prompts.iloc[:9], counts_V.numpy())
    pd.testing.assert_frame_equal(sums_there, sums, check_exact=True)
    assert summaries_there == summaries
    assert world.operations == 0


# Planted mistakes


@pytest.fixture
def answering(inputs, tiny_model, tokenizer):
    """Asks a model on the pretended GPU for answers to prompts given as embeddings."""

    def answer(change=lambda decoder: None, **options):
        with pretended_gpu():
            decoder = Decoder(tiny_model().to(GPU), tokenizer, CAP, **options)
            change(decoder)
            return decoder.answers(inputs.train[:5], *given_as("embeddings", inputs, GPU))

    return answer


def test_without_a_mistake_it_answers(answering):
    assert len(answering()) == len(answering(fixed_steps=False)) == 5


def test_a_padding_mask_that_stays_on_the_cpu_is_found(answering, monkeypatch):
    def wrong(rebuilt_UD, ids_U, ids_BL, mask_BL):
        return rebuilt_UD[torch.searchsorted(ids_U, ids_BL).clamp_max(len(ids_U) - 1)] * mask_BL[..., None]

    monkeypatch.setattr(generate, "padded_embeddings", wrong)
    with pytest.raises(DeviceMismatch, match="mul"):
        answering()


def test_stop_tokens_that_stay_on_the_cpu_are_found(answering):
    def wrong(decoder):
        decoder.fixed.stops = torch.tensor(decoder.settings.eos_token_id * 2)

    with pytest.raises(DeviceMismatch, match="isin"):
        answering(wrong)


def test_a_stop_vector_that_stays_on_the_cpu_is_found(answering, monkeypatch):
    wrong = lambda self, input_ids, scores, **_: torch.zeros(len(input_ids), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(NewlineAfterText, "__call__", wrong)
    with pytest.raises(DeviceMismatch, match="or"):
        answering(fixed_steps=False)


def test_a_wait_within_a_captured_step_is_found(answering, monkeypatch):
    step = FixedSteps._step
    monkeypatch.setattr(FixedSteps, "_step", lambda self, steps: (step(self, steps), int(steps.count)))
    with pytest.raises(RuntimeError, match="not permitted when a graph is captured"):
        answering()


def test_a_number_of_the_host_in_a_captured_step_gives_other_answers(answering, monkeypatch):
    """A place that is counted on the host is right at every eager step, and stale in a replayed one."""
    expected, choose = answering(), generate.FixedSteps._step

    def wrong(self, steps):
        layer = self.cache.layers[0]
        layer.written = getattr(layer, "written", 0) + 1
        choose(self, steps)
        steps.new_BN[:, layer.written] = steps.tokens_B

    monkeypatch.setattr(FixedSteps, "_step", wrong)
    assert CAP > WARM_UP_STEPS + 2
    assert answering() != expected


def test_labels_that_stay_on_the_cpu_are_found(inputs, tiny_model, tmp_path, monkeypatch):
    loss = phase2.frozen_head_cross_entropy
    monkeypatch.setattr(
        phase2,
        "frozen_head_cross_entropy",
        lambda hidden_ND, weight_VD, labels_N, bias_V: loss(hidden_ND, weight_VD, labels_N.cpu(), bias_V),
    )
    with pretended_gpu(), pytest.raises(DeviceMismatch, match="gather"):
        run_phase2(inputs, tiny_model().to(GPU), tmp_path)


def test_rebuilt_rows_that_stay_on_the_gpu_are_found(inputs):
    """The errors of reconstruction are arrays of the host."""
    ids_U, mean_D = torch.arange(5), inputs.table_VD.mean(dim=0)
    with pretended_gpu():
        for table_VD in (inputs.table_VD, inputs.table_VD.to(GPU)):
            with pytest.raises((DeviceMismatch, TypeError)):
                type_errors(ids_U, table_VD[ids_U].to(GPU), table_VD, mean_D.to(table_VD.device))


def test_a_mean_that_stays_on_the_cpu_is_found(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(EmbeddingCompressor, "standardise", lambda self, x: (x.float() - self.mean_D) / self.scale)
    with pretended_gpu():
        run_phase1(inputs, GPU, tmp_path / "moved once", epochs=1)
    monkeypatch.setattr(EmbeddingCompressor, "to", lambda self, device: self)
    with pretended_gpu(), pytest.raises(DeviceMismatch, match="sub"):
        run_phase1(inputs, GPU, tmp_path / "never moved", epochs=1)
