"""The frontier as a figure, as Markdown and as a page of its own."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, Literal

from matplotlib.lines import Line2D

from latentwire.decisions.frontier import Frontier, Point
from latentwire.report.figures import svg
from latentwire.report.verdict_text import OTHER_HEADS, method_lines, other_cells, percent, value
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


def _key(axes: Any, confidence: float) -> None:
    """What a point's colour and its bar say."""
    marker: dict[str, Any] = {"marker": "o", "ms": 5, "ls": "-", "lw": 1}
    handles = [
        Line2D([], [], color="#c30", **marker, label="Pareto set: no codec of as few bits has a smaller KL"),
        Line2D([], [], mfc="white", mec="#456", **marker | {"ls": ""}, label="other codecs"),
        Line2D(
            [],
            [],
            color="#9ab",
            marker="|",
            ms=12,
            mew=1.2,
            ls="",
            label=f"{100 * confidence:g}% interval over articles",
        ),
    ]
    axes.legend(handles=handles, loc="lower left", frameon=False)


def _by_bits(axes: Any, title: str, points: list[tuple[Point, IntervalRecord]], scale: float) -> Named:
    """Draw points by their bits, the Pareto set filled."""
    bits = [point["bits"] for point, _ in points] or [1.0]
    named: Named = []
    for point, interval in points:
        colours = {"mfc": "#c30", "mec": "#c30"} if point["pareto"] else {"mfc": "white", "mec": "#456"}
        estimate = _with_interval(axes, point["bits"], interval, scale, **colours)
        named.append((point["codec"], point["bits"], estimate))
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks := [0.5, 1, 2, 4, 8], [f"{tick:g}" for tick in ticks])
    axes.set_xlim(min(0.8, *bits) / 1.1, 1.5 * max(bits))
    axes.minorticks_off()
    axes.set_xlabel("bits per table parameter, everything counted")
    return named


def frontier_figure(found: Frontier) -> str:
    """KL, same top token and retention against bits per table parameter, with intervals, as SVG.

    The Pareto set is filled, and joined among the KL.
    """

    def measured(key: Literal["kl", "same_top"]) -> list[tuple[Point, IntervalRecord]]:
        return [(point, own) for point in found["points"] if (own := point[key]) is not None]

    def draw(*panels: Any) -> None:
        titles = (
            "KL from the uncompressed model's predictions at prompt positions (nats): less is better",
            "positions with the same most likely next token as the uncompressed model's (%)",
            "retention: F1 of the answers over the uncompressed text's (%); dashed: equal",
        )
        values = measured("kl"), measured("same_top"), [(point, point["retention"]) for point in found["points"]]
        named = [_by_bits(*own) for own in zip(panels, titles, values, (1, 100, 100), strict=True)]
        kl, same_top, retention = panels
        best = [(point["bits"], own["estimate"]) for point, own in values[0] if point["pareto"]]
        kl.plot(*zip(*best, strict=True), color="#c30", lw=1, zorder=2) if best else None
        kl.set_yscale("log")
        _log_scale(kl.yaxis)
        _key(kl, found["confidence"])
        same_top.set_ylim(0, 100)
        retention.axhline(100, color="#999", ls="--", lw=1)
        retention.set_ylim(bottom=0)
        kl.figure.draw_without_rendering()  # the axes get their places
        for axes, own in zip(panels, named, strict=True):
            _label(axes, own)

    return svg(draw, 9, 14, rows=3)


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

    def draw(left: Any, right: Any) -> None:
        of_kl = panel(left, "kl", 1)
        of_f1 = panel(right, "f1", 100)
        left.set_title("KL from the uncompressed model, prompt positions (nats)", loc="left", fontsize=9)
        left.set_yscale("log")
        _log_scale(left.yaxis)
        right.set_title("F1, percent; dashed: the uncompressed text", loc="left", fontsize=9)
        right.axhline(100 * (found["ceiling"]["estimate"] or 0.0), color="#999", ls="--", lw=1)
        right.set_ylim(bottom=0)
        left.figure.draw_without_rendering()  # the axes get their places
        _label(left, of_kl)
        _label(right, of_f1)

    return svg(draw, 13, 6.5, columns=2)


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


def _summary(found: Frontier) -> str:
    """What the points are measured on, what is shown of them, and what the times are of, as Markdown."""
    bits = {point["codec"]: point["bits"] for point in found["points"]}
    shown = ""
    for own in found["kept"]:
        share = f"{100 * own['share']:g}% of the uncompressed model's F1"
        shown += (
            f" No codec is shown to keep {share}."
            if own["cheapest"] is None
            else f" The cheapest codec that is shown to keep {share} is `{own['cheapest']}`, at "
            f"{bits[own['cheapest']]:.2f} bits per table parameter."
        )
    power = (
        ""
        if found["detectable"] is None
        else f" These questions find a loss of {100 * found['detectable']:.1f} points in 80% of such samples (the "
        "median over codecs), a smaller one in fewer."
    )
    return (
        f"{found['questions']} questions in {found['articles']} articles of `final`, "
        f"{100 * found['confidence']:.0f}% intervals over articles; ceiling: F1 {percent(found['ceiling'])}%."
        f"{shown}{power}{_other_text(found)} A codec is made in the wall time of its own jobs of this run, for one "
        "seed; a prompt's embeddings are rebuilt on one thread (the median over prompts of `gate`)."
    )


def _time(seconds: float | None, scale: float = 1) -> str:
    return "–" if seconds is None else f"{scale * seconds:.3g}"


def _cells(point: Point) -> str:
    """A codec's row."""
    undecided = "–" if point["f1"]["lower"] is None else "undecided"
    reaches = {True: "yes", False: "no", None: undecided}[point["reaches"]]
    keeps = [
        "–" if own["p"] is None else f"{'shown' if own['shown'] else 'not shown'} ({own['p']:.3f})"
        for own in point["keeps"]
    ]
    cells = [
        f"`{point['codec']}`",
        f"{point['bits']:.2f}",
        f"{point['megabytes']:.3g}",
        "–" if point["kl"] is None else value(point["kl"]),
        "–" if point["same_top"] is None else percent(point["same_top"]),
        percent(point["f1"]),
        percent(point["retention"]),
        "yes" if point["pareto"] else "",
        reaches,
        *keeps,
        _time(point["seconds_to_make"]),
        _time(point["seconds_to_decode"], 1000),
    ]
    return f"| {' | '.join(cells)} |"


def _table(found: Frontier) -> list[str]:
    """The points by bits, as a Markdown table."""
    other = "other_domain" in found
    heads = [
        "codec",
        "bits per table parameter",
        "MB",
        "KL, prompt (nats)",
        "same top token %",
        "F1 %",
        "retention %",
        "in the Pareto set",
        f"reaches {100 * found['threshold']:g}%",
        *(f"keeps {100 * own['share']:g}% (p, Holm)" for own in found["kept"]),
        "made in (s)",
        "prompt rebuilt in (ms)",
    ]
    return [
        f"| {' | '.join(heads)} |{OTHER_HEADS if other else ''}",
        f"{'|---' * len(heads)}|{'---|---|---|' if other else ''}",
        *(f"{_cells(point)}{_elsewhere(point) if other else ''}" for point in found["points"]),
    ]


def frontier_lines(found: Frontier) -> list[str]:
    """The frontier in Markdown: what is shown, a table by bits, and which codec to take at which rate."""
    lines = [_summary(found), "", *_table(found)]
    return [*lines, "", *own] if (own := method_lines(found["methods"])) else lines


def _html_table(lines: list[str], notes: Mapping[str, str]) -> str:
    """A Markdown table as HTML, with a note under a row's first cell."""
    rows = []
    for line in [lines[0], *lines[2:]]:
        cells = [cell.strip(" `") for cell in line.removeprefix("|").removesuffix("|").split("|")]
        note = f"<small>{html.escape(notes[cells[0]])}</small>" if cells[0] in notes else ""
        first, *others = (html.escape(cell.replace("`", "")) for cell in cells)
        rows.append(f"<tr><td>{first}{note}</td>{''.join(f'<td>{cell}</td>' for cell in others)}</tr>\n")
    return f"<table>\n{''.join(rows)}</table>\n"


def frontier_page(found: Frontier) -> str:
    """The figures and the tables as a page that needs no other file."""
    legends = {point["codec"]: point["legend"] for point in found["points"]}
    title = html.escape(f"Bits against harm: {found['experiment']}")
    style = (
        "body{font:15px sans-serif;margin:2em}td{padding:.2em .7em;border-bottom:1px solid #ddd;vertical-align:top}"
        "small{display:block;color:#567;max-width:20em}svg{max-width:100%;height:auto}"
    )
    said, _, *choice = method_lines(found["methods"]) or ["", ""]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{style}</style>\n'
        f"<h1>{title}</h1>\n<p>{html.escape(_summary(found).replace('`', ''))}</p>\n"
        f"{frontier_figure(found)}\n{error_figure(found)}\n{_html_table(_table(found), legends)}"
        f"<p>{html.escape(said)}</p>\n{_html_table(choice, {}) if choice else ''}</html>\n"
    )
