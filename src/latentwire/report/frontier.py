"""The frontier as a figure, as Markdown and as a page of its own."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any, Literal

from latentwire.decisions.frontier import Frontier, Point
from latentwire.report.figures import svg
from latentwire.report.verdict_text import OTHER_HEADS, other_cells, percent, value
from latentwire.results import IntervalRecord

# Names of points, with the points' places in their axes.
Named = list[tuple[str, float, float]]


def _limits(interval: IntervalRecord, scale: float) -> tuple[float, float] | None:
    lower, upper = interval["lower"], interval["upper"]
    return None if lower is None or upper is None else (scale * lower, scale * upper)


def _label(axes: Any, named: Named) -> None:
    """Write names to the right of their points ``(name, x, y)``, from top to bottom, each clear of those before."""
    height, character = 9.0, 4.2  # points: a line of text, a letter
    taken: list[tuple[float, float, float]] = []  # left, right, and the line's height
    scale = 72 / axes.figure.dpi
    for name, x, y in sorted(named, key=lambda own: (-own[2], own[1], own[0])):
        across, up = (scale * own for own in axes.transData.transform((x, y)))
        left, line = across + 7, up - 3
        right = left + character * len(name)
        while crossed := [own for a, b, own in taken if a < right and left < b and abs(own - line) < height]:
            line = min(crossed) - height
        taken.append((left, right, line))
        arrow = {"arrowstyle": "-", "lw": 0.4, "color": "#aaa", "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            name, (x, y), xytext=(left - across, line - up), textcoords="offset points", fontsize=7, arrowprops=arrow
        )


def _with_interval(axes: Any, x: float, interval: IntervalRecord, scale: float, **marker: Any) -> float:
    """Draw an estimate and its limits at ``x``; the estimate as drawn."""
    estimate = scale * (interval["estimate"] or 0.0)
    if (limits := _limits(interval, scale)) is not None:
        axes.plot([x] * 2, limits, color="#9ab", lw=1.2, zorder=1)
    axes.plot(x, estimate, **{"marker": "o", "ms": 5, "zorder": 3, "ls": ""} | marker)
    return estimate


def _log_scale(axis: Any) -> None:
    """Powers of ten as plain numbers, nothing between them."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def _kl_and_f1(found: Frontier, draw: Callable[[Any, Any], tuple[Named, Named]]) -> str:
    """Two panels, KL on a logarithmic scale and F1 beside the ceiling, with the names of what ``draw`` draws."""

    def finished(left: Any, right: Any) -> None:
        of_kl, of_f1 = draw(left, right)
        left.set_title("KL from the uncompressed model, prompt positions (nats)", loc="left", fontsize=9)
        left.set_yscale("log")
        _log_scale(left.yaxis)
        right.set_title("F1, percent; dashed: the uncompressed text", loc="left", fontsize=9)
        right.axhline(100 * (found["ceiling"]["estimate"] or 0.0), color="#999", ls="--", lw=1)
        right.set_ylim(bottom=0)
        left.figure.draw_without_rendering()  # the axes get their places
        _label(left, of_kl)
        _label(right, of_f1)

    return svg(finished, 13, 6.5, panels=2)


def frontier_figure(found: Frontier) -> str:
    """KL and F1 against bits per table parameter, with intervals, as SVG; the Pareto set is filled and joined."""

    def panel(axes: Any, points: list[tuple[Point, IntervalRecord]], scale: float) -> Named:
        bits = [point["bits"] for point, _ in points] or [1.0]
        named: Named = []
        for point, interval in points:
            colours = {"mfc": "#c30", "mec": "#c30"} if point["pareto"] else {"mfc": "white", "mec": "#456"}
            estimate = _with_interval(axes, point["bits"], interval, scale, **colours)
            named.append((point["codec"], point["bits"], estimate))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks := [0.5, 1, 2, 4, 8], [f"{tick:g}" for tick in ticks])
        axes.set_xlim(min(0.8, *bits) / 1.1, 1.5 * max(bits))
        axes.minorticks_off()
        axes.set_xlabel("bits per table parameter, everything counted")
        return named

    def draw(left: Any, right: Any) -> tuple[Named, Named]:
        measured = [(point, point["kl"]) for point in found["points"] if point["kl"] is not None]
        of_kl = panel(left, measured, 1)
        best = [(point["bits"], kl["estimate"]) for point, kl in measured if point["pareto"]]
        left.plot(*zip(*best, strict=True), color="#c30", lw=1, zorder=2) if best else None
        of_f1 = panel(right, [(p, p["f1"]) for p in found["points"]], 100)
        return of_kl, of_f1

    return _kl_and_f1(found, draw)


def error_figure(found: Frontier) -> str:
    """KL and F1 against FVU, of codecs and of random errors, as SVG; errors spread equally are joined."""

    def panel(axes: Any, key: Literal["kl", "f1"], scale: float) -> Named:
        for noise, marker in (("equal", "."), ("rows", "^"), ("shrunk", "s")):
            random = [own for own in found["noise"] if own["noise"] == noise]
            for own in random:
                _with_interval(axes, own["fvu"], own[key], scale, marker=marker, ms=5, color="#888", zorder=2)
            if noise == "equal":
                curve = [(own["fvu"], scale * (own[key]["estimate"] or 0.0)) for own in random]
                axes.plot(*zip(*curve, strict=True), color="#888", lw=1, zorder=1) if curve else None
        named: Named = []
        for point in found["points"]:
            if point["fvu"] and (interval := point[key]) is not None:
                y = _with_interval(axes, point["fvu"], interval, scale, mfc="#c30", mec="#c30")
                named.append((point["codec"], point["fvu"], y))
        axes.set_xscale("log")
        _log_scale(axes.xaxis)
        axes.set_xlim(right=6 * axes.get_xlim()[1])  # room for names
        axes.set_xlabel(
            "FVU over token occurrences; grey: random errors, equal (dots), by row (triangles), shrunk (squares)"
        )
        return named

    def draw(left: Any, right: Any) -> tuple[Named, Named]:
        of_kl = panel(left, "kl", 1)
        of_f1 = panel(right, "f1", 100)
        return of_kl, of_f1

    return _kl_and_f1(found, draw)


def _other_text(found: Frontier) -> str:
    """What the other domain's columns are measured on, as a sentence."""
    if (own := found.get("other_domain")) is None:
        return ""
    return (
        f" Another domain's text: {own['positions']:,} positions in {own['passages']} passages of {own['documents']} "
        "documents, intervals over documents."
    )


def _elsewhere(point: Point) -> str:
    """A codec's cells on the other domain's text."""
    if (own := point.get("other_domain")) is None:
        return " – | – | – |"
    return other_cells(own["kl"], own["ratio"], own["same_top"])


def frontier_lines(found: Frontier) -> list[str]:
    """The frontier in Markdown: what is shown, and a table by bits."""
    kept = f"{100 * found['kept']:g}%"
    points = {point["codec"]: point for point in found["points"]}
    shown = (
        f"No codec is shown to keep {kept} of the uncompressed model's F1."
        if found["cheapest"] is None
        else f"The cheapest codec that is shown to keep {kept} of the uncompressed model's F1 is "
        f"`{found['cheapest']}`, at {points[found['cheapest']]['bits']:.2f} bits per table parameter."
    )
    power = (
        ""
        if found["detectable"] is None
        else f" These questions find a loss of {100 * found['detectable']:.1f} points in 80% of such samples (the "
        "median over codecs), a smaller one in fewer."
    )
    lines = [
        f"{found['questions']} questions in {found['articles']} articles of `final`, "
        f"{100 * found['confidence']:.0f}% intervals over articles; ceiling: F1 {percent(found['ceiling'])}%. "
        f"{shown}{power}{_other_text(found)}",
        "",
        "| codec | bits per table parameter | MB | KL, prompt (nats) | same top token % | F1 % | retention % "
        f"| keeps {kept} (p, Holm) | |{OTHER_HEADS if 'other_domain' in found else ''}",
        f"|---|---|---|---|---|---|---|---|---|{'---|---|---|' if 'other_domain' in found else ''}",
    ]
    for point in found["points"]:
        same = "–" if point["same_top"] is None else percent(point["same_top"])
        kept_p = "–" if point["p"] is None else f"{'shown' if point['shown'] else 'not shown'} ({point['p']:.3f})"
        lines.append(
            f"| `{point['codec']}` | {point['bits']:.2f} | {point['megabytes']:.3g} | "
            f"{'–' if point['kl'] is None else value(point['kl'])} | {same} | {percent(point['f1'])} | "
            f"{percent(point['retention'])} | {kept_p} | {'Pareto' if point['pareto'] else ''} |"
            f"{_elsewhere(point) if 'other_domain' in found else ''}"
        )
    return lines


def frontier_page(found: Frontier) -> str:
    """The figures and the table as a page that needs no other file."""
    summary, _, header, _, *rows = frontier_lines(found)
    cells = [[html.escape(cell.strip(" `")) for cell in row.strip("| ").split(" | ")] for row in (header, *rows)]
    table = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in cells)
    title = html.escape(f"Bits against harm: {found['experiment']}")
    style = "body{font:15px sans-serif;margin:2em}td{padding:.2em .7em;border-bottom:1px solid #ddd}"
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>\n'
        f"<h1>{title}</h1>\n<p>{html.escape(summary.replace('`', ''))}</p>\n"
        f"{frontier_figure(found)}\n{error_figure(found)}\n"
        f"<table>\n{table}</table>\n</html>\n"
    )
