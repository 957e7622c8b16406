"""How long a codec takes: the jobs that make it, and the median of its decoding, measured once."""

import pandas as pd
import pytest
import torch

from latentwire.arms_table import Variant
from latentwire.codecs.base import Codec
from latentwire.decisions import codec_times
from latentwire.decisions.codec_times import seconds_to_decode, seconds_to_make
from latentwire.files import read_json
from latentwire.layout import Layout

FINISHED = {
    "pca/pca.safetensors": 1.0, "k8/codecs/pca": 2.0, "k8/seed0/phase1/adapter.safetensors": 4.0,
    "k8/seed0/phase2/adapter.safetensors": 8.0, "k8/seed0/bottleneck/adapter.safetensors": 16.0, "codecs/pq8": 32.0,
    "seed0/adapted_pq8/adapter.safetensors": 64.0, "k8/codecs/quant": 128.0, "evaluation/final/x": 1000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("arm", "seconds"),
    [
        ("pca", 1 + 2),
        ("phase1", 1 + 2 + 4),
        ("phase2", 1 + 2 + 4 + 8),
        ("bottleneck", 1 + 16),  # its codes are its own
        ("pq8", 32),
        ("adapted_pq8", 32 + 64),
        ("quant", 128),
        ("random", None),
    ],
)
def test_all_jobs_that_make_a_codec_count_and_no_others(arm, seconds):
    assert seconds_to_make(Layout("results/mine"), Variant.of(arm, 8, 0), FINISHED) == seconds


class Plain(Codec):
    """Stores the rows."""

    family = "plain"
    calls = 0

    def decode_rows(self, ids_U):
        Plain.calls += 1
        return self.codes["rows"][ids_U]


@pytest.fixture
def paths(tmp_path):
    found = Layout(str(tmp_path))
    Plain({"rows": torch.ones(10, 4)}, {"shared": torch.ones(1)}, (10, 4)).save_pretrained(found.fitted(8, "mine"))
    (tmp_path / "data").mkdir()
    (tmp_path / "benchmarks").mkdir()
    pd.DataFrame({"input_ids": [[1, 2, 3]] * 50}).to_parquet(found.data("gate"))
    return found


def test_a_prompts_time_is_the_median_and_is_kept_until_the_codec_changes(paths, tmp_path, monkeypatch):
    clock = iter([0, 1, 10, 12, 20, 29])  # three prompts: 1, 2 and 9 seconds
    monkeypatch.setattr(codec_times.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(codec_times, "TIMED_PROMPTS", 3)
    variant = Variant.of("mine", 8, 0)
    Plain.calls = 0
    assert seconds_to_decode(paths, [variant], [Plain]) == {"mine:8": 2}
    assert Plain.calls == 4, "the first is not timed"
    assert seconds_to_decode(paths, [variant], [Plain]) == {"mine:8": 2} and Plain.calls == 4
    assert read_json(tmp_path / "benchmarks/decoding.json")["mine:8"]["seconds"] == 2
    Plain({"rows": torch.zeros(10, 4)}, {"shared": torch.ones(1)}, (10, 4)).save_pretrained(paths.fitted(8, "mine"))
    clock = iter([0, 5, 10, 15, 20, 25])
    assert seconds_to_decode(paths, [variant], [Plain]) == {"mine:8": 5}


def test_a_users_own_codec_is_not_timed_without_its_file(paths):
    assert seconds_to_decode(paths, [Variant.of("mine", 8, 0)]) == {}
