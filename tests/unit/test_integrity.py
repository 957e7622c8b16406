"""A file is what its producer wrote, or it is refused by its name with the command that makes it again."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latentwire import integrity
from latentwire.artefacts import read_json, read_jsonl, read_measures, read_parquet, read_tsv
from latentwire.commands import COMMAND_VARIABLE, experiment_command, with_overrides
from latentwire.errors import InputError
from latentwire.files import sha256_of, write_json
from latentwire.integrity import check, digest, faults, files_read, reading
from latentwire.provenance import provenance_path, write_provenance

SOURCES = Path(__file__).parents[2] / "src/latentwire"


@pytest.fixture(autouse=True)
def _begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(COMMAND_VARIABLE, "snakemake --configfile a.yaml")
    integrity.forget()


def written(name, text="text", inputs=(), **options):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    write_provenance(path, Namespace(), inputs, **options)
    return path


def test_what_was_written_is_read_once_for_its_digest(monkeypatch):
    path = written("root/table")
    assert digest(path) == sha256_of(path)
    monkeypatch.setattr(integrity, "sha256_of", lambda _: pytest.fail("hashed again"))
    check(path)
    assert digest(path) and files_read() == {"root/table": sha256_of(path)}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("tex", "has 3 bytes instead of 4"), ("tezt", "has another content")],
)
def test_what_was_not_written_is_refused(text, said):
    path = written("root/table")
    path.write_text(text)
    program = Path(sys.argv[0]).name
    with pytest.raises(InputError) as error:
        check(path)
    assert str(error.value) == (
        f"root/table {said}: it is not what {program} wrote (table.provenance.json). It is made again by: snakemake "
        "--configfile a.yaml --force root/table"
    )


def test_a_change_after_a_check_is_seen():
    path = written("root/table")
    check(path)
    path.write_text("tezt")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="another content"):
        check(path)


def test_a_by_product_is_found_by_the_records_of_its_folder():
    Path("spectrum").write_text("1")
    written("pca", by_products=["spectrum"])
    written("random")
    check("spectrum")
    Path("spectrum").write_text("2")
    with pytest.raises(InputError, match=r"spectrum has another content.*\(pca.provenance.json\)"):
        check("spectrum")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"outputs": {}}'])
def test_a_record_that_is_spoilt_vouches_for_nothing(content):
    path = written("table")
    provenance_path(path).write_text(content)
    with pytest.raises(InputError, match=r"table.provenance.json is not the record that was written.*--force table"):
        check(path)


def test_a_changed_setting_of_a_record_is_seen():
    record = provenance_path(written("table"))
    record.write_text(record.read_text().replace('"cpu"', '"gpu"'))
    with pytest.raises(InputError, match="its digest is another"):
        check("table")


def test_records_of_earlier_versions_count():
    path = written("table")
    write_json(provenance_path(path), {"artefact": sha256_of(path), "inputs": {}})
    check(path)
    path.write_text("tezt")
    with pytest.raises(InputError, match="what an earlier version wrote"):
        check(path)


def test_a_file_without_a_record_is_the_users_own(tmp_path):
    written("table")
    Path("own").write_text("anything")
    check("own")
    assert digest("own") == sha256_of("own") and files_read() == {}


@pytest.mark.parametrize("order", [("table", "adapter"), ("adapter", "table")])
def test_two_inputs_of_different_versions(order):
    written("adapter", inputs=[written("table")])
    for name in order:
        check(name)
    integrity.forget()
    written("table", "another")
    check(order[0])
    with pytest.raises(
        InputError, match=r"adapter was made from another version of .*table.*--force \S*table adapter"
    ):
        check(order[1])


def test_two_inputs_that_were_made_from_different_versions_of_a_third():
    written("codes", inputs=[written("table")])
    written("adapter", inputs=[written("table", "another")])
    check("codes")
    with pytest.raises(InputError, match="codes and adapter were made from two versions of table"):
        check("adapter")


def test_the_record_of_another_file_vouches_for_nothing():
    Path("spectrum").write_text("1")
    written("pca", by_products=["spectrum"])
    written("table")
    provenance_path("table").rename(provenance_path("pca"))
    for name in ("pca", "spectrum"):
        with pytest.raises(InputError, match=r"pca.provenance.json is not the record.*\(it is that of table\)"):
            check(name)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_json_of_the_projects_own_holds_finite_numbers(constant):
    Path("own").write_text(f'{{"a": {constant}}}')
    with pytest.raises(InputError, match=f"^own can't be read: {constant} is no number. .* --force own$"):
        read_json("own")
    with pytest.raises(InputError, match=f"^own can't be read: {constant} is no number. .* --force own$"):
        read_jsonl("own")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_measures_are_finite_and_whole_numbers_may_be_missing(value):
    table = pd.DataFrame({"seed": [None, 0], "kl": [0.5, 1.0]}).astype({"seed": "Int64"})
    table.to_parquet("own")
    table.to_csv("own.tsv", sep="\t", columns=["kl"])
    assert list(read_measures("own")["kl"]) == list(read_tsv("own.tsv")["kl"]) == [0.5, 1.0]
    table["kl"] = [0.5, value]
    table.to_parquet("own")
    with pytest.raises(InputError, match=f"^own is not finite: kl is {value} in row 1. .* --force own$"):
        read_measures("own")
    table.to_csv("own.tsv", sep="\t", columns=["kl"], na_rep="nan")
    with pytest.raises(InputError, match=f"^own.tsv is not finite: kl is {value} in row 1. .* --force own.tsv$"):
        read_tsv("own.tsv")


def test_what_a_reader_raises_is_named():
    Path("own").write_text('{"a": 1')
    with pytest.raises(InputError, match="^own can't be read: Expecting"):
        read_json("own")
    with pytest.raises(InputError, match="^own can't be read: "):
        read_jsonl("own")
    with pytest.raises(InputError, match="^own can't be read: "):
        read_parquet("own")
    again = "Of an experiment, it is made again by: .* --force own$"
    with pytest.raises(InputError, match=f"^own can't be read: there is no 'a'. {again}"), reading("own"):
        raise KeyError("a")
    with pytest.raises(ZeroDivisionError), reading("own"):
        raise ZeroDivisionError
    with pytest.raises(InputError, match="none does not exist.*--force none"):
        read_json("none")
    with pytest.raises(InputError, match="is a folder where a file should be"):
        read_json(".")


def test_an_object_of_another_kind_is_refused():
    Path("own").write_text('{"a": 1}')
    assert read_json("own", frozenset("a")) == {"a": 1}
    with pytest.raises(InputError, match="own is of another kind: it lacks b"):
        read_json("own", frozenset("ab"))
    Path("own").write_text("[]")
    with pytest.raises(InputError, match="own is of another kind: it is no object"):
        read_json("own", frozenset("a"))


def test_all_of_an_experiment():
    written("root/model/table", "0" * 100)
    written("root/k8/adapter", inputs=["root/model/table"])
    written("root/result", inputs=["root/k8/adapter"])
    assert faults("root") == ([], [])
    assert faults("root", most=0) == ([], [])
    Path("root/model/table").write_text("1" * 100)
    Path("root/k8/adapter").unlink()
    found, _ = faults("root")
    assert [(str(fault.path), fault.what.split(":")[0]) for fault in found] == [
        ("root/k8/adapter", "is missing"),
        ("root/model/table", "has another content"),
    ]
    assert [str(fault.path) for fault in faults("root", most=99)[0]] == ["root/k8/adapter"]
    written("root/model/table", "1" * 100)
    assert [str(fault.path) for fault in faults("root")[1]] == ["root/k8/adapter"]
    assert faults("nowhere") == ([], [])


def test_the_command_is_the_experiments(monkeypatch):
    assert experiment_command() == "snakemake --configfile a.yaml"
    monkeypatch.delenv(COMMAND_VARIABLE)
    assert experiment_command().endswith("snakemake --profile profiles/local --configfile config.yaml")
    overrides = {"experiment": "my own", "gate": {"threshold": 0.5}}
    assert with_overrides("snakemake", overrides) == (
        """snakemake --config 'experiment=my own' 'gate={"threshold": 0.5}'"""
    )
    assert with_overrides("snakemake", {}) == "snakemake"


def test_artefacts_are_read_nowhere_else():
    """What reads by itself is another's: a hub's model, a data set, a user's predictions, a configuration."""
    readers = ("pd.read_parquet(", "pd.read_csv(", "load_file(", "safe_open(", "ParquetFile(")
    alone = {"weights.py", "checkpoint.py", "comparison.py", "base.py", "artefacts.py"}
    for path in SOURCES.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if any(reader in line for reader in readers) and path.name not in alone:
                assert "reading(" in line + lines[number - 1], f"{path}: {line}"


LIMITED = """
import resource, sys
import pyarrow.parquet
from latentwire import cli
from latentwire.artefacts import read_parquet
import pandas
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
limit = used + (int(sys.argv[1]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cli.run(lambda: print(len(read_parquet("big.parquet"))))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("megabytes", [12, 24])
def test_a_read_without_enough_memory_fails_instead_of_hanging(megabytes):
    ids = np.random.default_rng(0).integers(0, 1000, (30000, 200))
    pd.DataFrame({"input_ids": list(ids)}).to_parquet("big.parquet", index=False)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done
    assert "error: big.parquet can't be read: " in done.stderr and "Traceback" not in done.stderr


def test_what_others_were_made_from_is_named_where_its_record_was_removed():
    written("root/k8/adapter", inputs=[written("root/table"), written("own")])
    provenance_path("own").unlink()  # the user's, outside
    assert faults("root") == ([], [])
    provenance_path("root/table").unlink()
    ((path, what, command),), older = faults("root")
    assert (str(path), what, older) == ("root/table", "has no record beside it: it may have been replaced", [])
    assert command.endswith("--force root/table")
    Path("root/table").unlink()
    assert faults("root") == ([], [])  # Snakemake makes it anew
