"""Evaluation: answers in batches against answers one by one, on the embedded reader.

    .venv/bin/python benchmarks/evaluation.py
    .venv/bin/python benchmarks/evaluation.py --tokens_only --model llama-shapes --file dev-v1.1.json

Both generate from the same prompts' embeddings with the same decoding; the answers are compared too. With
``--tokens_only`` nothing is generated: it counts the tokens, padding included, that the model would read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import _inputs
import _machine
import numpy as np
import torch

from latentwire.cli import set_threads
from latentwire.embeddings import read_embeddings
from latentwire.evaluation.generate import Answer, Decoder, generate_answers
from latentwire.evaluation.prefixes import batches_by_prefix, prefix_runs
from latentwire.lm import load_model, load_tokenizer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=_inputs.READER, help="model directory (default: the embedded reader)")
    parser.add_argument(
        "--file", default="demo", help="official SQuAD v1.1 JSON (default: the embedded corpus, validation split)"
    )
    parser.add_argument("--samples", type=int, default=100_000, help="prompts at most (default: all)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 64, 128], help="prompts per batch")
    parser.add_argument("--max_new_tokens", type=int, default=8, help="cap of an answer (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, taken in turns (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--profile", type=int, help="also show what batches of this size spend their time on")
    parser.add_argument("--tokens_only", action="store_true", help="count tokens, generate nothing")
    return parser.parse_args()


def tokens_to_read(prompts: list[np.ndarray], batch_size: int) -> tuple[int, int]:
    """Tokens of all batches, padding included: every prompt whole, and shared beginnings once."""
    whole = shared = 0
    for batch in batches_by_prefix(prompts, batch_size):
        chosen = [prompts[index] for index in batch]
        runs, lengths = prefix_runs(chosen), [len(ids) for ids in chosen]
        rests = [length - runs.shared[run] for length, run in zip(lengths, runs.run_of, strict=True)]
        plain = len(batch) * max(lengths)
        whole += plain
        shared += min(plain, len(runs.shared) * max(runs.shared) + len(batch) * max(rests))
    return whole, shared


def token_rows(prompts: list[np.ndarray], batch_sizes: list[int]) -> list[list[object]]:
    """A line a batch size."""
    rows: list[list[object]] = []
    for size in batch_sizes:
        whole, shared = tokens_to_read(prompts, size)
        rows.append([size, f"{len(prompts):,}", f"{whole:,}", f"{shared:,}", f"{whole / shared:.2f}"])
    return rows


def answerer(model: str, prompts: list[np.ndarray], max_new_tokens: int) -> Callable[[int], dict[int, Answer]]:
    """A function from a batch size to the answers to all prompts."""
    table_VD = read_embeddings(model).float()
    loaded = load_model(model, None, "float32", torch.device("cpu"))
    decoder = Decoder(loaded, load_tokenizer(model), max_new_tokens)
    ids_U = torch.arange(len(table_VD))
    return lambda size: dict(generate_answers(decoder, prompts, batches_by_prefix(prompts, size), table_VD, ids_U))


def profile_rows(answer: Callable[[int], dict[int, Answer]], size: int) -> list[list[object]]:
    """The operators that batches of a size spend most of their time in, and their share of the run's."""
    answer(size)
    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        answer(size)
    spent = time.perf_counter() - start
    operators = sorted(found.key_averages(), key=lambda one: -one.self_cpu_time_total)[:5]
    seconds = [(one.key, one.count, one.self_cpu_time_total / 1e6) for one in operators]
    return [[name, f"{calls:,}", f"{own:.2f}", f"{own / spent:.0%}"] for name, calls, own in seconds]


def time_rows(
    arguments: argparse.Namespace, answer: Callable[[int], dict[int, Answer]], prompts: list[np.ndarray]
) -> list[list[object]]:
    """A line a batch size: seconds, and whether the answers are those of the first batch size."""
    times: dict[int, list[float]] = {size: [] for size in arguments.batch_sizes}
    answers: dict[int, dict[int, Answer]] = {}
    answer(max(arguments.batch_sizes))  # the first call of a process is slower
    for _ in range(arguments.repeats):
        for size in arguments.batch_sizes:
            start = time.perf_counter()
            answers[size] = answer(size)
            times[size].append(time.perf_counter() - start)
    first = arguments.batch_sizes[0]
    slow = float(np.median(times[first]))
    rows: list[list[object]] = []
    for size in arguments.batch_sizes:
        spent = float(np.median(times[size]))
        same = sum(answers[size][index] == answer for index, answer in answers[first].items())
        rows.append(
            [size, f"{spent:.2f}", f"{len(prompts) / spent:.0f}", f"{slow / spent:.1f}", f"{same} of {len(prompts)}"]
        )
    return rows


def main() -> None:
    arguments = parse_arguments()
    set_threads(arguments.threads)
    prompts = _inputs.prompts(arguments.model, arguments.file, arguments.samples, "validation")
    _machine.print_heading()
    header = ["prompts per batch", "prompts", "tokens to read", "shared beginnings once", "ratio"]
    print(_machine.table(header, token_rows(prompts, arguments.batch_sizes)))
    if arguments.tokens_only:
        return
    answer, first = answerer(arguments.model, prompts, arguments.max_new_tokens), arguments.batch_sizes[0]
    header = ["prompts per batch", "s", "prompts/s", "ratio", f"answers equal to those at {first}"]
    print("\n" + _machine.table(header, time_rows(arguments, answer, prompts)))
    if arguments.profile:
        header = [f"operator, at {arguments.profile} prompts per batch", "calls", "s", "share"]
        print("\n" + _machine.table(header, profile_rows(answer, arguments.profile)))


if __name__ == "__main__":
    main()
