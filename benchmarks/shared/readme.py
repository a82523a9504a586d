"""Put figures of benchmarks/results into README.rst: ``python -m benchmarks.shared.readme``."""

import csv
from pathlib import Path

from benchmarks.shared.harness import RESULTS

README = Path(__file__).resolve().parents[2] / "README.rst"
START, END = ".. measured: written by python -m benchmarks.shared.readme\n", ".. end\n"

# Benchmark, task in its table (None: the only one), method, what the README calls it.
ROWS = (
    ("waves", "5 parabolas, random, n=1000", "skpou, 10, 2", "5 parabolas, 1-D, 1000 points"),
    ("curved_ridge", "n=2500", "skpou, 8, 4", "5 curved pieces, 2-D, 2500 points"),
    ("curved_ridge", "n=2500, noise 1e-2", "skpou, 8, 4", "the same with 1 % noise"),
    ("four_dimensions", "n=2500", "skpou, 4, 2", "2 pieces, 4-D, 2500 points"),
    ("diode", None, "skpou, (4, 2), 4", "diode, 600 points"),
)
COLUMNS = ("task", "skpou: error", "fit (s)", "best other: error", "fit (s)", "which")


def figures(row):
    return row.get("worst error") or row["l2 error"], row["fit (s)"]


def table():
    lines = [".. list-table::", "   :header-rows: 1", ""]

    rows = []
    for name, task, method, title in ROWS:
        path = RESULTS / f"{name}.csv"
        with open(path, encoding="utf-8") as file:
            found = [row for row in csv.DictReader(file) if task in (None, row.get("task"))]
        ours = next(row for row in found if row["method"] == method)
        others = [row for row in found if not row["method"].startswith(("skpou", "oracle"))]
        best = min(others, key=lambda row: float(figures(row)[0]))
        rows.append((title, *figures(ours), *figures(best), best["method"]))
    for cells in (COLUMNS, *rows):
        first, *rest = cells
        lines.append(f"   * - {first}")
        lines.extend(f"     - {cell}" for cell in rest)
    return "\n".join(lines)


def main():
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END, 1)[1]
    README.write_text(f"{before}{START}\n{table()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
