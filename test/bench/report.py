# SPDX-License-Identifier: BSD-2-Clause
"""Figures: a line of the table for each, JSON, and a plot of pause against size."""
import json
import math
import statistics


class Report:
    """Passes the figures of one row on, a JSON line each."""

    def __init__(self, row, targets, out):
        self.row, self.targets, self.out = row, targets, out

    def add(self, name, unit, runs, target=None, baseline=None, ratio_target=None, parts=None,
            plot=None):
        """target: at most that much; ratio_target: at most so many times the baseline's median;
        parts: what the figure consists of; plot: (line, MiB) where it goes in the plot."""
        f = {"row": self.row, "name": name, "unit": unit, **spread(runs)}
        if baseline:
            f["baseline"] = {"name": baseline[0], **spread(baseline[1])}
            if f["baseline"]["median"]:
                f["ratio"] = f["median"] / f["baseline"]["median"]
        if not self.targets:
            target = ratio_target = None
        if target is not None:
            f["target"], f["met"] = target, f["median"] <= target
        if ratio_target is not None and "ratio" in f:
            f["ratio_target"], f["met"] = ratio_target, f["ratio"] <= ratio_target
        if parts:
            f["parts"] = {k: spread(v) for k, v in parts.items()}
        if plot:
            f["plot"] = {"line": plot[0], "mib": plot[1]}
        self.out.write(json.dumps(f) + "\n")
        self.out.flush()


def spread(runs):
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs),
            "runs": list(runs)}


def number(x):
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


HEADING = f"{'figure':<49}{'median':>8} {'':<5}{'min - max':>17}  {'baseline':<33}target"


def line_of(f):
    mark = {True: "met", False: "MISSED"}.get(f.get("met"), "")
    goal = f"<= {f['target']:g}" if "target" in f else ""
    if "ratio_target" in f:
        goal = f"<= {f['ratio_target']:g} x"
    base = ""
    if "baseline" in f:
        base = f"{f['baseline']['name']} {number(f['baseline']['median'])}"
        base += f" ({f['ratio']:.3g} x)" if "ratio" in f else ""
    span = f"{number(f['min'])} - {number(f['max'])}"
    text = (f"{f['name']:<49}{number(f['median']):>8} {f['unit']:<5}{span:>17}  {base:<33}"
            f"{goal:<9} {mark}").rstrip()
    if "parts" in f:
        text += "\n      of it: " + ", ".join(
            f"{k} {number(v['median'])}" for k, v in f["parts"].items())
    return text


# --- the plot -------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 480, 70, 40, 230, 60
COLOURS = ["#1b6ca8", "#c0392b", "#1e8449", "#b9770e", "#6c3483", "#117a65", "#7b7d7d", "#d35400",
           "#2c3e50", "#a93226"]


def powers(low, high):
    """The powers of ten around [low, high]."""
    return math.floor(math.log10(low)), max(math.ceil(math.log10(high)),
                                            math.floor(math.log10(low)) + 1)


def svg(figures):
    """Pause against size for each mode, both axes logarithmic; None without anything to show."""
    lines = {}
    for f in figures:
        if "plot" in f and f["median"] > 0:
            lines.setdefault(f["plot"]["line"], []).append((f["plot"]["mib"], f))
    if not lines:
        return None
    sizes = sorted({mib for points in lines.values() for mib, _ in points})
    low, high = powers(min(max(f["min"], 0.01) for p in lines.values() for _, f in p),
                       max(f["max"] for p in lines.values() for _, f in p))

    def x_of(mib):
        span = math.log2(sizes[-1] / sizes[0]) or 1
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(mib / sizes[0]) / span * 0.9 + 0.05)

    def y_of(ms):
        part = (math.log10(max(ms, 10.0 ** low)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="22" font-size="15">Longest gap that the job felt, by size of its '
           'memory</text>']
    for power in range(low, high + 1):
        y = y_of(10.0 ** power)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0 ** power:g} ms'
                   '</text>')
    for mib in sizes:
        name = f"{mib / 1024:g} GiB" if mib >= 1024 else f"{mib} MiB"
        out.append(f'<path d="M{x_of(mib):.1f} {HEIGHT - BOTTOM}v5" stroke="black"/>')
        out.append(f'<text x="{x_of(mib):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
                   f'{name}</text>')
    for n, (line, points) in enumerate(lines.items()):
        colour, dash = COLOURS[n % len(COLOURS)], ' stroke-dasharray="5 3"' if n > 9 else ""
        points.sort(key=lambda p: p[0])
        path = "L".join(f"{x_of(mib):.1f} {y_of(f['median']):.1f}" for mib, f in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for mib, f in points:
            x = x_of(mib)
            out.append(f'<circle cx="{x:.1f}" cy="{y_of(f["median"]):.1f}" r="3" fill="{colour}"/>')
            out.append(f'<path d="M{x:.1f} {y_of(f["min"]):.1f}V{y_of(f["max"]):.1f}" '
                       f'stroke="{colour}"/>')
        y = TOP + 12 + 20 * n
        out.append(f'<path d="M{WIDTH - RIGHT + 15} {y - 4}h20" stroke="{colour}" '
                   f'stroke-width="2"{dash}/>')
        out.append(f'<text x="{WIDTH - RIGHT + 42}" y="{y}">{line}</text>')
    out.append("</svg>\n")
    return "\n".join(out)
