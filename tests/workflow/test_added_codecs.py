"""Codecs of the table of arms from the configuration to the verdict."""

from __future__ import annotations

import json

import pytest
from workspace import DIMS, RESULTS, Workspace, printed_jobs

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


def test_codecs_that_are_added_are_fitted_and_reported_and_nothing_is_trained(changed: Workspace):
    arms = ["pca", "pca_type", "pca_int4", "rotated2", "nf4"]
    run = printed_jobs(changed.succeed("--config", f"evaluate={{arms: [{', '.join(arms)}]}}"))
    assert run.counts["fit_codec"] == 2 * len(DIMS) and run.counts["fit_table_codec"] == 2
    assert run.counts["fit_weighted_pca"] == 1
    assert not run.rules & {"fit_pca", "fit_random_projection", "train_phase1", "train_phase2"}
    verdict = json.loads((changed / f"{RESULTS}/verdict/verdict.json").read_text())
    for entry in verdict["entries"]:
        found = entry["arms"]
        # The reader's 32 dimensions are no multiple of NF4's group.
        assert "nf4" not in found and {"pca_int4", "rotated2"} <= {*found}
        bits = {name: found[name]["rate"]["bits_per_parameter"] for name in arms[:4]}
        assert bits["pca"] == bits["pca_type"]
        by_counts, by_type = (found[name]["divergence"]["prompt"]["kl"]["estimate"] for name in arms[:2])
        assert by_counts != by_type
        # Of its 32 numbers a row keeps K, in 4 bits and in 16; both have the same axes, and one a step per dimension.
        assert bits["pca"] - bits["pca_int4"] == pytest.approx(12 * entry["k"] / 32, abs=0.01)
        assert 2.5 < bits["rotated2"] < 2.6
        for name in arms[1:4]:
            assert found[name]["divergence"]["prompt"]["kl"]["estimate"] > 0
