"""The ratio of two arms' KL is of sums over the same positions, with the articles resampled jointly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latentwire.arms_table import Variant
from latentwire.errors import InputError
from latentwire.evaluation.paired_kl import compare_kl
from latentwire.evaluation.statistics import ratio_interval

A, B = Variant("phase2", 8, 0), Variant("pq4")
ARTICLES, QUESTIONS = 24, 5


def measures() -> pd.DataFrame:
    """Measures of A, whose KL is about half of B's (1.5 times at answers), and of a third arm."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(ARTICLES * QUESTIONS):
        positions, hard = int(generator.integers(5, 50)), generator.gamma(2.0)
        for subset, factor in (("prompt", 0.5), ("answer", 1.5)):
            kl_b = hard * positions
            kl = {B: kl_b, A: factor * kl_b * generator.uniform(0.7, 1.3), Variant("pq8"): 9.0}
            at = {"id": f"q{number}", "article": f"a{number % ARTICLES}", "subset": subset, "positions": positions}
            rows += [{"arm": own.arm, "k": own.k, "seed": own.seed, **at, "kl": value} for own, value in kl.items()]
    return pd.DataFrame(rows).astype({"k": "Int64", "seed": "Int64"}).sample(frac=1, random_state=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "divergence.parquet"
    measures().to_parquet(file, index=False)
    return file


@pytest.mark.parametrize("subset", ["prompt", "answer"])
def test_the_ratio_is_of_sums_over_the_same_questions(path: Path, subset: str):
    found = compare_kl(path, A, B, subset, seed=3)
    at = measures()[lambda table: table["subset"] == subset]
    own, other = ({row["id"]: row for row in at[at["arm"] == one.arm].to_dict("records")} for one in (A, B))
    kl_a, kl_b = (sum(row["kl"] for row in rows.values()) for rows in (own, other))
    positions = sum(row["positions"] for row in own.values())
    assert found.positions == positions
    assert (found.a, found.b) == pytest.approx((kl_a / positions, kl_b / positions))
    names = sorted(own)
    expected = ratio_interval(
        [own[name]["kl"] for name in names],
        [other[name]["kl"] for name in names],
        [own[name]["article"] for name in names],
        seed=3,
    )
    assert found.ratio == expected and found.ratio.lower < kl_a / kl_b < found.ratio.upper


def test_pairing_makes_the_interval_narrow_however_much_questions_differ(path: Path):
    ratio = compare_kl(path, A, B, "prompt").ratio
    assert ratio.upper - ratio.lower < 0.06 and ratio.lower > 0.45
    assert compare_kl(path, B, A, "prompt").ratio.estimate == pytest.approx(1 / ratio.estimate)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="positions"), "is no file of measures: it lacks positions"),
        (lambda table: table[table["arm"] != "pq4"], "has no measures of pq4: there are phase2:8:0, pq8"),
        (lambda table: table[table["subset"] != "prompt"], "has no positions 'prompt': there are answer"),
        (lambda table: table.drop(index=table.index[table["arm"] == "pq4"][0]), "not measured at the same positions"),
        (lambda table: table.assign(kl=np.inf), "kl is inf in row 0"),
    ],
)
def test_what_is_not_there_is_named(path: Path, change, message: str):
    table = measures().query("subset == 'prompt' or arm == 'pq8'").reset_index(drop=True)
    change(table).to_parquet(path, index=False)
    with pytest.raises(InputError, match=message):
        compare_kl(path, A, B, "prompt")


def test_the_command(path: Path):
    command = [sys.executable, "-m", "latentwire", "kl", path, "phase2:8:0", "pq4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("A phase2:8:0: ") and first.endswith("120 questions in 24 articles")
    assert second.startswith("A / B     0.") and "95% studentised bootstrap over articles" in second
    refused = subprocess.run([*command[:-2], "phase2:8", "pq4"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "'phase2:8': expected arm, arm:k, or arm:k:seed" in refused.stderr
