"""A codec of one's own from a file to the report, and what a changed experiment asks of the model."""

from __future__ import annotations

import json
import re

import pytest
from workspace import DIMS, RESULTS, ROOT, Workspace, printed_jobs

pytestmark = pytest.mark.workflow

# Of 60 questions of each split: one batch of answers, and the batches in which predictions are compared.
ANSWERS, MEASURES = 1, 8


def stored(workspace: Workspace) -> set[str]:
    return {f"{path.parent.name}{path.stem}" for path in (workspace / f"{RESULTS}/answers").rglob("*.json")}


def test_a_codec_of_ones_own_goes_from_a_file_to_the_report(changed: Workspace):
    """The example of docs/extending.md as it stands there."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(# halves\.py.*?)```", page, re.DOTALL)
    (changed / "halves.py").write_text(example)
    before = stored(changed)
    run = printed_jobs(changed.succeed("--config", "codecs={halves: halves.py}"))
    expected = {
        "fit_codec": 2,
        "measure_reconstruction": 2,
        "evaluate": 1,
        "score": 1,
        "final_validation": 1,
        "report": 1,
    }
    assert run.counts == expected
    # It stores the same at both code dimensions, so the model reads the same rows, once.
    assert len(stored(changed) - before) == ANSWERS + MEASURES
    verdict = json.loads((changed / f"{RESULTS}/verdict/verdict.json").read_text())
    for entry in verdict["entries"]:
        own = entry["arms"]["halves"]
        # Half of each bf16 row, and half a mean in float32.
        assert 8 < own["rate"]["bits_per_parameter"] < 8.1
        assert own["divergence"]["prompt"]["kl"]["estimate"] > 0
    assert "halves" in (changed / f"{RESULTS}/report.html").read_text()
    (changed / "halves.py").write_text(example.replace("[half:].float()", "[half:].float() * 0"))
    again = changed.plan("--config", "codecs={halves: halves.py}").of("fit_codec")
    assert sorted(again, key=str) == sorted(({"k": str(k), "codec": "halves"} for k in DIMS), key=str)


def test_a_second_seed_asks_for_its_own_answers_alone(changed: Workspace):
    before = stored(changed)
    changed.succeed("--config", "seeds=[0, 1]")
    # On gate phase1, on final phase1, random, phase2 and control, at each code dimension.
    assert len(stored(changed) - before) == 5 * len(DIMS) * (ANSWERS + MEASURES)
