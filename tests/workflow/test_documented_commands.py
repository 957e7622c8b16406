"""Every command of the documentation works as typed, in a shell without an active environment.

Commands that compute or submit run dry; of long-running programs the flags are compared with their help.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(
        page
        for pattern in ("docs/*.md", "docs/decisions/*.md", "benchmarks/*.md", "resources/**/README.md")
        for page in ROOT.glob(pattern)
    ),
]
# Flags that programs share, and those made from settings.
CLI, SETTINGS = ROOT / "src/latentwire/cli.py", ROOT / "src/latentwire/settings.py"
SHELLS = {"bash", "sh", "shell", "console"}
# Languages of fenced blocks that hold no command.
OTHERS = {"json", "markdown", "mermaid", "python", "text", "yaml"}
# Indented blocks that hold no command, by how they begin.
NO_COMMANDS = {"μ = Σ c_v": "a formula"}
# Commands that can't be run here, by how they begin.
CANNOT_RUN = {
    "git clone ": "the address is the reader's",
    ".venv/bin/hf auth login": "asks for a token",
    "squeue ": "needs a Slurm cluster",
    "tail -f ": "follows the log of a running experiment",
    "ls results/": "lists a running experiment's state",
}
pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@dataclass(frozen=True)
class Block:
    """A block of a page, with its language; None for an indented one."""

    page: str
    language: str | None
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The fenced and the indented blocks of a page."""
    name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    fence = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    fenced = [Block(name, found[2], found[3]) for found in fence.finditer(text)]
    indented = re.findall(r"(?<=\n\n)(?: {4}.*\n)+", fence.sub("", text))
    return fenced + [Block(name, None, block) for block in indented if not re.match(r" {4,}[-*|] ", block)]


def commands_of(block: Block) -> list[str]:
    """The commands of a shell's block, without prompts and comments; lines that end in a backslash are continued."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [re.sub(r"\s+#\s.*", "", line).strip() for line, found in zip(lines, words, strict=True) if found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = sorted(
    {
        command
        for block in BLOCKS
        if block.language in {None, *SHELLS} and not block.text.strip().startswith(tuple(NO_COMMANDS))
        for command in commands_of(block)
    }
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs a command where the documentation says: in the repository's root, whose ``.venv`` is this environment.

    The root is a folder of links to it, so that nothing of a run under way is touched; the home has the site's profile
    of docs/hpc.md. On the search path are the system's programs alone.
    """
    root, home = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("home")
    for name in subprocess.check_output(["git", "-C", ROOT, "ls-files"], text=True).splitlines():
        link = root / name.split("/")[0]
        if not link.is_symlink():
            link.symlink_to(ROOT / link.name)
    (root / ".venv").symlink_to(sys.prefix)
    (site,) = (block.text for block in BLOCKS if block.page == "docs/hpc.md" and block.language == "yaml")
    profile = home / ".config/snakemake/mysite"
    profile.mkdir(parents=True)
    (profile / "config.yaml").write_text(site.replace("/home/me", str(home)))
    (profile / "partitions.yaml").symlink_to(ROOT / "profiles/slurm/partitions.yaml")
    environment = {"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "USER": "me"}
    environment |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", "LANG") if name in os.environ}

    @cache
    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


def run_dry(shell: Callable[[str], str], command: str) -> None:
    """Snakemake: it plans jobs; two that differ in ``-n`` alone are one."""
    shell(command if {"--unlock", "-n"} & set(shlex.split(command)) else f"{command} -n")


def make_dry(shell: Callable[[str], str], command: str) -> None:
    """Make: there is such a target."""
    shell(re.sub(r"^make\b", "make -n", command))


def has_flags(shell: Callable[[str], str], command: str) -> None:
    """A program: it knows the flags that it is given."""
    words = shlex.split(command)
    # Up to the first flag: the interpreter, the program, its subcommand.
    first = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    subject = words[:2] if words[0].endswith("/hf") else words[:first]
    known = shell(f"{shlex.join(subject)} --help")
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", known)), command


def run_it(shell: Callable[[str], str], command: str) -> None:
    """A command that costs nothing."""
    shell(command)


KINDS: dict[str, Callable[[Callable[[str], str], str], None]] = {
    r"\.venv/bin/snakemake\b": run_dry,
    r"make\b": make_dry,
    r"\.venv/bin/(hf|python|latentwire) ": has_flags,
    r"export \w+=|\w+=\S+$": run_it,
}


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(tuple(CANNOT_RUN))])
def test_a_command_works_as_typed(shell: Callable[[str], str], command: str):
    kinds = [check for pattern, check in KINDS.items() if re.match(pattern, command)]
    assert len(kinds) == 1, f"{command}: of no kind that is checked; a reason not to belongs into CANNOT_RUN"
    kinds[0](shell, command)


def test_every_exception_still_occurs():
    for beginning in CANNOT_RUN:
        assert any(command.startswith(beginning) for command in COMMANDS), beginning
    for beginning in NO_COMMANDS:
        assert any(block.text.strip().startswith(beginning) for block in BLOCKS), beginning


def test_every_fenced_block_names_its_language():
    for block in BLOCKS:
        assert block.language is None or block.language in SHELLS | OTHERS, f"{block.page}: {block.text[:60]}"


def test_commands_in_the_text_name_programs_and_flags_that_exist():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", text):
            bare = re.match(r"(snakemake|python3?|pip|hf|pytest)\s+(?!-n$)", code)
            assert bare is None, f"{page.name}: `{code}` needs an activated environment"
            if program := re.match(r"\.venv/bin/python (\S+\.py)", code):
                source = (ROOT / program[1]).read_text(encoding="utf-8")
                shared = "".join(path.read_text(encoding="utf-8") for path in (ROOT / program[1]).parent.glob("_*.py"))
                of_settings = [f"--{name}" for name in re.findall(r"^    (\w+):", SETTINGS.read_text(), re.MULTILINE)]
                for flag in re.findall(r"--\w+", code):
                    assert flag in of_settings or flag in source + shared + CLI.read_text(), code
