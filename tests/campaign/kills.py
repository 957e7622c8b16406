"""The workflow is interrupted at random moments and started again, until it is done and has lost nothing.

A trial is one signal, to Snakemake, to a program that it runs, or to all processes of the run, as a terminal or a
scheduler sends it. What it interrupted has to say so in one line and without a traceback; and when the experiment has
been finished after many of them, its results are those of an undisturbed run, without a temporary file or a state left.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from experiment import RESULTS, SNAKEMAKE, Experiment, is_current, leftovers
from ledger import Turn
from workspace import Workspace, environment

from latentwire.report.comparison import differences
from latentwire.resuming.stopping import EXIT_STOPPED

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
# The running programs are where most can be lost.
TARGETS = ("snakemake", "program", "program", "program", "group")
MEAN_SECONDS = 3.0
PATIENCE_SECONDS = 900.0
SCRIPT = re.compile(r"/workflow/scripts/\w+\.py$")
ENDED = re.compile(r"> (\S+) 2>&1' (?:returned non-zero exit status (\d+)|died with <Signals\.(\w+): \d+>)")
# In the hundredth of a second in which the interpreter starts, before any code of the project.
INTERPRETER = re.compile(r"^Fatal Python error: init_", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last)"


def hear_all() -> None:
    """Heed the signals that what started the campaign in the background may ignore."""
    for name in SIGNALS[1:]:
        signal.signal(signal.Signals[name], signal.SIG_DFL)


@dataclass(frozen=True)
class Program:
    """A program of the workflow as it runs, and its log."""

    process: psutil.Process
    script: str
    log: Path


@dataclass
class Interrupted:
    """A trial under way: what got which signal."""

    trial: str
    kind: str
    signal: str
    programs: list[Program]


class Run:
    """One start of Snakemake in a process group of its own."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.log = workspace / "snakemake.log"
        if any((workspace / ".snakemake/locks").glob("*")):  # left by a run that was killed
            self._snakemake("--unlock").wait()
        self.started = time.time()
        self.process = self._snakemake("2")

    def _snakemake(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            return subprocess.Popen(
                [*SNAKEMAKE, *arguments] if arguments != ("--unlock",) else [*SNAKEMAKE, "1", *arguments],
                cwd=self.workspace.folder,
                env=environment(self.workspace.folder),
                start_new_session=True,
                preexec_fn=hear_all,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def running(self) -> bool:
        """Whether Snakemake runs."""
        return self.process.poll() is None

    def programs(self) -> list[Program]:
        """The programs that it runs now."""
        found = []
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                script = next((word for word in child.cmdline()[1:2] if SCRIPT.search(word)), None)
                log = Path(os.readlink(f"/proc/{child.pid}/fd/1"))
                if script is not None and log.suffix == ".log":
                    found.append(Program(child, Path(script).name, log))
        except (psutil.Error, OSError):  # one of them has just ended
            pass
        return found

    def ends(self) -> dict[str, str]:
        """How programs that failed have ended, by their logs: an exit status, or a signal."""
        text = self.log.read_text(errors="replace")
        return {str(self.workspace / log): status or died for log, status, died in ENDED.findall(text)}


def send(run: Run, name: str, target: str, chosen: random.Random) -> list[Program]:
    """Send a signal; the programs that it may have interrupted."""
    programs = run.programs()
    number = signal.Signals[name]
    if target == "group":
        os.killpg(run.process.pid, number)
        return programs
    if target == "snakemake":
        run.process.send_signal(number)
        return programs
    one = [chosen.choice(programs)] if programs else []
    for program in one:
        program.process.send_signal(number)
    return one


def orphans_end(programs: list[Program], chosen: random.Random) -> str:
    """Programs outlive a Snakemake that was killed: they are told to stop, or run on beside the next one."""
    living = [program for program in programs if program.process.is_running()]
    if not living:
        return "none"
    if chosen.random() < 0.5:
        return "run on"
    for program in living:
        if program.process.is_running():
            program.process.terminate()
    psutil.wait_procs([program.process for program in living], timeout=PATIENCE_SECONDS)
    return "stopped"


def outcome_of(name: str, program: Program, said: str, status: str | None) -> str:
    """How a program took a signal.

    Args:
        name: of the signal.
        program: that got it.
        said: its log.
        status: with which it ended, an exit status or the name of a signal; None if Snakemake did not wait for it.
    """
    if INTERPRETER.search(said):
        return "Python's own traceback"
    if TRACEBACK in said:
        return "traceback"
    if name == status == "SIGKILL":  # whatever it was just saying
        return "ended by the signal"
    line = f"{program.script}: stopped: received {name}; "
    if line in said:
        return "stopped: 75 and a line" if status in (None, str(EXIT_STOPPED)) and said.count(line) == 1 else "unclear"
    if f"{program.script}: interrupted" in said:
        return "interrupted: a line" if status in (None, "130", "SIGINT") else "unclear"
    if status is None:
        return "ended or outlived it"
    return "ended by the signal" if status == name else "unclear"


class Kills:
    """The experiment under interruptions.

    Args:
        workspace: where it runs.
        undisturbed: the same without interruptions.
        turn: of the campaign.
    """

    def __init__(self, workspace: Workspace, undisturbed: Workspace, turn: Turn) -> None:
        self.workspace, self.undisturbed, self.turn = workspace, undisturbed, turn

    def start(self) -> None:
        """One start of Snakemake, with up to four interruptions."""
        first = self.turn.number("signal")
        chosen = self.turn.generator((first, self.turn.number("experiment")))
        run, sent = Run(self.workspace), list[Interrupted]()
        for _ in range(chosen.choice((0, 1, 1, 2, 2, 3, 3, 4))):
            moment = time.monotonic() + min(chosen.expovariate(1 / MEAN_SECONDS), 5 * MEAN_SECONDS)
            name, target = chosen.choice(SIGNALS), chosen.choice(TARGETS)
            self._wait_until(run, moment)
            if target == "program":
                while run.running and not run.programs():
                    time.sleep(0.02)
                self._wait_until(run, time.monotonic() + chosen.uniform(0, MEAN_SECONDS))
            if not run.running:
                break
            programs = send(run, name, target, chosen)
            if programs or target != "program":
                sent.append(Interrupted(f"signal {first + len(sent)}", f"{name} to {target}", name, programs))
            if target != "program":
                break
        code = self._wait(run)
        left = orphans_end([program for own in sent for program in own.programs], chosen)
        for number, own in enumerate(sent):
            later = {program.process.pid for other in sent[number + 1 :] for program in other.programs}
            self._judge(own, run, left, later)
        if code == 0:
            self._finished()
        elif not sent:
            self.turn.add(f"start {first}", "start again", "lost", run.log.read_text()[-2000:])
            self._anew()

    def _wait_until(self, run: Run, moment: float) -> None:
        while run.running and time.monotonic() < moment:
            time.sleep(0.01)

    def _wait(self, run: Run) -> int | None:
        """Snakemake's exit status, for which it may have to wait for programs."""
        try:
            return run.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(run.process.pid, signal.SIGKILL)
            self.turn.add(f"hang {self.turn.number('hang')}", "start again", "hangs", run.log.read_text()[-2000:])
            return run.process.wait()

    def _judge(self, own: Interrupted, run: Run, left: str, later: set[int]) -> None:
        """Add a trial: the worst that any of its programs, or Snakemake, has made of it.

        Args:
            own: the trial.
            run: in which it was.
            left: what became of programs that outlived Snakemake.
            later: the processes that got another signal after this one.
        """
        ends = run.ends()
        to_all = not own.kind.endswith("snakemake")
        found = {}
        for program in own.programs:
            said = program.log.read_text(errors="replace") if program.log.exists() else ""
            found[said] = outcome_of(own.signal, program, said, ends.get(str(program.log))) if to_all else "runs on"
            if TRACEBACK in said and not INTERPRETER.search(said):
                found[said] = "traceback"
            elif program.process.pid in later:
                found[said] = "interrupted once more"
        snakemake = run.log.read_text(errors="replace")
        worst = next((said for said in found if found[said] in ("traceback", "unclear")), None)
        if worst is not None:
            self.turn.add(own.trial, own.kind, found[worst], f"{ends} {worst}")
        elif TRACEBACK in snakemake:
            self.turn.add(own.trial, own.kind, "Snakemake's own traceback", snakemake)
        else:
            what = next(iter(found.values()), "between programs")
            self.turn.add(own.trial, own.kind, what, f"programs that outlive it: {left}" if left != "none" else "")

    def _finished(self) -> None:
        """Compare with the undisturbed run, and begin anew."""
        number = self.turn.number("experiment")
        found = differences(self.undisturbed / RESULTS, self.workspace / RESULTS)
        good, bad = self.undisturbed.results(), self.workspace.results()
        found += [
            f"{name}: other bytes" for name in sorted(good.keys() | bad.keys()) if good.get(name) != bad.get(name)
        ]
        left = leftovers(self.workspace / RESULTS)
        outcome = "differs" if found else "leftover" if left else "equal to an undisturbed run"
        self.turn.add(f"experiment {number}", "finished experiment", outcome, "; ".join(found + left))
        self._anew()

    def _anew(self) -> None:
        for name in ("results", ".snakemake"):
            subprocess.run(["rm", "-rf", str(self.workspace / name)], check=True)


def campaign(experiment: Experiment, turn: Turn) -> None:
    """Interrupt while there is time, then let the last experiment finish."""
    undisturbed = experiment.undisturbed
    workspace = Workspace(experiment.folder / "kills")
    if not (workspace / "tiny.yaml").exists() or not is_current(workspace):
        workspace = experiment.fresh("kills")
    kills = Kills(workspace, undisturbed, turn)
    while turn.going:
        kills.start()
