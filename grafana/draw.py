"""Draws the dashboards as PNG: the same panels, from the same JSON, with the same queries, without a Grafana.

    make boards PROMETHEUS=http://127.0.0.1:9090

Needs matplotlib (`make boards` gets it). Simple on purpose: what a panel says is Grafana's, how it looks is nearly so.
"""

import argparse
import datetime
import io
import json
import math
import pathlib
import re
import time
import urllib.parse
import urllib.request

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextPath
from PIL import Image

HERE = pathlib.Path(__file__).parent
# Pixels of one of Grafana's 24 columns and of a unit of height, margins with them.
COLUMN, UNIT, HEADER, DPI = 52, 31, 34, 100
PAPER, CARD, EDGE, INK, FAINT = "#f4f5f5", "#ffffff", "#dcdee2", "#24292e", "#6e7681"
SERIES = ["#56a64b", "#f2cc0c", "#3274d9", "#ff780a", "#e02f44", "#8f3bb8", "#37872d", "#1f60c4", "#c4162a", "#fa6400"]
SERIES += ["#5794f2", "#b877d9", "#73bf69", "#e0b400"]
COLOURS = {"green": "#37872d", "orange": "#fa6400", "red": "#c4162a", "blue": "#1f60c4"}
TRIAGE = {"red": "#e02f44", "yellow": "#f2cc0c", "green": "#56a64b", "black": "#464c54"}


class Prometheus:
    """The queries of a board, with everything chosen."""

    def __init__(self, url, minutes, namespace):
        self.url = url.rstrip("/") + "/api/v1/"
        self.end = time.time()
        self.start = self.end - 60 * minutes
        self.step = max(1, math.ceil(60 * minutes / 240))
        self.namespace = namespace or self.newest_namespace()

    def ask(self, path, **parameters):
        with urllib.request.urlopen(self.url + path + "?" + urllib.parse.urlencode(parameters), timeout=30) as answer:
            return json.load(answer)["data"]

    def newest_namespace(self):
        found = self.ask("query", query="group by (namespace) (medledger_build_info)")["result"]
        if not found:
            raise SystemExit("this Prometheus scrapes no process of Medledger; `medledger network prometheus` prints settings")
        return found[0]["metric"].get("namespace", "")

    def substituted(self, expr):
        for name, value in {
            "$namespace": self.namespace,
            "$organisation": ".*",
            "$partition": ".*",
            # As Grafana has it: four scrapes, or more when zoomed out.
            "$__rate_interval": f"{max(20, 5 + self.step)}s",
            "$__range": f"{int(self.end - self.start)}s",
        }.items():
            expr = expr.replace(name, value)
        return expr

    def series(self, target):
        """Labels, times and values of each series."""
        query = self.substituted(target["expr"])
        if target["instant"]:
            found = self.ask("query", query=query, time=self.end)["result"]
            return [(one["metric"], [one["value"][0]], [float(one["value"][1])]) for one in found]
        found = self.ask("query_range", query=query, start=self.start, end=self.end, step=self.step)["result"]
        return [
            (one["metric"], [at for at, _ in one["values"]], [float(value) for _, value in one["values"]]) for one in found
        ]


def scaled(value, steps, digits=3):
    """A value in the largest unit that leaves it above one."""
    if abs(value) < 1e-12:
        return "0"
    factor, unit = next(((factor, unit) for factor, unit in steps if abs(value) >= factor), steps[-1])
    return number(value / factor, digits) + unit


def number(value, digits=3):
    if abs(value) < 1e-12:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 4)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


BYTES = [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")]
SECONDS = [(86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")]


def shown(value, unit, digits=3):
    if value is None or math.isnan(value):
        return "–"
    if unit == "s":
        return scaled(value, SECONDS, digits)
    if unit == "bytes":
        return scaled(value, BYTES, digits)
    if unit == "Bps":
        return scaled(value, BYTES, digits) + "/s"
    if unit == "percentunit":
        return number(value * 100, digits) + " %"
    if unit == "short":
        return scaled(value, [(1e9, " G"), (1e6, " M"), (1e3, " K"), (1, "")], digits) if abs(value) >= 1 else number(value, digits)
    if unit == "dateTimeAsIso":
        return datetime.datetime.fromtimestamp(value / 1000).strftime("%Y-%m-%d %H:%M")
    suffix = {"reqps": " req/s", "none": ""}.get(unit, unit.removeprefix("suffix:"))
    return (number(round(value), 12) if unit == "none" else number(value, digits)) + suffix


class Panel:
    def __init__(self, figure, place, panel, prometheus):
        self.figure, self.place, self.panel, self.prometheus = figure, place, panel, prometheus
        self.defaults = panel["fieldConfig"]["defaults"]
        self.unit = self.defaults["unit"]
        self.overrides = {
            one["matcher"]["options"]: {name["id"]: name["value"] for name in one["properties"]}
            for one in panel["fieldConfig"]["overrides"]
            if one["matcher"]["id"] == "byName"
        }

    def axes(self, left, top, right, bottom):
        """Within the panel, margins in pixels."""
        x, y, width, height = self.place
        full_width, full_height = self.figure.get_size_inches() * DPI
        place = [(x + left) / full_width, 1 - (y + height - bottom) / full_height]
        return self.figure.add_axes([*place, (width - left - right) / full_width, (height - top - bottom) / full_height])

    def draw(self):
        x, y, width, height = self.place
        full_width, full_height = self.figure.get_size_inches() * DPI
        self.figure.add_artist(
            FancyBboxPatch(
                (x / full_width, 1 - (y + height) / full_height), width / full_width, height / full_height,
                boxstyle="square,pad=0", facecolor=CARD, edgecolor=EDGE, linewidth=0.7, zorder=-1,
            )
        )
        title = cut(self.panel["title"], (width - 16) / 1.1, 8)
        self.figure.text((x + 8) / full_width, 1 - (y + 15) / full_height, title, size=8, weight="bold", color=INK, va="center")
        {"stat": self.number, "timeseries": self.lines, "bargauge": self.bars, "table": self.table}[self.panel["type"]]()

    def named(self, target, labels):
        legend = re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), target["legendFormat"]).strip()
        return self.overrides.get(legend, {}).get("displayName", legend), legend

    def found(self):
        """Name, the label's own word, times and values of every series."""
        for target in self.panel["targets"]:
            for labels, times, values in self.prometheus.series(target):
                yield *self.named(target, labels), times, values

    def colour(self, value):
        steps = self.defaults.get("thresholds", {}).get("steps")
        if not steps or math.isnan(value):
            return COLOURS["blue"]
        passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return COLOURS[passed[-1]]

    def number(self):
        axes = self.axes(0, 24, 0, 0)
        axes.axis("off")
        found = list(self.found())
        values = [value for value in (found[0][3] if found else []) if not math.isnan(value)]
        # Grafana shows the newest value; one that ends in nothing is idle.
        last = found[0][3][-1] if found else math.nan
        colour = self.colour(last)
        text = shown(last, self.unit)
        size = min(19, 19 * (self.place[2] - 20) / max(length(text, 19) * 1.1, 1))
        axes.text(0.5, 0.58, text, size=size, weight="bold", color=colour, ha="center", va="center", transform=axes.transAxes)
        if len(values) > 1:
            spark = self.axes(0, 24 + (self.place[3] - 24) * 0.62, 0, 1)
            spark.axis("off")
            spark.fill_between(range(len(values)), values, color=colour, alpha=0.15, linewidth=0)
            spark.plot(values, color=colour, linewidth=0.8)
            spark.set_xlim(0, len(values) - 1)
            spark.set_ylim(0, max(max(values) * 1.05, 1e-9))

    def lines(self):
        stacked = "stacking" in self.defaults["custom"]
        found = [one for one in self.found() if any(not math.isnan(value) for value in one[3])]
        # As Grafana's override says: words that never came up are left out of the legend.
        found.sort(key=lambda one: not any(one[3]))
        moving = [one for one in found if any(value for value in one[3] if not math.isnan(value))]
        legend_rows = self.legend([(name, word) for name, word, *_ in moving])
        axes = self.axes(54, 30, 14, 24 + 13 * legend_rows)
        base = {}
        for i, (_, word, times, values) in enumerate(found):
            colour = self.series_colour(word, i)
            if stacked:
                below = [base.get(at, 0) for at in times]
                above = [low + (0 if math.isnan(value) else value) for low, value in zip(below, values)]
                base.update(zip(times, above))
                axes.fill_between(times, below, above, color=colour, alpha=0.4, linewidth=0)
                values = above
            axes.plot(times, values, color=colour, linewidth=1)
        axes.set_xlim(self.prometheus.start, self.prometheus.end)
        low, high = axes.get_ylim()
        if "axisSoftMin" in self.defaults["custom"]:
            axes.set_ylim(min(0, low) if low < -1e-12 and min(min(v for v in one[3] if not math.isnan(v)) for one in found) < 0 else 0,
                          high if moving else 1)
        axes.set_yticks([at for at in axes.get_yticks() if axes.get_ylim()[0] <= at <= axes.get_ylim()[1]][:: 1])
        if len(axes.get_yticks()) > 6:
            axes.set_yticks(axes.get_yticks()[::2])
        axes.set_yticklabels([shown(at, self.unit, 2) if self.unit != "none" else number(at) for at in axes.get_yticks()])
        ticks = [self.prometheus.start + (self.prometheus.end - self.prometheus.start) * part for part in (0.1, 0.5, 0.9)]
        axes.set_xticks(ticks, [datetime.datetime.fromtimestamp(at).strftime("%H:%M:%S") for at in ticks])
        axes.tick_params(labelsize=6, colors=FAINT, length=0, pad=2)
        axes.grid(color=EDGE, linewidth=0.5)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)

    def series_colour(self, word, i):
        return TRIAGE.get(word, SERIES[i % len(SERIES)])

    def legend(self, names):
        """At the lower edge; gives how many rows it took. What does not fit is counted."""
        x, y, width, height = self.place
        full_width, full_height = self.figure.get_size_inches() * DPI
        rows, at = [[]], 10
        for i, (name, word) in enumerate(names):
            needs = 18 + length(name, 6.5)
            if at + needs > width - 8 and rows[-1]:
                if len(rows) == 2:
                    rows[-1].append((at, f"+{len(names) - i}", None))
                    break
                rows.append([])
                at = 10
            rows[-1].append((at, name, self.series_colour(word, i)))
            at += needs + 4
        for number_of_row, row in enumerate(rows):
            line = 1 - (y + height - 9 - 13 * (len(rows) - 1 - number_of_row)) / full_height
            for at, name, colour in row:
                if colour:
                    mark = Rectangle(((x + at) / full_width, line - 1.2 / full_height), 9 / full_width, 2.4 / full_height)
                    mark.set(facecolor=colour, edgecolor="none")
                    self.figure.add_artist(mark)
                self.figure.text((x + at + 12) / full_width, line, cut(name, width - 30, 6.5), size=6.5, color=INK, va="center")
        return len(rows)

    def bars(self):
        bars = [(name, word, values[-1]) for name, word, _, values in self.found() if not math.isnan(values[-1])]
        longest = max((length(name, 7) for name, *_ in bars), default=0)
        left = min(16 + longest, self.place[2] * 0.5)
        axes = self.axes(left, 30, 56, 8)
        room = max(1, int((self.place[3] - 38) / 15))
        bars = bars[:room]
        most = max([value for *_, value in bars] + [1e-9])
        for i, (name, word, value) in enumerate(bars):
            axes.barh(i, most, color=PAPER, height=0.7)
            axes.barh(i, value, color=TRIAGE.get(word, self.colour(value)), height=0.7)
            beside = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(shown(value, self.unit), (most, i), size=7, weight="bold", color=INK, **beside)
        axes.set_yticks(range(len(bars)), [cut(name, left - 10, 7) for name, *_ in bars])
        axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)
        axes.set_xlim(0, most)
        axes.tick_params(labelsize=7, colors=INK, length=0)
        axes.xaxis.set_visible(False)
        for side in axes.spines.values():
            side.set_visible(False)

    def table(self):
        """What `merge` and `organize` make of it: a line for each set of labels."""
        organized = next(one["options"] for one in self.panel["transformations"] if one["id"] == "organize")
        titles, order = organized["renameByName"], organized["indexByName"]
        columns = sorted(order, key=order.get)
        lines = {}
        targets = self.panel["targets"]
        for target in targets:
            value = "Value" if len(targets) == 1 else f"Value #{target['refId']}"
            for labels, _, values in self.prometheus.series(target):
                key = tuple(sorted(labels.items()))
                lines.setdefault(key, dict(labels))[value] = values[-1]
        axes = self.axes(10, 28, 8, 6)
        axes.axis("off")
        height = self.place[3] - 34
        room = max(1, int(height / 16) - 1)
        rows = list(lines.values())[:room]
        cells = [[self.cell(titles[column], row.get(column)) for column in columns] for row in rows]
        widths = [max(length(text, 7) for text in [titles[column]] + [row[i] for row in cells]) * 1.1 + 12 for i, column in enumerate(columns)]
        at = [sum(widths[:i]) / sum(widths) for i in range(len(widths))]
        for i, column in enumerate(columns):
            right = column.startswith("Value")
            edge = at[i] + (widths[i] - 6) / sum(widths) if right else at[i]
            for row, text in enumerate([titles[column]] + [row[i] for row in cells]):
                place = 1 - (row + 0.5) * 16 / height
                size = min(7, 7 * (self.place[2] - 18) / sum(widths))
                style = {"color": COLOURS["blue"], "weight": "bold"} if row == 0 else {"color": INK}
                axes.text(edge, place, text, size=size, ha="right" if right else "left", va="center", transform=axes.transAxes, **style)
        for row in range(len(cells)):
            axes.axhline(1 - (row + 1) * 16 / height, color=EDGE, linewidth=0.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    def cell(self, title, value):
        override = self.overrides.get(title, {})
        for mapping in override.get("mappings", []):
            key = number(value) if isinstance(value, float) and not math.isnan(value) else value
            if key in mapping["options"]:
                return mapping["options"][key]["text"]
        if isinstance(value, float):
            return shown(value, override.get("unit", self.unit))
        return value or ""


def length(text, size):
    """In pixels."""
    return TextPath((0, 0), text, size=size).get_extents().width * DPI / 72 if text.strip() else 0


def cut(text, width, size):
    if length(text, size) <= width:
        return text
    while text and length(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def draw(board, prometheus):
    panels = board["panels"]
    units = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * COLUMN + 8, HEADER + units * UNIT + 8
    figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    figure.text(12 / width, 1 - HEADER / 2 / height, board["title"], size=12, weight="bold", color=INK, va="center")
    for panel in panels:
        place = panel["gridPos"]
        x, y = 4 + place["x"] * COLUMN, HEADER + place["y"] * UNIT
        if panel["type"] == "row":
            figure.text((x + 8) / width, 1 - (y + UNIT / 2) / height, panel["title"], size=9, color=INK, va="center")
        else:
            box = (x + 3, y + 3, place["w"] * COLUMN - 6, place["h"] * UNIT - 6)
            Panel(figure, box, panel, prometheus).draw()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI, facecolor=PAPER)
    plt.close(figure)
    # Few colours, so small enough for a repository.
    return Image.open(picture).convert("RGB").quantize(255, dither=Image.Dither.NONE)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--prometheus", required=True, metavar="URL")
    arguments.add_argument("--out", type=pathlib.Path, default=HERE.parent / "docs/images")
    arguments.add_argument("--minutes", type=int, default=10, help="how much of the past is drawn")
    arguments.add_argument("--namespace", help="default: the first that Prometheus knows")
    arguments.add_argument("boards", nargs="*", help="names of files in grafana/dashboards; default: all")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(given.prometheus, given.minutes, given.namespace)
    for file in sorted((HERE / "dashboards").glob("*.json")):
        if given.boards and file.stem not in given.boards:
            continue
        target = given.out / f"{file.stem}.png"
        draw(json.loads(file.read_text()), prometheus).save(target, optimize=True)
        print(f"{target}: {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
