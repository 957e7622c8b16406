"""Data preparation: from SQuAD's JSON files to tokenised, split, hashed prompts, by the workflow's own program.

    .venv/bin/python benchmarks/data_preparation.py --model /tmp/llama-shapes \
        --train_file train-v1.1.json --dev_file dev-v1.1.json
    .venv/bin/python benchmarks/data_preparation.py --samples 2000    # the embedded default, in half a minute

Seconds are those of the whole process, imports included; the prompts are the headline experiment's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import _inputs
import _machine
import numpy as np
import yaml

from latentwire.data.prompts_table import read_prompts
from latentwire.files import read_json

SCRIPT = _machine.ROOT / "workflow" / "scripts" / "prepare_data.py"


def command(arguments: argparse.Namespace, samples: dict[str, int | None], output: Path) -> list[str]:
    """The program's command line at the settings of the headline experiment, or of the demo."""
    settings = yaml.safe_load((_machine.ROOT / "config.yaml").read_text(encoding="utf-8"))
    if not arguments.train_file:
        demo = yaml.safe_load((_machine.ROOT / "config/demo.yaml").read_text(encoding="utf-8"))
        settings = {name: settings[name] | demo[name] for name in ("model", "data")}
    model, data = settings["model"], settings["data"]
    flags = {
        "model": arguments.model,
        "prompt_style": model["prompt_style"],
        "system_prompt": model["system_prompt"],
        "source": "local" if arguments.train_file else "demo",
        "train_file": arguments.train_file,
        "dev_file": arguments.dev_file,
        "seed": data["seed"],
        "max_prompt_tokens": data["max_prompt_tokens"],
        "on_long_prompt": data["on_long_prompt"],
        "output": output,
    }
    flags = {name: value for name, value in flags.items() if value is not None}
    flags |= {f"{name}_samples": "all" if count is None else count for name, count in samples.items()}
    return [
        sys.executable,
        str(SCRIPT),
        *(str(part) for name, value in flags.items() for part in (f"--{name}", value)),
    ]


def measured(arguments: argparse.Namespace, what: str, samples: dict[str, int | None]) -> list[str]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        line = command(arguments, samples, Path(folder))
        spent = _machine.seconds(
            lambda: subprocess.run(line, check=True, capture_output=True), arguments.repeats, warmup=0
        )
        splits = read_json(Path(folder, "manifest.json"))["splits"]
        unique = len(np.unique(np.concatenate(list(read_prompts(Path(folder, "train.parquet"))["input_ids"]))))
    prompts, tokens = (sum(split[name] for split in splits.values()) for name in ("questions", "tokens"))
    return [what, f"{prompts:,}", f"{tokens:,}", f"{unique:,}", f"{spent:.1f}", f"{prompts / spent:,.0f}"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        default=_inputs.READER,
        help="model directory (default: the embedded reader; stand_in_model.py makes one)",
    )
    parser.add_argument(
        "--train_file", help="official SQuAD v1.1 JSON, the training set (default: the embedded corpus)"
    )
    parser.add_argument("--dev_file", help="official SQuAD v1.1 JSON, the development set")
    parser.add_argument("--samples", type=int, default=10_000, help="training prompts (default 10,000)")
    parser.add_argument("--repeats", type=int, default=5, help="runs (default 5)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    _machine.print_heading()
    sizes = {
        "training prompts (and one of each other split)": {"gate": 1, "final": 1},
        "and 2,000 of `gate`, all of `final`": {"gate": 2000, "final": None},
    }
    rows = [measured(arguments, what, {"train": arguments.samples} | others) for what, others in sizes.items()]
    header = ["what", "prompts", "tokens", "unique tokens in `train`", "seconds", "prompts / s"]
    print(_machine.table(header, rows))


if __name__ == "__main__":
    main()
