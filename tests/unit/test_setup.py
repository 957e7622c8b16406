"""``make``'s set-up in awkward places: folders with spaces and ``$``, and a home that can't be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Without what ``make test`` tells its own children.
ENVIRONMENT = {
    name: own for name, own in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "XDG_CACHE_HOME"))
}
# Stands for the Python of a new environment. Its pip installs one program, started as pip starts those of folders with
# spaces: through a shell, with the interpreter's path in quotes, in which "$" is expanded.
PYTHON = f"""#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
  *"pip install"*"--editable"*)
    program="$(dirname "$0")/snakemake"
    printf '%s\\n' '#!/bin/sh' "'''exec' \\"$(cd "$(dirname "$0")" && pwd)/python\\" \\"\\$0\\" \\"\\$@\\"" "' '''" > "$program"
    printf '%s\\n' 'import sys' 'print(sys.argv[1:])' >> "$program"
    chmod +x "$program";;
  *"pip install"*|"-c "*) ;;
  *) exec {sys.executable} "$@";;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose set-up downloads nothing."""

    def build(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("Makefile", "requirements.lock", "pyproject.toml"):
            shutil.copy2(ROOT / file, folder / file)
        python = folder / "python-of-the-system"
        python.write_text(PYTHON)
        python.chmod(0o755)
        return folder

    return build


def made(folder: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "PYTHON=./python-of-the-system", *targets],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["plain", "a b", "$HOME and $x", "it's (1) & [2]; `d`"])
def test_programs_start_from_a_folder_of_any_name(checkout, name):
    folder = checkout(name)
    ended = made(folder, ".venv/ready")
    assert ended.returncode == 0, ended.stderr
    program = folder / ".venv/bin/snakemake"
    said = subprocess.run([program, "a $b", "c"], capture_output=True, text=True, check=True, cwd="/")
    assert said.stdout == "['a $b', 'c']\n"
    changed = program.stat().st_mtime_ns
    assert "up to date" in made(folder, ".venv/ready").stdout and program.stat().st_mtime_ns == changed


@pytest.mark.parametrize("home", ["missing", "read-only"])
def test_where_home_cannot_be_written_caches_are_kept_here(checkout, tmp_path, home):
    folder, own = checkout("checkout"), tmp_path / "home"
    if home == "read-only":
        own.mkdir(mode=0o500)
        if os.access(own, os.W_OK):
            pytest.skip("this user may write everywhere")
    with (folder / "Makefile").open("a") as makefile:
        makefile.write("\ncache:\n\t@echo $$XDG_CACHE_HOME\n")
    command = ["make", "--silent", "cache"]
    for place, expected in ((own, f"{folder}/.cache"), (tmp_path, "")):
        said = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT | {"HOME": str(place)}, capture_output=True, text=True
        )
        assert said.stdout.strip() == expected
    chosen = ENVIRONMENT | {"HOME": str(own), "XDG_CACHE_HOME": "/elsewhere"}
    assert subprocess.run(command, cwd=folder, env=chosen, capture_output=True, text=True).stdout == "/elsewhere\n"
