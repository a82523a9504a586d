"""Draw the rooms of the package, and the folders within them, from the rules that the tests hold.

``python doc/draw_house.py`` writes ``house.svg`` and ``rooms.svg`` into ``doc/_static``. conf.py
calls it, too: a figure that belongs to other rules, or to another script, is drawn anew.
"""

import ast
import functools
import hashlib
import itertools
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "doc" / "_static"
RULES = ROOT / "tests" / "test_layers.py"
#: Rooms that are folders and for users; modules beside the rooms are, too.
PUBLIC = {"datasets", "export", "inspection"}
#: Fill and line of a box.
COLOURS = {
    "estimators": ("#dbe9f6", "#2f6ca3"),
    "for users": ("#fdebd0", "#b9770e"),
    "shared": ("#eceff1", "#607d8b"),
}
LABELS = {
    "estimators": "estimators",
    "for users": "modules for users",
    "shared": "shared by several rooms",
}
ARROW = "#546e7a"
#: Sizes in pixels of a figure that is 800 wide: a letter, the gap between boxes, a port.
LETTER, GAP, PORT = 7.4, 20.0, 15.0
#: Starts of the search for an order with few crossings, and how many of its results are placed.
STARTS, PLACED = 400, 12


def rules():
    """ALLOWED and WITHIN of tests/test_layers.py, which need not be imported: they are literals."""
    wanted = {}
    for node in ast.parse(RULES.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ("ALLOWED", "WITHIN"):
            wanted[node.targets[0].id] = ast.literal_eval(node.value)
    return wanted["ALLOWED"], wanted["WITHIN"]


@functools.cache
def estimator_rooms():
    """Rooms that skpou/__init__.py takes estimators from."""
    tree = ast.parse((ROOT / "skpou" / "__init__.py").read_text("utf-8"))
    froms = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return {module.split(".")[1] for module in froms if module.startswith("skpou.")}


def kind_of(room):
    """Which colour a room has."""
    if room in estimator_rooms():
        return "estimators"
    folder = ROOT / "skpou" / room
    return "for users" if room in PUBLIC or not folder.is_dir() else "shared"


def reduced(graph):
    """Edges without those that a longer way replaces: the transitive reduction, without circles."""

    def reach(node):
        return set().union(*({other} | reach(other) for other in graph[node]), set())

    return {
        node: sorted(
            other for other in others if not any(other in reach(via) for via in others - {other})
        )
        for node, others in graph.items()
    }


class Layers:
    """Boxes of a graph in layers by the longest way down, with few crossings of the arrows.

    Parameters
    ----------
    graph : dict of set
        Node -> nodes below it.
    labels : dict of str
        Text of each box; lines are separated by newlines.
    """

    def __init__(self, graph, labels):
        self.edges = reduced(graph)
        self.labels = labels
        depth = {}

        def visit(node):
            if node not in depth:
                depth[node] = max((visit(other) + 1 for other in graph[node]), default=0)
            return depth[node]

        for node in graph:
            visit(node)
        # An arrow over several layers runs through a point in each of them.
        self.layer, self.ways = dict(depth), []
        for node, others in self.edges.items():
            for other in others:
                between = [(node, other, k) for k in range(depth[node] - 1, depth[other], -1)]
                self.layer.update({point: point[2] for point in between})
                self.ways.append([node, *between, other])
        self.segments = [pair for way in self.ways for pair in itertools.pairwise(way)]
        self.neighbours = defaultdict(list)
        for a, b in self.segments:
            self.neighbours[a].append(b)
            self.neighbours[b].append(a)
        self.width = {node: self._width(node) for node in self.layer}
        self.x = self._best()

    def _width(self, node):
        if node not in self.labels:
            return 4.0
        text = max(len(line) for line in self.labels[node].split("\n"))
        ports = max(
            sum(way[0] == node for way in self.ways), sum(way[-1] == node for way in self.ways)
        )
        return max(LETTER * text + 16, PORT * ports + 12)

    def _ordered(self, rng):
        """Nodes of each layer in an order from barycentres, after a random start."""
        rows = defaultdict(list)
        for node in sorted(self.layer, key=str):
            rows[self.layer[node]].append(node)
        for row in rows.values():
            rng.shuffle(row)
        for sweep in range(8):
            place = {n: i - len(row) / 2 for row in rows.values() for i, n in enumerate(row)}
            for k in sorted(rows, reverse=sweep % 2):
                for node in rows[k]:
                    ends = [place[o] for o in self.neighbours[node]]
                    place[node] = np.mean(ends) if ends else place[node]
                rows[k].sort(key=place.get)
                place.update({n: i - len(rows[k]) / 2 for i, n in enumerate(rows[k])})
        return [rows[k] for k in sorted(rows)]

    def _crossings(self, rows):
        place = {node: i for row in rows for i, node in enumerate(row)}
        ends = [(self.layer[a], place[a], place[b]) for a, b in self.segments]
        return sum(
            k == other and (a - c) * (b - d) < 0
            for (k, a, b), (other, c, d) in itertools.combinations(ends, 2)
        )

    def _placed(self, rows):
        """Positions with short arrows, those over several layers straight; and their cost."""
        nodes = [node for row in rows for node in row]
        number = {node: i for i, node in enumerate(nodes)}
        a, b = np.array([[number[m], number[n]] for m, n in self.segments]).T
        weight = np.array([1.0 + 3 * sum(n not in self.labels for n in s) for s in self.segments])
        pairs = [pair for row in rows for pair in itertools.pairwise(row)]
        right = [number[n] for _, n in pairs]
        left = [number[m] for m, _ in pairs]
        least = np.array([GAP + (self.width[m] + self.width[n]) / 2 for m, n in pairs])

        def cost(x):
            gap = x[a] - x[b]
            slope = np.zeros_like(x)
            np.add.at(slope, a, 2 * weight * gap)
            np.add.at(slope, b, -2 * weight * gap)
            return weight @ gap**2 + 1e-3 * x @ x, slope + 2e-3 * x

        start = np.concatenate(
            [
                np.cumsum([self.width[n] + GAP for n in row])
                - sum(self.width[n] + GAP for n in row) / 2
                for row in rows
            ]
        )
        jacobian = np.zeros((len(pairs), len(nodes)))
        jacobian[range(len(pairs)), right] = 1
        jacobian[range(len(pairs)), left] = -1
        apart = {
            "type": "ineq",
            "fun": lambda x: x[right] - x[left] - least,
            "jac": lambda x: jacobian,
        }
        found = minimize(cost, start, jac=True, constraints=apart if pairs else (), method="SLSQP")
        return found.fun, dict(zip(nodes, found.x))

    def _best(self):
        rng = random.Random(0)
        orders = {tuple(map(tuple, self._ordered(rng))) for _ in range(STARTS)}
        ranked = sorted(orders, key=lambda rows: (self._crossings(rows), str(rows)))
        fewest = self._crossings(ranked[0])
        good = [rows for rows in ranked if self._crossings(rows) == fewest][:PLACED]
        return min((self._placed(rows) for rows in good), key=lambda placed: placed[0])[1]

    def ports(self):
        """Where each way leaves its first box and meets its last one."""
        ends = {}
        for end, beside in ((0, 1), (-1, -2)):
            for node in self.labels:
                ways = [i for i, way in enumerate(self.ways) if way[end] == node]
                ways.sort(key=lambda i: self.x[self.ways[i][beside]])
                step = min(PORT * 1.6, (self.width[node] - 12) / max(len(ways), 1))
                for j, i in enumerate(ways):
                    ends[i, end] = self.x[node] + step * (j - (len(ways) - 1) / 2)
        return ends

    def draw(self, axes, colours, height, pitch):
        """Boxes and arrows; the lowest layer at 0, `height` of a box, `pitch` of a layer."""
        from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
        from matplotlib.path import Path as Curve

        ends = self.ports()
        for i, way in enumerate(self.ways):
            x = [ends[i, 0], *(self.x[point] for point in way[1:-1]), ends[i, -1]]
            y = [pitch * self.layer[point] for point in way]
            y[0], y[-1] = y[0] - height / 2, y[-1] + height / 2
            points, codes = [(x[0], y[0])], [Curve.MOVETO]
            for (x0, y0), (x1, y1) in itertools.pairwise(zip(x, y)):
                # Level with the boxes of a layer an arrow runs straight down between them.
                top = y0 if (x0, y0) == (x[0], y[0]) else y0 - height / 2
                end = y1 + 8 if (x1, y1) == (x[-1], y[-1]) else y1 + height / 2
                middle = (top + end) / 2
                points += [(x0, top), (x0, middle), (x1, middle), (x1, end), (x1, y1)]
                codes += [Curve.LINETO, *[Curve.CURVE4] * 3, Curve.LINETO]
            points[-1] = (x[-1], y[-1] + 6)
            line = {"facecolor": "none", "edgecolor": ARROW, "linewidth": 1.1, "zorder": 1}
            axes.add_patch(PathPatch(Curve(points, codes), **line))
            head = [(x[-1] + dx, y[-1] + dy) for dx, dy in ((0, 1), (-3.6, 9), (3.6, 9))]
            axes.add_patch(Polygon(head, facecolor=ARROW, zorder=1))
        for node, label in self.labels.items():
            width, y = self.width[node], pitch * self.layer[node]
            fill, line = colours[node]
            axes.add_patch(
                FancyBboxPatch(
                    (self.x[node] - width / 2 + 4, y - height / 2 + 4),
                    width - 8,
                    height - 8,
                    boxstyle="round,pad=4,rounding_size=5",
                    facecolor=fill,
                    edgecolor=line,
                    linewidth=1.3,
                    zorder=2,
                )
            )
            axes.text(
                self.x[node],
                y,
                label,
                ha="center",
                va="center",
                fontsize=9.3,
                zorder=3,
                color="#17242d",
                linespacing=1.25,
            )

    def span(self):
        """Left and right end of boxes and arrows."""
        return (
            min(self.x[n] - self.width[n] / 2 for n in self.layer),
            max(self.x[n] + self.width[n] / 2 for n in self.layer),
        )


def figure(width, height):
    """A figure and axes whose unit is a pixel, 100 to the inch."""
    from matplotlib.figure import Figure

    fig = Figure((width / 100, height / 100), facecolor="white")
    axes = fig.add_axes((0, 0, 1, 1))
    axes.axis("off")
    return fig, axes


def broken(name):
    """A name of three words or more on two lines."""
    first, *others = name.split("_")
    return f"{first}_\n{'_'.join(others)}" if len(others) > 1 else name


def draw_house(allowed):
    """The rooms."""
    graph = {room: {r for r in rooms if r[0] != "_"} for room, rooms in allowed.items()}
    graph = {room: rooms for room, rooms in graph.items() if room[0] != "_"}
    labels = {room: broken(room) for room in graph}
    layers = Layers(graph, labels)
    low, high = layers.span()
    n_layers = max(layers.layer.values()) + 1
    height, pitch, margin = 42, 96, 12
    width, tall = high - low + 2 * margin, pitch * (n_layers - 1) + height + 2 * margin + 26
    fig, axes = figure(width, tall)
    axes.set(xlim=(low - margin, high + margin), ylim=(-height / 2 - margin - 26, None))
    axes.set_ylim(top=axes.get_ylim()[0] + tall)
    layers.draw(axes, {room: COLOURS[kind_of(room)] for room in graph}, height, pitch)
    from matplotlib.patches import FancyBboxPatch

    x = low + 4
    for kind, (fill, line) in COLOURS.items():
        y = -height / 2 - 28
        axes.add_patch(
            FancyBboxPatch(
                (x, y - 5),
                14,
                10,
                boxstyle="round,pad=0,rounding_size=3",
                facecolor=fill,
                edgecolor=line,
                linewidth=1.1,
            )
        )
        axes.text(x + 21, y, LABELS[kind], va="center", fontsize=8.6, color="#17242d")
        x += 48 + 6.4 * len(LABELS[kind])
    return fig


def draw_rooms(within):
    """The folders of each room that has some."""
    parts = []
    for room, graph in within.items():
        labels = {f: "*.py" if f == "." else f"{f}/" for f in graph}
        parts.append((room, Layers(graph, labels)))
    height, pitch, margin, between, title = 30, 62, 12, 44, 44
    n_layers = max(max(layers.layer.values()) for _, layers in parts) + 1
    spans = [layers.span() for _, layers in parts]
    width = sum(b - a for a, b in spans) + between * (len(parts) - 1) + 2 * margin
    tall = pitch * (n_layers - 1) + height + 2 * margin + title
    fig, axes = figure(width, tall)
    axes.set(xlim=(-margin, width - margin), ylim=(-height / 2 - margin - title, None))
    axes.set_ylim(top=axes.get_ylim()[0] + tall)
    start = 0.0
    for (room, layers), (low, high) in zip(parts, spans):
        layers.x = {node: x - low + start for node, x in layers.x.items()}
        layers.draw(axes, dict.fromkeys(layers.labels, COLOURS[kind_of(room)]), height, pitch)
        axes.text(
            start + (high - low) / 2,
            -height / 2 - 8,
            broken(room),
            ha="center",
            va="top",
            fontsize=9.3,
            fontweight="bold",
            color="#17242d",
            linespacing=1.25,
        )
        start += high - low + between
    return fig


def stamp(allowed, within):
    """What the figures depend on: rules, colours, this script."""
    rules_in_order = [{room: sorted(allowed[room]) for room in sorted(allowed)}]
    for room in sorted(within):
        rules_in_order.append({part: sorted(within[room][part]) for part in sorted(within[room])})
    kinds = [kind_of(room) for room in sorted(allowed)]
    text = repr((rules_in_order, sorted(within), kinds)) + Path(__file__).read_text("utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def draw_where_old(folder=STATIC):
    """Draw the figures unless they belong to these rules and this script."""
    from matplotlib import rc_context

    allowed, within = rules()
    belongs = f"Rules {stamp(allowed, within)}"
    for name, draw, part in (("house", draw_house, allowed), ("rooms", draw_rooms, within)):
        path = folder / f"{name}.svg"
        if path.is_file() and belongs in path.read_text("utf-8"):
            continue
        metadata = {"Date": None, "Creator": None, "Description": belongs}
        with rc_context({"svg.hashsalt": "skpou", "font.family": "DejaVu Sans"}):
            draw(part).savefig(path, metadata=metadata)


if __name__ == "__main__":
    draw_where_old()
