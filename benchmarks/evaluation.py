"""Evaluation: answers in batches against answers one by one, on the embedded reader.

    python benchmarks/evaluation.py

Both generate from the same prompts' embeddings with the same decoding; the answers are compared too.
"""

from __future__ import annotations

import argparse
import sys
import time

import _inputs
import _machine
import numpy as np
import torch
from _inputs import READER

from latentwire.evaluation.generate import Answer, Decoder, generate_answers
from latentwire.evaluation.prefixes import batches_by_prefix
from latentwire.lm import load_model, load_tokenizer, read_embeddings


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="prompts (default: the whole split)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8, 32, 64, 128], help="prompts a batch")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, taken in turns (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    prompts = _inputs.prompts(READER, "demo", arguments.samples, "validation")
    table_VD = read_embeddings(READER).float()
    decoder = Decoder(
        load_model(READER, None, "float32", torch.device("cpu")), load_tokenizer(READER), max_new_tokens=8
    )
    ids_U = torch.arange(len(table_VD))
    times: dict[int, list[float]] = {size: [] for size in arguments.batch_sizes}
    answers: dict[int, dict[int, Answer]] = {}
    for _ in range(arguments.repeats):
        for size in arguments.batch_sizes:
            batches = batches_by_prefix(prompts, size)
            start = time.perf_counter()
            answers[size] = dict(generate_answers(decoder, prompts, batches, table_VD, ids_U))
            times[size].append(time.perf_counter() - start)
    first = arguments.batch_sizes[0]
    slow = float(np.median(times[first]))
    rows = []
    for size in arguments.batch_sizes:
        spent = float(np.median(times[size]))
        same = sum(answers[size][index] == answer for index, answer in answers[first].items())
        rows.append(
            [size, f"{spent:.1f}", f"{len(prompts) / spent:.0f}", f"{slow / spent:.1f}", f"{same} of {len(prompts)}"]
        )
    print(_machine.heading(" ".join(["python benchmarks/evaluation.py", *sys.argv[1:]])) + "\n")
    print(_machine.table(["prompts a batch", "s", "prompts/s", "ratio", f"answers equal to those at {first}"], rows))


if __name__ == "__main__":
    main()
