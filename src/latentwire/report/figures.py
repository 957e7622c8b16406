"""Figures as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("svg")
import matplotlib.pyplot as plt

from latentwire.arms_table import ordered_arms
from latentwire.results import DimensionVerdict, estimate_of

# Text stays text, and the same figure gives the same bytes.
plt.rcParams.update({"svg.hashsalt": "latentwire", "svg.fonttype": "none", "font.size": 9})


def svg(draw: Callable[..., None], width: float, height: float, *, rows: int = 1, columns: int = 1) -> str:
    """What ``draw`` draws into so many axes, row by row; inches."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)
    draw(*axes.flat)
    for own in axes.flat:
        own.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def arms_figure(entry: DimensionVerdict) -> str:
    """F1 of every arm with its interval, and the gate's threshold."""
    arms = ordered_arms(entry["arms"])[::-1]

    def draw(axes: Any) -> None:
        for row, arm in enumerate(arms):
            f1 = entry["arms"][arm]["f1"]
            if f1["lower"] is not None and f1["upper"] is not None:
                axes.plot([100 * f1["lower"], 100 * f1["upper"]], [row, row], color="#456", lw=2)
            axes.plot(100 * estimate_of(f1), row, "o", color="#c30" if arm == entry["chosen"] else "#456", ms=5)
        axes.axvline(100 * entry["threshold"], color="#999", ls="--", lw=1)
        axes.set_yticks(range(len(arms)), arms)
        axes.set_xlim(0, 100)
        axes.set_xlabel("F1 on final, percent (95% interval; dashed: the gate's threshold)")

    return svg(draw, 6.5, 0.3 * len(arms) + 0.8)


def curves_figure(histories: dict[str, list[list[dict[str, Any]]]]) -> str:
    """Held-out FVU as training goes, a line a run."""

    def draw(axes: Any) -> None:
        for index, (arm, runs) in enumerate(histories.items()):
            for number, run in enumerate(runs):
                label = arm if number == 0 else None
                axes.plot(
                    [r["epoch"] for r in run], [r["recon_fvu"] for r in run], color=f"C{index}", label=label, lw=1.2
                )
        axes.set_xlabel("epoch")
        axes.set_ylabel("held-out FVU")
        axes.legend(frameon=False)

    return svg(draw, 6.5, 2.8)


def spectrum_figure(spectrum: pd.DataFrame, dims: list[int]) -> str:
    """The share of the variance that the first k components keep."""

    def draw(axes: Any) -> None:
        axes.plot(spectrum["k"], 100 * spectrum["explained_variance_ratio"], color="#456", lw=1.5)
        for k in dims:
            kept = 100 * float(spectrum.loc[spectrum["k"] == k, "explained_variance_ratio"].iloc[0])
            axes.plot(k, kept, "o", color="#c30", ms=5)
            axes.annotate(f"K = {k}: {kept:.1f}%", (k, kept), xytext=(6, -10), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("components")
        axes.set_ylabel("variance kept, percent")

    return svg(draw, 6.5, 2.8)
