"""The arms, one row each, from ceiling to floor. Standard library only: the Snakefile imports this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Arm:
    """One way of feeding the prompt to the frozen model.

    Attributes:
        name: in the configuration, in results and in reports.
        kind: ``reference`` (uncompressed), ``codec`` (rebuilt from a code), ``bound`` (a decoder that keeps the whole
            table) or ``floor``.
        group: arms of one group are evaluated with one load of the model.
        module: of :mod:`latentwire.arms`, which rebuilds the embeddings.
        compressor: whose codes are read; None for none.
        trained: has an adapter of its own.
        prompt: the column of the prepared prompts that is read.
        sampled: answers ``evaluate.identity_samples`` questions alone.
        legend: what the model reads.
    """

    name: str
    kind: Literal["reference", "codec", "bound", "floor"]
    group: Literal["original", "linear", "phase1", "phase2"]
    module: str
    legend: str
    compressor: Literal["pca", "random"] | None = None
    trained: bool = False
    prompt: Literal["input_ids", "question_ids"] = "input_ids"
    sampled: bool = False

    @property
    def determining(self) -> str:
        """What of the row determines the arm's answers."""
        return f"{self.module} {self.compressor} {self.trained} {self.prompt} {self.sampled}"


ROWS = (
    Arm("text", "reference", "original", "original", "token ids, uncompressed: the ceiling"),
    Arm(
        "identity",
        "reference",
        "original",
        "original",
        "the original embeddings, uncompressed: must equal text",
        sampled=True,
    ),
    Arm(
        "phase2",
        "codec",
        "phase2",
        "adapted",
        "codes rebuilt by the adapter after training through the language model",
        compressor="pca",
        trained=True,
    ),
    Arm(
        "control",
        "codec",
        "phase2",
        "adapted",
        "codes rebuilt by the adapter after Phase 2's steps on reconstruction alone",
        compressor="pca",
        trained=True,
    ),
    Arm(
        "phase1",
        "codec",
        "phase1",
        "adapted",
        "codes rebuilt by the adapter trained on reconstruction",
        compressor="pca",
        trained=True,
    ),
    Arm(
        "random",
        "codec",
        "phase1",
        "adapted",
        "codes of a random projection in the place of PCA, rebuilt by an adapter trained like phase1's",
        compressor="random",
        trained=True,
    ),
    Arm("pca", "codec", "linear", "linear", "codes rebuilt by PCA's own inverse, nothing trained", compressor="pca"),
    Arm(
        "snap",
        "bound",
        "linear",
        "nearest",
        "for each code, the token of the vocabulary with the nearest code",
        compressor="pca",
    ),
    Arm(
        "snap_d",
        "bound",
        "linear",
        "nearest",
        "for each code, the token nearest to PCA's inverse",
        compressor="pca",
    ),
    Arm(
        "quant",
        "codec",
        "linear",
        "quantised",
        "each number of the original embedding in 1, 2 or 4 bits, at no more bits than the code",
        compressor="pca",
    ),
    Arm("mean", "floor", "original", "floors", "the mean embedding for every token: a floor"),
    Arm(
        "question",
        "floor",
        "original",
        "floors",
        "the question without its context: a floor",
        prompt="question_ids",
    ),
)
ARMS = {row.name: row for row in ROWS}
GROUP_ARMS = {
    group: tuple(row.name for row in ROWS if row.group == group)
    for group in ("original", "linear", "phase1", "phase2")
}


def arm_module_name(arm: str) -> str:
    """The dotted name of the module that holds an arm.

    Raises:
        KeyError: there is no such arm.
    """
    return f"latentwire.arms.{ARMS[arm].module}"


def ordered_arms(arms: Iterable[str]) -> list[str]:
    """Names of arms from ceiling to floor."""
    given = set(arms)
    return [name for name in ARMS if name in given]
