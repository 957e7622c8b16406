"""The gate: decide from Phase 1's F1 on gate, averaged over seeds, whether Phase 2 runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentwire import cli
from latentwire.settings import Gate


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__, threads=False)
    parser.add_argument("--ceiling", type=Path, required=True, help="the ceiling check's findings")
    parser.add_argument("--text", type=Path, required=True, help="scores of the ceiling's arms on gate")
    parser.add_argument("--phase1", type=Path, required=True, help="scores of Phase 1 on gate")
    parser.add_argument("--divergence", type=Path, required=True, help="how far Phase 1 moves predictions on gate")
    parser.add_argument("--prompts", type=Path, required=True, help="prepared prompts of the split gate")
    parser.add_argument("--compress_dim", type=int, required=True, help="code dimension that is decided on")
    cli.add_settings(parser, Gate, "threshold", "failing", "force_phase2")
    cli.add_bootstrap_arguments(parser)
    parser.add_argument("--decision", type=Path, required=True, help="decision to write: run_phase2 and nothing else")
    parser.add_argument("--evidence", type=Path, required=True, help="evidence to write")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from latentwire.artefacts import read_measures
    from latentwire.data.prompts_table import read_prompts
    from latentwire.decisions.gate import decide_gate
    from latentwire.decisions.requirements import require_ceiling
    from latentwire.evaluation.scores import read_scores, require_arms
    from latentwire.files import write_json
    from latentwire.provenance import write_provenance

    ids = list(read_prompts(arguments.prompts, ["id"])["id"])
    text, phase1 = read_scores(arguments.text, ids), read_scores(arguments.phase1, ids)
    require_arms(text, arguments.text, {"text": None})
    require_arms(phase1, arguments.phase1, {"phase1": arguments.compress_dim})
    own = phase1[(phase1["arm"] == "phase1") & (phase1["k"] == arguments.compress_dim)]
    moved = read_measures(arguments.divergence)
    at_prompts = (moved["arm"] == "phase1") & (moved["k"] == arguments.compress_dim) & (moved["subset"] == "prompt")
    decision, evidence = decide_gate(
        require_ceiling(arguments.ceiling),
        text[text["arm"] == "text"].reset_index(drop=True),
        [table.reset_index(drop=True) for _, table in own.groupby("seed")],
        moved[at_prompts],
        threshold=arguments.threshold,
        failing=arguments.failing,
        force_phase2=arguments.force_phase2,
        resamples=arguments.resamples,
        seed=arguments.bootstrap_seed,
    )
    write_json(arguments.evidence, evidence)
    write_json(arguments.decision, decision)
    inputs = [arguments.ceiling, arguments.text, arguments.phase1, arguments.divergence, arguments.prompts]
    write_provenance(arguments.decision, arguments, inputs, by_products=[arguments.evidence])


if __name__ == "__main__":
    cli.run(main)
