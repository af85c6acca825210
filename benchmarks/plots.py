"""`sh scripts/plots`: the pictures of docs/attribution.md, into docs/images/.

What they show is measured in virtual time (benchmarks/virtual.py), from a seed that the
pictures name.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks import plot_data
from benchmarks.plot_data import Course, Group, Lengths

DIRECTORY = Path(__file__).parents[1] / "docs" / "images"
# Of a palette that colour-blind people can tell apart.
TRUTH, GREEND, BOUNDARY, SPLIT = "#444444", "#0072b2", "#d55e00", "#e69f00"
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


def timeline(course: Course, caption: str) -> Figure:
    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(8, 4.6), height_ratios=(4, 1.3), layout="constrained"
    )
    above.fill_between(*zip(*course.true_w, strict=True), color="#bbbbbb", label="true power")
    counted = course.counted_w
    above.stairs(
        [watts for _, _, watts in counted],
        [counted[0][0], *(end for _, end, _ in counted)],
        color=BOUNDARY,
        linestyle=":",
        baseline=None,
        label="the counter's steps, each its mean power",
    )
    above.plot(
        *zip(*course.shaped_w, strict=True),
        color=GREEND,
        lw=1.3,
        drawstyle="steps-post",
        label="greend's shape",
    )
    above.set_ylabel("W")
    above.set_ylim(0)
    above.legend(loc="upper left", ncols=3, bbox_to_anchor=(0, 1.16), fontsize=9)
    for row, (begin_ms, end_ms, true_j, got_j) in enumerate(course.windows):
        below.barh(row, end_ms - begin_ms, left=begin_ms, height=0.6, color=GREEND, alpha=0.5)
        place: Any = {"x": end_ms + 6, "ha": "left"}
        if end_ms > 700:
            place = {"x": begin_ms - 6, "ha": "right"}
        said = f"{got_j:.2f} J (true {true_j:.2f})"
        below.text(y=row, s=said, va="center", fontsize=8, **place)
    below.set_yticks([])
    below.set_ylim(-0.6, len(course.windows) - 0.4)
    below.invert_yaxis()
    below.set_ylabel("windows")
    below.set_xlabel(f"ms     ({caption})")
    below.set_xlim(course.shaped_w[0][0], course.shaped_w[-1][0])
    return figure


def lengths(found: Lengths, caption: str) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    lengths_s = [length_ns / 1e9 for length_ns in found]
    for name, color, which in (
        ("counter read at start and stop", BOUNDARY, 1),
        ("greend", GREEND, 0),
    ):
        errors = [[pair[which] for pair in pairs] for pairs in found.values()]
        cuts = [quantiles(of_length, n=20, method="inclusive") for of_length in errors]
        axes.plot(
            lengths_s, [mean(one) for one in errors], "o-", color=color, label=f"{name}, mean"
        )
        axes.fill_between(
            lengths_s,
            [one[0] for one in cuts],
            [one[-1] for one in cuts],
            color=color,
            alpha=0.18,
            lw=0,
            label="5th to 95th percentile",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    axes.set_ylabel("|error| of the energy")
    axes.set_xlabel(f"length of the window     ({caption})")
    axes.legend(loc="lower left", ncols=2)
    return figure


def overlap(group: Group, caption: str) -> Figure:
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(8, 4.4), width_ratios=(2, 3), layout="constrained"
    )
    rows = range(len(group.spans_ms))
    for row, (begin_ms, end_ms) in zip(rows, group.spans_ms, strict=True):
        left.barh(row, end_ms - begin_ms, left=begin_ms, height=0.6, color="#bbbbbb")
    left.set_xlabel("open, ms")
    left.set_xlim(0)
    left.set_yticks(list(rows), [f"window {row + 1}" for row in rows])
    left.invert_yaxis()
    figures: Sequence[tuple[str, str, str, Sequence[float]]] = (
        ("counter read at start and stop", BOUNDARY, "s", group.boundary_j),
        ("an eighth of the whole", SPLIT, "D", group.split_j),
        ("greend", GREEND, "o", group.greend_j),
        ("truth", TRUTH, "|", group.true_j),
    )
    for name, color, marker, joules in figures:
        size = 14 if marker == "|" else 7
        right.plot(
            joules, list(rows), marker, color=color, ms=size, mew=2 if size > 7 else 0, label=name
        )
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter("")
    right.set_xlabel(f"J     ({caption})")
    figure.legend(loc="outside upper center", ncols=4, fontsize=9)
    return figure


def bounds(found: Mapping[str, Sequence[tuple[float, float]]], caption: str) -> Figure:
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    colors = ("#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#e69f00")
    for (name, pairs), color in zip(found.items(), colors, strict=True):
        covered = mean(error <= bound for bound, error in pairs)
        axes.plot(
            *zip(*pairs, strict=True),
            ".",
            color=color,
            ms=4,
            alpha=0.6,
            mew=0,
            label=f"{name}: {covered:.1%} of {len(pairs)} covered",
        )
    span = (1e-5, 2)
    axes.plot(span, span, color=TRUTH, lw=1, label="error = bound")
    axes.set(xscale="log", yscale="log", xlim=(3e-4, 2), ylim=span)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set_xlabel(f"uncertainty_j / energy     ({caption})")
    axes.set_ylabel("|error| / energy")
    axes.legend(loc="lower right", fontsize=9, markerscale=3)
    return figure


def main() -> None:
    """Draws all of them."""
    options = argparse.ArgumentParser(prog="sh scripts/plots")
    options.add_argument("--seed", type=int, default=1)
    seed = options.parse_args().seed
    mpl.use("agg")
    plt.style.use(STYLE)
    DIRECTORY.mkdir(exist_ok=True)
    caption = f"virtual time, seed {seed}"
    figures: Mapping[str, Callable[[], Figure]] = {
        "timeline": lambda: timeline(plot_data.course(seed), caption),
        "lengths": lambda: lengths(plot_data.lengths(seed), caption),
        "overlap": lambda: overlap(plot_data.group(seed), caption),
        "bounds": lambda: bounds(plot_data.bounds(seed), caption),
    }
    for name, draw in figures.items():
        path = DIRECTORY / f"attribution-{name}.png"
        draw().savefig(path, dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
