"""The names and the program that the plan for this experiment uses."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def test_the_public_names_import_from_the_package_and_core_utils():
    from latentwire import Adapter, EmbeddingCompressor, batch_metrics, load_squad_subset, log_diagnostics
    from latentwire.core_utils import batch_metrics as same

    assert same is batch_metrics
    assert all(callable(name) for name in (Adapter, EmbeddingCompressor, load_squad_subset, log_diagnostics))


def test_the_plans_calls_give_the_plans_shapes(tmp_path):
    from latentwire import Adapter, EmbeddingCompressor, batch_metrics, load_squad_subset, log_diagnostics

    embeddings = torch.randn(400, 128, generator=torch.Generator().manual_seed(0))
    compressor = EmbeddingCompressor(input_dim=128, output_dim=32, method="pca")
    compressor.fit(embeddings)
    assert compressor.compress(embeddings[:100]).shape == (100, 32)
    assert Adapter(d_z=512, d_model=4096)(torch.randn(8, 20, 512)).shape == (8, 20, 4096)
    items = load_squad_subset("train", 10)
    assert len(items) == 10
    for item in items:
        assert "Context:" in item["source"]
        assert "Question:" in item["source"]
        assert item["answer"] == item["answers"][0]
        assert item["answer"] in item["source"]
    assert batch_metrics(["the cat", "dog"], ["cat", ["bird", "dog"]]) == (1.0, 1.0)
    log_diagnostics(
        tmp_path / "log.jsonl", 1, 0.5, {"recon_mse": 1.0, "recon_cosine_sim": 0.5, "recon_rel_error": 0.2}
    )
    assert (tmp_path / "log.jsonl").read_text().count("\n") == 1


def test_an_unknown_name_is_an_attribute_error():
    import latentwire

    with pytest.raises(AttributeError, match="no_such_name"):
        latentwire.no_such_name  # noqa: B018


def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, latentwire; print([m for m in ('torch', 'transformers', 'pandas', 'numpy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_every_program_helps_without_importing_torch(script):
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{script!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "usage:" in shown.stdout
