"""Run Snakemake and say, whenever a job finishes, which stage the experiment is in and how long is left.

Its own output goes to a log. The durations of a run that succeeds can be recorded for the estimates of later ones.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from latentwire import cli
from latentwire.errors import InputError
from latentwire.progress import finished_jobs, progress, read_durations, write_durations


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--durations", type=Path, required=True, help="seconds of each job in an earlier run (TSV)")
    parser.add_argument("--record", action="store_true", help="write this run's durations there if it succeeds")
    parser.add_argument("--parallel", type=int, default=2, help="jobs that run at once, for the estimate")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    parser.add_argument("command", nargs="+", help="the Snakemake command, after --")
    return parser.parse_args()


def own(output: IO[str], log: Path) -> None:
    """Hold the log for as long as this process or the Snakemake that writes to it lives."""
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"this experiment is running already: {log} is being written") from None


def main() -> None:
    arguments = parse_arguments()
    log = arguments.root / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    durations = read_durations(arguments.durations)
    said = ""
    print(f"Snakemake's own output: {log}", flush=True)
    with log.open("a", encoding="utf-8") as output:
        own(output, log)
        if any(Path(".snakemake/locks").glob("*")):  # left by a run that was killed
            subprocess.run([*arguments.command, "--unlock"], stdout=output, stderr=subprocess.STDOUT, check=False)
        run = subprocess.Popen(arguments.command, stdout=output, stderr=subprocess.STDOUT)
        signal.signal(signal.SIGTERM, lambda *_: run.send_signal(signal.SIGINT))
        try:
            while run.poll() is None:
                now = str(progress(arguments.root, durations, parallel=arguments.parallel))
                if now != said:
                    print(time.strftime("%H:%M"), now, flush=True)
                    said = now
                time.sleep(arguments.every)
        except KeyboardInterrupt:  # Snakemake got it too, and stops its jobs
            run.wait()
            sys.exit("stopped; the same command continues from here")
    if run.returncode:
        print("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-40:]), file=sys.stderr)
        sys.exit(f"Snakemake failed; its output is in {log}, and the same command continues from here")
    if arguments.record:
        write_durations(arguments.durations, finished_jobs(arguments.root))


if __name__ == "__main__":
    cli.run(main)
