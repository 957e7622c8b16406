"""Campaigns against losses, silent damage and tracebacks: ``make campaign``. They continue where they stopped.

Kills: the small workflow is interrupted at random moments and started again, until its results are those of an
undisturbed run. Faults: each program on a full disk, in little memory, and where it can't write. Damage: every artefact
in every way. Fuzz: wrong configurations and wrong question files. Configurations: whole experiments with settings drawn
from all that is allowed. Reports: the right values of what others reported of neighbouring projects.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[1:1] = [str(TESTS / folder) for folder in (".", "programs", "workflow")]
CAMPAIGNS = ("kills", "damage", "faults", "fuzz", "configurations", "reports")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="from which trials are drawn")
    parser.add_argument("--minutes", type=float, default=60, help="of all campaigns together, in this run")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=CAMPAIGNS, help="which of them")
    output = TESTS.parent / "results/campaign"
    parser.add_argument("--output", type=Path, default=output, help="folder of the trials and of what they work on")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1764000000"}
    from importlib import import_module

    from experiment import Experiment
    from ledger import Ledger, Turn

    folder = arguments.output.resolve()
    ledger, experiment = Ledger(folder / "trials.jsonl", arguments.seed), Experiment(folder)
    end = time.monotonic() + 60 * arguments.minutes
    for number, name in enumerate(arguments.only):
        share = (end - time.monotonic()) / (len(arguments.only) - number)
        import_module(name).campaign(experiment, Turn(ledger, name, share))
        print(f"\n{name}\n\n{ledger.table(name)}\n", flush=True)
        for row in ledger.wrong(name):
            print(f"{row['outcome']}: {row['trial']}")
    sys.exit(any(ledger.wrong(name) for name in arguments.only))


if __name__ == "__main__":
    main()
