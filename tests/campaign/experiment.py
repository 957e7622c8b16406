"""A small experiment that was left alone, and what its programs were told: what the trials are compared with."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interruptions import run
from workspace import EXPERIMENT, NAME, RESULTS, ROOT, Workspace, environment, new_workspace, write_reader

from latentwire.data.tokenizer import build_tokenizer
from latentwire.report.comparison import file_differences

SNAKEMAKE = (sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--configfile", "tiny.yaml", "--cores")
# Of one code dimension: half the jobs, and every program.
SMALL = EXPERIMENT | {"compress_dims": [8]}
# Programs that read results without being part of the workflow.
READERS = {
    "summarise.py": f"--verdict {RESULTS}/verdict/verdict.json",
    "findings.py": f"--root {RESULTS}",
    "frontier.py": f"--root {RESULTS}",
}


@dataclass(frozen=True)
class Job:
    """A program with its arguments, as the workflow called it."""

    script: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program, and what it makes."""
        flags = ("--output", "--decision", "--verdict", "--root")
        made = next(self.arguments[n + 1] for flag in flags for n, word in enumerate(self.arguments) if word == flag)
        return f"{self.script} → {made.removeprefix(f'{RESULTS}/')}"


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, and what it printed."""

    code: int | None
    text: str

    @property
    def last(self) -> str:
        """The last line."""
        return (self.text.strip().splitlines() or [""])[-1]

    @property
    def crashed(self) -> str | None:
        """``traceback`` or ``crash`` (by a signal), if it ended so."""
        if "Traceback (most recent call last)" in self.text:
            return "traceback"
        return "crash" if self.code is None or self.code < 0 else None


@dataclass(frozen=True)
class Experiment:
    """The experiment in a folder of the campaign: once undisturbed, and copies to spoil."""

    folder: Path

    @cached_property
    def undisturbed(self) -> Workspace:
        """The finished experiment; run if it is not there yet."""
        workspace = Workspace(self.folder / "undisturbed")
        log = self.folder / "undisturbed.log"
        if not (workspace / f"{RESULTS}/report.html").exists() or not is_current(workspace):
            fresh = self.fresh("undisturbed")
            with log.open("w") as output:
                subprocess.run(
                    [*SNAKEMAKE, "2"],
                    cwd=fresh.folder,
                    env=environment(fresh.folder),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=True,
                )
        return workspace

    @cached_property
    def jobs(self) -> list[Job]:
        """Every call of a program by the workflow, and of those that read its results."""
        text = (self.undisturbed.folder.parent / "undisturbed.log").read_text()
        calls = re.findall(r"^Shell command: exec \S+ +\S*?/workflow/scripts/(\S+) (.*) > \S+ 2>&1$", text, re.M)
        own = [Job(script, tuple(shlex.split(words))) for script, words in calls]
        return list(dict.fromkeys(own)) + [Job(name, tuple(words.split())) for name, words in READERS.items()]

    def fresh(self, name: str) -> Workspace:
        """A workspace in which nothing has run."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        reader = self.folder / "reader"
        if not reader.exists():
            write_reader(reader, build_tokenizer())
        return new_workspace(folder, reader, SMALL)

    def copy(self, name: str) -> Workspace:
        """The undisturbed experiment elsewhere."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return self.undisturbed.copy(folder)


def is_current(workspace: Workspace) -> bool:
    """Whether a workspace has the code of the project as it is now."""
    sources = [path for folder in ("src", "rules", "workflow/scripts") for path in (ROOT / folder).rglob("*.*")]
    own = {path.relative_to(ROOT): path for path in sources if path.suffix in (".py", ".smk", ".jinja")}
    copies = {name: workspace / str(name) for name in own}
    return all(copies[name].is_file() and copies[name].read_bytes() == own[name].read_bytes() for name in own)


class Files:
    """The files of a workspace's results as they are, for putting them back.

    Args:
        workspace: whose.
        left_out: folders of results that nobody compares.
    """

    def __init__(self, workspace: Workspace, left_out: tuple[str, ...] = ("logs", "benchmarks", "state")) -> None:
        self.root, self.left_out = workspace / RESULTS, left_out
        self.content = {path: path.read_bytes() for path in self._paths()}

    def _paths(self) -> Iterator[Path]:
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.relative_to(self.root).parts[0] not in self.left_out:
                yield path

    def changed(self) -> list[str]:
        """What differs from then, was removed or added; what differs between any two runs aside."""
        now = {path: path.read_bytes() for path in self._paths()}
        paths = [path for path in now.keys() | self.content.keys() if now.get(path) != self.content.get(path)]
        important = [path for path in paths if not path.name.endswith((".provenance.json", "report.html", ".md"))]
        return sorted(str(path.relative_to(self.root)) for path in important if self._differs(path, now))

    def _differs(self, path: Path, now: dict[Path, bytes]) -> bool:
        if path not in now or path not in self.content:
            return True
        with tempfile.NamedTemporaryFile(suffix=path.suffix) as then:
            then.write(self.content[path])
            then.flush()
            return bool(file_differences(Path(then.name), path))

    def restore(self) -> None:
        """Put everything back."""
        shutil.rmtree(self.root / "state", ignore_errors=True)
        for path in [*self._paths()]:
            if path not in self.content:
                path.unlink()
        for path, content in self.content.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def leftovers(root: Path) -> list[str]:
    """Temporary files of atomic writes, and checkpoints of unfinished work."""
    hidden = [path for path in root.rglob(".*") if path.is_file()]
    return sorted(
        str(path.relative_to(root)) for path in [*hidden, *root.glob("state/*/*")] if path.name != ".gitkeep"
    )


def call(workspace: Workspace, job: Job, fault: Any = None) -> Ended:
    """Run a program in a workspace, in a process that has loaded the slow libraries."""
    log = workspace / "log"
    log.unlink(missing_ok=True)
    code = run(job.script, job.arguments, workspace.folder, fault)
    return Ended(code, log.read_text(errors="replace") if log.exists() else "")


__all__ = ["NAME", "RESULTS", "SMALL", "SNAKEMAKE", "Ended", "Experiment", "Files", "Job", "call", "leftovers"]
