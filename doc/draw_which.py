"""Draw which estimator is for what, with links: ``python doc/draw_which.py`` writes ``which.svg``.

conf.py calls it, too. The front page holds the figure in its own text, where the links work.
"""

from html import escape
from pathlib import Path

FILE = Path(__file__).resolve().parent / "_static" / "which.svg"
#: What one has or wants, the estimators for it, and the page of the guide.
ROWS = (
    ("regimes, kinks, jumps, phases", ["HierarchicalPOURegressor"], "pieces"),
    ("exactly so many pieces", ["POURegressor"], "pieces"),
    ("a smooth curve or surface", ["MultiStageRegressor"], "curve"),
    ("steep fronts, peaks; a network", ["LSGDRegressor"], "curve"),
    ("a noisy table, effects to read", ["AdditivePOURegressor"], "table"),
    ("some columns, very many rows", ["SparseGridRegressor"], "many_rows"),
    ("images, or many columns", ["NeuralSparseGridRegressor"], "classes"),
    ("classes", ["LSGDClassifier", "SparseGridClassifier"], "classes"),
    ("a target over many decades", ["TransformedRegressor"], "bars"),
)
EQUATIONS = "an equation that holds"
#: Sizes in pixels.
WIDTH, LEFT, ROW, GAP, LETTERS = 560, 232, 30, 12, 14


def box(x, y, width, height, text, style, link=None):
    """A rounded box with a line of text, as a link where an address is given."""
    shape = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" class="{style}"/>'
        f'<text x="{x + width / 2}" y="{y + height / 2 + LETTERS * 0.35}" '
        f'text-anchor="middle">{escape(text)}</text>'
    )
    return f'<a href="{link}">{shape}</a>' if link else shape


def arrow(x, y, end):
    return f'<path d="M{x} {y} H{end - 6}" class="line" marker-end="url(#tip)"/>'


def figure():
    """The SVG as a string."""
    right, width = LEFT + 56, WIDTH - LEFT - 57
    parts = [
        box(1, 1, LEFT, 42, "not sure, or no time", "case", "guide/start.html"),
        box(right, 1, width, 42, "AutoRegressor", "first", "generated/skpou.AutoRegressor.html"),
        arrow(LEFT + 2, 22, right),
        '<text x="1" y="68" class="note">You know what is in the data, or want to see it:</text>',
    ]
    y = 80
    for case, classes, page in (*ROWS, (EQUATIONS, None, "equations")):
        height, page = ROW * len(classes or [1]), f"guide/{page}.html"
        parts.append(box(1, y, LEFT, height, case, "case", page))
        parts.append(arrow(LEFT + 2, y + height / 2, right))
        if classes is None:
            parts.append(
                box(right, y, width, height, "physics=… of three regressors", "class", page)
            )
        else:
            each = height / len(classes)
            for k, name in enumerate(classes):
                link = f"generated/skpou.{name}.html"
                parts.append(box(right, y + k * each, width, each - 2, name, "class", link))
        y += height + GAP
    style = (
        f"text{{font:{LETTERS}px sans-serif;fill:#1b2733}} .note{{fill:#667}} "
        ".case{fill:#eceff1;stroke:#90a4ae} .class{fill:#dbe9f6;stroke:#2f6ca3} "
        ".first{fill:#fdebd0;stroke:#b9770e} .line{stroke:#546e7a;fill:none;stroke-width:1.5} "
        "a:hover rect{stroke-width:2.5}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" '
        f'aria-label="Which estimator for what" style="max-width:{WIDTH}px;width:100%">'
        f"<style>{style}</style>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#546e7a"/></marker></defs>'
        f'<rect width="{WIDTH}" height="{y}" fill="white"/>' + "".join(parts) + "</svg>\n"
    )


def draw_which():
    """Write the figure where it differs from what is there."""
    text = figure()
    if not FILE.exists() or FILE.read_text("utf-8") != text:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    draw_which()
