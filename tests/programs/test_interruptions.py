"""Programs that are killed, or told to stop, at random moments end in the bytes of an uninterrupted run."""

import errno
import json
import os
import random
import shutil
import signal

import pytest
from interruptions import FullDisk, Interruption, KilledWithoutProvenance, OutOfMemory, Takeover, run
from safetensors import SafetensorError

from latentwire.adapter import Adapter
from latentwire.codecs.adapted import AdapterCodec
from latentwire.codecs.linear import LinearCodec
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens, save_counts
from latentwire.layout import Layout
from latentwire.resuming.stopping import EXIT_STOPPED
from latentwire.table import save_table

pytestmark = pytest.mark.slow

K = 8
INTERRUPTIONS = 2


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, prompts, sequences, tokenizer, tiny_model):
    """Prepared prompts, a model and its table, token counts, a compressor, an adapter, and a gate's decision."""
    folder = tmp_path_factory.mktemp("inputs")
    prompts.to_parquet(folder / "prompts.parquet", index=False)
    model = tiny_model()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    table = model.get_input_embeddings().weight.detach()
    save_table(folder / "table.safetensors", table)
    counts = count_tokens(sequences, len(table))
    save_counts(folder / "counts.safetensors", pca=counts, train=counts.clone())
    compressor = EmbeddingCompressor(table.shape[1], K).fit(table, counts)
    compressor.save(folder / "pca.safetensors")
    layout = Layout(str(folder))
    codec = LinearCodec.of(compressor, table)
    codec.save_pretrained(layout.fitted(K, "pca"))
    trained = AdapterCodec.of(codec.codes, Adapter.from_compressor(compressor), len(table))
    trained.save_pretrained(layout.training(K, 0, "phase1"))
    (folder / "decision.json").write_text(json.dumps({"run_phase2": True}))
    return folder


def command(program, inputs):
    """The script of a program and its arguments; a loop of 40 steps or more."""
    split = f"--table {inputs}/table.safetensors --threads 1 --state state --output output"
    training = (
        f"--train {inputs}/prompts.parquet --held_out {inputs}/prompts.parquet --compressor {inputs}/pca.safetensors"
        f" --codec {inputs}/k{K}/codecs/pca --compress_dim {K}"
    )
    model = f"--model {inputs}/model --dtype float32 --device cpu"
    script, own = {
        "phase 1": ("train_phase1.py", f"{training} {split} --epochs 60 --batch_size 8 --device cpu"),
        "phase 2": (
            "train_phase2.py",
            f"{model} {training} {split} --decision {inputs}/decision.json --adapter {inputs}/k{K}/seed0/phase1/adapter.safetensors"
            " --epochs 7 --batch_size 8 --measure_prompts 4 --calibration_batches 2",
        ),
        "reader": ("train_reader.py", "--steps 40 --contexts 1 --width 16 --threads 1 --state state --output output"),
        "evaluation": (
            "evaluate.py",
            f"{model} {split} --root {inputs} --variants text pca:{K} phase1:{K}:0 --prompts {inputs}/prompts.parquet"
            f" --counts {inputs}/counts.safetensors --batch_size 2 --answers answers --output output/predictions.jsonl --divergence output/divergence.parquet"
            " --divergence_samples 4",
        ),
    }[program]
    return script, own.split()


def contents(folder):
    """Files by name, without what ``kill -9`` leaves of a file that was being written."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, inputs):
    """The output of an uninterrupted run of a program."""
    done = {}

    def result(program):
        if program not in done:
            folder = tmp_path_factory.mktemp("uninterrupted")
            assert run(*command(program, inputs), folder) == 0, (folder / "log").read_text()
            done[program] = contents(folder / "output")
        return done[program]

    return result


PROGRAMS = ("phase 1", "phase 2", "reader", "evaluation")


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_ctrl_c_and_a_closed_terminal_keep_the_state_and_end_in_a_line(tmp_path, inputs, uninterrupted, name):
    script, arguments = command("phase 1", inputs)
    assert run(script, arguments, tmp_path, Interruption(signal.Signals[name], after=3)) == EXIT_STOPPED
    log = (tmp_path / "log").read_text()
    assert f"stopped: received {name}; the state is kept" in log and "Traceback" not in log
    assert run(script, arguments, tmp_path) == 0
    assert contents(tmp_path / "output") == uninterrupted("phase 1")


@pytest.mark.parametrize(("name", "status"), [("SIGKILL", -signal.SIGKILL), ("SIGTERM", EXIT_STOPPED)])
@pytest.mark.parametrize("program", PROGRAMS)
def test_interrupted_at_random_moments_it_ends_in_the_same_bytes(
    tmp_path, inputs, uninterrupted, program, name, status
):
    moments = random.Random(f"{program} {name}")
    for _ in range(INTERRUPTIONS):
        interruption = Interruption(signal.Signals[name], moments.randint(1, 8), moments.uniform(0, 0.03))
        assert run(*command(program, inputs), tmp_path, interruption) == status, (tmp_path / "log").read_text()
    assert (tmp_path / "log").read_text().count("received SIGTERM") == INTERRUPTIONS * (name == "SIGTERM")
    assert run(*command(program, inputs), tmp_path) == 0, (tmp_path / "log").read_text()
    assert "continuing" in (tmp_path / "log").read_text()
    assert contents(tmp_path / "output") == uninterrupted(program)
    assert contents(tmp_path / "state") == {}


@pytest.mark.parametrize("program", PROGRAMS)
def test_taken_over_it_stops_and_touches_nothing(tmp_path, inputs, program):
    assert run(*command(program, inputs), tmp_path, Takeover(after=5)) == EXIT_STOPPED, (tmp_path / "log").read_text()
    assert "another process has taken over this work" in (tmp_path / "log").read_text()
    assert contents(tmp_path / "state") == contents(tmp_path / "state-then") != {}
    assert not list(tmp_path.glob("output/*.safetensors")) + list(tmp_path.glob("output/predictions.jsonl"))


@pytest.mark.parametrize("program", ["phase 1", "phase 2", "evaluation"])
def test_killed_before_its_provenance_is_written_it_computes_nothing_again(tmp_path, inputs, uninterrupted, program):
    assert run(*command(program, inputs), tmp_path, KilledWithoutProvenance()) == -signal.SIGKILL
    # What Snakemake does with the outputs of a job that failed.
    shutil.rmtree(tmp_path / "output")
    # A step or a batch of answers would be kept, and end it.
    assert run(*command(program, inputs), tmp_path, Interruption(signal.SIGKILL, after=1)) == 0
    assert contents(tmp_path / "output") == uninterrupted(program)
    assert contents(tmp_path / "state") == {}


def test_by_itself_phase_1_hears_a_stop_while_it_reports_f1(tmp_path):
    script = "train_adapter_only.py"
    steps = 4
    arguments = (
        f"--samples {16 * steps} --eval_samples 16 --batch_size 16 --compress_dim 16 --threads 1 --output output"
    )
    stopped = run(script, arguments.split(), tmp_path, Interruption(signal.SIGTERM, after=steps))
    assert stopped == EXIT_STOPPED, (tmp_path / "log").read_text()
    assert (tmp_path / "output/adapter.safetensors").exists() and not (tmp_path / "output/f1.json").exists()
    assert run(script, arguments.split(), tmp_path) == 0, (tmp_path / "log").read_text()
    assert f"continuing at step {steps} of {steps}" in (tmp_path / "log").read_text()
    assert (tmp_path / "output/f1.json").exists()
    assert contents(tmp_path / "output/state") == {}


@pytest.mark.parametrize("program", ["phase 1", "reader"])
def test_from_a_corrupt_checkpoint_it_goes_back_to_the_one_before(tmp_path, inputs, uninterrupted, program):
    run(*command(program, inputs), tmp_path, Interruption(signal.SIGKILL, after=20))
    *_, older, newest = sorted(tmp_path.glob("state/*/step*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert run(*command(program, inputs), tmp_path) == 0
    log = (tmp_path / "log").read_text()
    assert f"{newest.name} can't be read" in log
    assert f"continuing at step {int(older.stem.removeprefix('step'))}" in log
    assert contents(tmp_path / "output") == uninterrupted(program)


FULL = (
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
)


def last_checkpoint(folder):
    """The step of the last checkpoint, beside which nothing is left of one that was not written."""
    (state,) = (own for own in (folder / "state").iterdir() if own.is_dir())
    assert not list(state.glob(".step*"))
    return max(int(path.stem.removeprefix("step")) for path in state.glob("step*.safetensors"))


def ended_in_a_line(folder, script, words):
    """What the log's end says: the program's error, the only one, of one line, which may stand behind a progress bar."""
    before, _, said = (folder / "log").read_text().partition(f"{script}: error: ")
    assert "Traceback" not in before + said and said.count("\n") == 1 and said.endswith("\n")
    assert words in said
    return said


@pytest.mark.parametrize("error", FULL, ids=lambda own: type(own).__name__)
@pytest.mark.parametrize("program", ["phase 1", "phase 2", "reader"])
def test_on_a_full_disk_it_ends_in_a_line_and_goes_on_from_the_checkpoint_before(
    tmp_path, inputs, uninterrupted, program, error
):
    script, arguments = command(program, inputs)
    assert run(script, arguments, tmp_path, FullDisk(3, error)) == 1
    assert "No space left on device" in ended_in_a_line(tmp_path, script, "safetensors can't be written: ")
    assert last_checkpoint(tmp_path) == 3
    assert run(script, arguments, tmp_path) == 0
    assert "continuing at step 3" in (tmp_path / "log").read_text()
    assert contents(tmp_path / "output") == uninterrupted(program)
    assert contents(tmp_path / "state") == {}


def test_out_of_memory_in_a_step_that_cannot_be_cut_it_ends_in_a_line_and_goes_on_from_the_step_before(
    tmp_path, inputs
):
    script, arguments = command("phase 2", inputs)
    assert run(script, arguments, tmp_path / "enough", OutOfMemory(None)) == 0, (tmp_path / "enough/log").read_text()
    folder = tmp_path / "scarce"
    assert run(script, arguments, folder, OutOfMemory(4)) == 1
    said = ended_in_a_line(folder, script, "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB. ")
    assert "the next run continues: with phase2.activation_checkpointing" in said
    assert "micro-batches have at most" in (folder / "log").read_text()
    assert last_checkpoint(folder) == 4
    assert run(script, arguments, folder, OutOfMemory(None)) == 0
    assert "continuing at step 4 of" in (folder / "log").read_text()
    assert contents(folder / "output") == contents(tmp_path / "enough/output")


@pytest.mark.parametrize("program", ["phase 2", "evaluation"])
def test_another_dtype_of_the_model_continues_from_nothing(tmp_path, inputs, program):
    script, arguments = command(program, inputs)
    run(script, arguments, tmp_path, Interruption(signal.SIGKILL, after=5))
    other = [{"float32": "bfloat16"}.get(word, word) for word in arguments]
    run(script, other, tmp_path, Interruption(signal.SIGKILL, after=1))
    assert "continuing" not in (tmp_path / "log").read_text()
    run(script, arguments, tmp_path, Interruption(signal.SIGKILL, after=1))
    assert "continuing" in (tmp_path / "log").read_text()


def test_an_evaluation_ignores_a_batch_that_was_cut_short(tmp_path, inputs, uninterrupted):
    run(*command("evaluation", inputs), tmp_path, Interruption(signal.SIGKILL, after=20))
    kept = next(tmp_path.glob("answers/*/*.json"))
    kept.write_text(kept.read_text()[:-20])
    assert run(*command("evaluation", inputs), tmp_path) == 0
    assert f"answers in {kept.relative_to(tmp_path)} can't be read" in (tmp_path / "log").read_text()
    assert contents(tmp_path / "output") == uninterrupted("evaluation")
