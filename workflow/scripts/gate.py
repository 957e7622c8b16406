"""The gate: decide from Phase 1's F1 on gate, averaged over seeds, whether Phase 2 runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Gate


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--ceiling", type=Path, required=True, help="the ceiling check's findings")
    parser.add_argument("--original", type=Path, required=True, help="scores of the original arms on gate")
    parser.add_argument("--phase1", type=Path, nargs="+", required=True, help="scores of Phase 1 on gate, one a seed")
    cli.add_settings(parser, Gate, "threshold", "failing", "force_phase2")
    cli.add_bootstrap_arguments(parser)
    parser.add_argument("--decision", type=Path, required=True, help="decision to write: run_phase2 and nothing else")
    parser.add_argument("--evidence", type=Path, required=True, help="evidence to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    import pandas as pd

    from latentwire.decisions.gate import decide_gate
    from latentwire.decisions.requirements import require_ceiling
    from latentwire.files import write_json

    def arm(path: Path, name: str) -> pd.DataFrame:
        scores = pd.read_parquet(path)
        return scores[scores["arm"] == name].reset_index(drop=True)

    decision, evidence = decide_gate(
        require_ceiling(arguments.ceiling),
        arm(arguments.original, "text"),
        [arm(path, "phase1") for path in arguments.phase1],
        threshold=arguments.threshold,
        failing=arguments.failing,
        force_phase2=arguments.force_phase2,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
    )
    write_json(arguments.evidence, evidence)
    write_json(arguments.decision, decision)


if __name__ == "__main__":
    cli.run(main)
