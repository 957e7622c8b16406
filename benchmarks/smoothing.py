"""What additive smoothing over the vocabulary does to token types that no training prompt holds.

    .venv/bin/python benchmarks/smoothing.py --train_file train-v1.1.json --dev_file dev-v1.1.json \\
        --model all-MiniLM-L6-v2 --tensor embeddings.word_embeddings.weight --k 48 --prompt_style plain

For every pair of ``pca.smoothing`` and ``phase1.smoothing`` the compressor is fitted and Phase 1 trained on the same
prompts and seed. The fraction of variance unexplained (FVU) is over the development set's prompt tokens, around one
mean for all pairs (without smoothing), with a 95% studentised bootstrap interval over articles. A second table has the
differences from the first pair, of the same tokens. A table with real structure is needed: random rows hold nothing
that carries over to unseen ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from latentwire.adapter import Adapter
from latentwire.cli import set_threads
from latentwire.compression.compressor import EmbeddingCompressor
from latentwire.compression.counts import count_tokens
from latentwire.data.prepare import mark_unseen_answers, prepare_split
from latentwire.data.prompts import PromptRenderer
from latentwire.data.squad import read_squad_json
from latentwire.embeddings import read_embeddings
from latentwire.evaluation.reconstruction_metrics import question_sums, type_errors
from latentwire.evaluation.statistics import ratio_interval
from latentwire.resuming.checkpoint import Checkpoints
from latentwire.settings import Phase1
from latentwire.training.phase1 import train_phase1

SUBSETS = ("all", "seen", "unseen", "unseen in answers")


def read_table(model: str, tensor: str | None) -> torch.Tensor:
    """The embedding table, under the name ``tensor`` where the model is no causal language model."""
    if tensor is None:
        return read_embeddings(model)
    with safe_open(Path(model) / "model.safetensors", framework="pt") as stored:
        return stored.get_tensor(tensor)


def prepared(arguments: argparse.Namespace) -> dict[str, pd.DataFrame]:
    """Prompts of the training split, and of the whole development set."""
    renderer = PromptRenderer(AutoTokenizer.from_pretrained(arguments.model), arguments.prompt_style)
    files = {"train": arguments.train_file, "dev": arguments.dev_file}
    rows = {name: pd.DataFrame(read_squad_json(file)) for name, file in files.items()}
    rows["train"] = rows["train"].sample(arguments.samples, random_state=0)
    return {
        name: prepare_split(name, own, renderer, max_prompt_tokens=512, on_long_prompt="trim")[0]
        for name, own in rows.items()
    }


def error_sums(
    adapter: Adapter,
    compressor: EmbeddingCompressor,
    mean_D: torch.Tensor,
    table_VD: torch.Tensor,
    dev: pd.DataFrame,
    seen_V: np.ndarray,
) -> dict[str, pd.DataFrame]:
    """Squared errors and deviations a question, for each subset of the development set's tokens."""
    sequences = [np.asarray(ids) for ids in dev["input_ids"]]
    ids_U = torch.from_numpy(np.unique(np.concatenate(sequences))).long()
    with torch.no_grad():
        rebuilt_UD = adapter(compressor.compress(table_VD[ids_U]))
    errors = type_errors(ids_U, rebuilt_UD, table_VD, mean_D)
    answers = [np.asarray(mask, dtype=bool) for mask in dev["answer_mask"]]
    masks = {
        "all": [np.ones(len(ids), dtype=bool) for ids in sequences],
        "seen": [seen_V[ids] for ids in sequences],
        "unseen": [~seen_V[ids] for ids in sequences],
        "unseen in answers": [~seen_V[ids] & mask for ids, mask in zip(sequences, answers, strict=True)],
    }
    found = {}
    for subset in SUBSETS:
        sums = question_sums(errors, ids_U, sequences, masks[subset]).assign(article=dev["article"].to_numpy())
        found[subset] = sums[sums["tokens"] > 0]
    return found


def cells(sums: dict[str, pd.DataFrame], others: dict[str, pd.DataFrame] | None = None) -> list[str]:
    """The FVU of each subset with its interval; with ``others``, the difference from theirs on the same tokens."""
    found = []
    for subset in SUBSETS:
        own = sums[subset]
        above = own["squared_error"] - (0.0 if others is None else others[subset]["squared_error"])
        i = ratio_interval(above, own["squared_deviation"], own["article"])
        # Where nothing differs at all there is no interval.
        found.append(f"{i.estimate:.4f}" + ("" if i.lower is None else f" [{i.lower:.4f}, {i.upper:.4f}]"))
    return found


def train(
    arguments: argparse.Namespace, data: dict[str, Any], table_VD: torch.Tensor, of_pca: float, of_phase1: float
) -> Any:
    """A compressor and an adapter trained with these values of ``pca.smoothing`` and ``phase1.smoothing``."""
    train_ids, dev_ids = (list(data[name]["input_ids"]) for name in ("train", "dev"))
    counts_V = count_tokens(train_ids, len(table_VD))
    compressor = EmbeddingCompressor(table_VD.shape[1], arguments.k).fit(table_VD, counts_V, of_pca)
    settings = Phase1(epochs=arguments.epochs, lr=arguments.lr, smoothing=of_phase1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapter, _ = train_phase1(
            train_ids,
            dev_ids[:500],
            table_VD,
            compressor,
            settings,
            seed=0,
            device=torch.device("cpu"),
            checkpoints=Checkpoints(folder / "state"),
            diagnostics=folder / "diagnostics.jsonl",
        )
    return compressor, adapter


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model directory with its tokenizer")
    parser.add_argument("--tensor", help="name of the table (default: where causal language models keep it)")
    parser.add_argument("--train_file", type=Path, required=True, help="official SQuAD v1.1 JSON, training set")
    parser.add_argument("--dev_file", type=Path, required=True, help="official SQuAD v1.1 JSON, development set")
    parser.add_argument("--prompt_style", choices=("chat", "plain"), default="chat", help="how prompts are rendered")
    parser.add_argument("--samples", type=int, default=10_000, help="training prompts (default 10,000)")
    parser.add_argument("--k", type=int, required=True, help="code dimension")
    parser.add_argument("--epochs", type=int, default=3, help="of Phase 1 (default 3)")
    parser.add_argument("--lr", type=float, default=1e-3, help="of Phase 1 (default 0.001)")
    parser.add_argument(
        "--smoothing",
        type=lambda text: tuple(map(float, text.split(","))),
        nargs="+",
        default=[(0, 0), (1, 1), (10, 10), (10, 0), (0, 10)],
        help="values of pca.smoothing and phase1.smoothing, as 10,0",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    set_threads(arguments.threads)
    _machine.print_heading()
    table_VD = read_table(arguments.model, arguments.tensor)
    data = prepared(arguments)
    counts_V = count_tokens(list(data["train"]["input_ids"]), len(table_VD))
    seen_V = (counts_V > 0).numpy()
    mean_D = EmbeddingCompressor(table_VD.shape[1], arguments.k).fit(table_VD, counts_V).mean_D
    rows, differences = [], []
    first: dict[str, dict[str, pd.DataFrame]] = {}
    for of_pca, of_phase1 in arguments.smoothing:
        compressor, adapter = train(arguments, data, table_VD, of_pca, of_phase1)
        for what, network in (("PCA inverse", Adapter.from_compressor(compressor)), ("Phase 1", adapter)):
            found = error_sums(network, compressor, mean_D, table_VD, data["dev"], seen_V)
            rows.append([f"{of_pca:g}", f"{of_phase1:g}", what, *cells(found)])
            if what in first:
                differences.append([*rows[-1][:3], *cells(found, first[what])])
            first.setdefault(what, found)
        print(*rows[-1], sep=", ", file=sys.stderr, flush=True)
    tokens = np.concatenate(list(data["dev"]["input_ids"]))
    mark_unseen_answers(data["dev"], np.flatnonzero(seen_V))
    print(
        f"Table {table_VD.shape[0]:,}×{table_VD.shape[1]}, K = {arguments.k}; {seen_V.sum():,} token types in "
        f"{len(data['train']):,} training prompts ({int(counts_V.sum()):,} tokens); {(~seen_V[tokens]).mean():.2%} of "
        f"{len(tokens):,} tokens in {len(data['dev']):,} development prompts are of other types, and "
        f"{data['dev']['unseen_answer_type'].mean():.0%} of their answers hold one.\n"
    )
    header = ["pca.smoothing", "phase1.smoothing", "rebuilt by", *(f"FVU, {subset}" for subset in SUBSETS)]
    print(_machine.table(header, rows))
    print("\nDifferences from the first pair:\n")
    print(_machine.table(header, differences))


if __name__ == "__main__":
    main()
