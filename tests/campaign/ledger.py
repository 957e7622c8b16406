"""What a campaign has tried: one JSON line per trial, appended at once, so that a rerun continues where it stopped."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Outcomes that no trial should have; the others are ways in which nothing is lost.
WRONG = (
    "silent",
    "traceback",
    "crash",
    "unclear",
    "not named",
    "differs",
    "lost",
    "leftover",
    "hangs",
    "fails later",
)


class Ledger:
    """The trials in one file.

    Args:
        path: of the file; made with the first trial.
        seed: from which trials are drawn.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = path, seed
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            whole = [
                line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
            ]
            path.write_text("".join(whole), encoding="utf-8")  # without the line in which the campaign was killed
            self.rows = [json.loads(line) for line in whole]
        self._done = {(row["campaign"], row["trial"]) for row in self.rows}

    def has(self, campaign: str, trial: str) -> bool:
        """Whether a trial was done."""
        return (campaign, trial) in self._done

    def add(self, campaign: str, trial: str, kind: str, outcome: str, detail: str = "", count: int = 1) -> None:
        """Append a trial.

        Args:
            campaign: ``kills``, ``damage``, ``faults``, ``fuzz``, ``configurations`` or ``reports``.
            trial: its name, by which a rerun passes it over.
            kind: of what was done, a row of the table.
            outcome: how it ended, a column of the table.
            detail: what explains a wrong outcome.
            count: trials that the line stands for.
        """
        row = {"campaign": campaign, "trial": trial, "kind": kind, "outcome": outcome, "seed": self.seed}
        row |= {"count": count} if count != 1 else {}
        row |= {"detail": detail[-2000:]} if detail else {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as output:
            output.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.rows.append(row)
        self._done.add((campaign, trial))

    def table(self, campaign: str) -> str:
        """Markdown: kinds of trials by outcomes, with sums."""
        rows = [row for row in self.rows if row["campaign"] == campaign]
        kinds = list(dict.fromkeys(sorted(row["kind"] for row in rows)))
        outcomes = sorted({row["outcome"] for row in rows}, key=lambda name: (name in WRONG, name))
        lines = [["", *outcomes, "trials"], ["---"] * (len(outcomes) + 2)]
        for kind in [*kinds, "all"]:
            counts = _counts(row for row in rows if kind in ("all", row["kind"]))
            lines.append([kind, *(str(counts[name]) for name in outcomes), str(counts.total())])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def wrong(self, campaign: str) -> list[dict[str, Any]]:
        """The trials that ended as none should."""
        return [row for row in self.rows if row["campaign"] == campaign and row["outcome"] in WRONG]


def _counts(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["outcome"]] += row.get("count", 1)
    return counts


class Turn:
    """One campaign's share of the time, and its random numbers.

    Args:
        ledger: of all campaigns.
        campaign: its name.
        seconds: from now on.
    """

    def __init__(self, ledger: Ledger, campaign: str, seconds: float) -> None:
        self.ledger, self.campaign = ledger, campaign
        self._end = time.monotonic() + seconds

    @property
    def going(self) -> bool:
        """Whether there is time for another trial."""
        return time.monotonic() < self._end

    def generator(self, trial: object) -> random.Random:
        """The random numbers of one trial: the same in every run with the same seed."""
        return random.Random(f"{self.ledger.seed} {self.campaign} {trial}")

    def has(self, trial: str) -> bool:
        """See :meth:`Ledger.has`."""
        return self.ledger.has(self.campaign, trial)

    def add(self, trial: str, kind: str, outcome: str, detail: str = "", count: int = 1) -> None:
        """See :meth:`Ledger.add`."""
        self.ledger.add(self.campaign, trial, kind, outcome, detail, count)

    def number(self, kind: str) -> int:
        """How many trials whose names begin with a word were done."""
        return sum(row["campaign"] == self.campaign and row["trial"].startswith(kind) for row in self.ledger.rows)
