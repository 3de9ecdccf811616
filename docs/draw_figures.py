"""Draws the figures of the documentation: `python docs/draw_figures.py` writes docs/figures/*.svg, and a test compares.

A figure is a list of boxes on a grid and of arrows between them.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "figures"
COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 132, 76, 108, 44, 16
FILLS = {"data": "#eef2f7", "module": "#dbe9d8", "trained": "#cfe0f5", "loss": "#f6ddcf", "copy": "#ece4f5"}
INK = "#263238"


class Box(NamedTuple):
    """Text (lines separated by a line break) at a column and row of the grid, which may be fractions."""

    column: float
    row: float
    text: str
    kind: str = "module"

    @property
    def centre(self) -> tuple[float, float]:
        return MARGIN + self.column * COLUMN + WIDTH / 2, MARGIN + self.row * ROW + HEIGHT / 2


class Arrow(NamedTuple):
    """From one box to another, by their texts; dashed for what carries no gradient."""

    start: str
    end: str
    label: str = ""
    dashed: bool = False


def svg(title: str, boxes: list[Box], arrows: list[Arrow]) -> str:
    """The figure as SVG text."""
    at = {box.text: box for box in boxes}
    assert len(at) == len(boxes), "boxes are named by their texts"
    width = max(box.centre[0] for box in boxes) + WIDTH / 2 + MARGIN
    height = max(box.centre[1] for box in boxes) + HEIGHT / 2 + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f"<title>{title}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    parts += [_arrow(at[arrow.start], at[arrow.end], arrow) for arrow in arrows]
    parts += [_box(box) for box in boxes]
    return "\n".join([*parts, "</svg>", ""])


def _box(box: Box) -> str:
    x, y = box.centre
    lines = box.text.replace("&", "&amp;").replace("<", "&lt;").split("\n")
    first = y + 4 - 7.5 * (len(lines) - 1)
    words = "".join(f'<tspan x="{x:g}" y="{first + 15 * i:g}">{line}</tspan>' for i, line in enumerate(lines))
    return (
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="{FILLS[box.kind]}" stroke="{INK}"/><text text-anchor="middle">{words}</text>'
    )


def _arrow(start: Box, end: Box, arrow: Arrow) -> str:
    """A line from edge to edge: sideways where the columns differ, else up or down."""
    (x1, y1), (x2, y2) = start.centre, end.centre
    if abs(x2 - x1) >= WIDTH:
        side = 1 if x2 > x1 else -1
        x1, x2 = x1 + side * WIDTH / 2, x2 - side * WIDTH / 2
    else:
        side = 1 if y2 > y1 else -1
        y1, y2 = y1 + side * HEIGHT / 2, y2 - side * HEIGHT / 2
    dash = ' stroke-dasharray="4 3"' if arrow.dashed else ""
    line = f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" fill="none" stroke="{INK}"{dash} marker-end="url(#tip)"/>'
    if not arrow.label:
        return line
    upright = x1 == x2
    x, y = (x1 + x2) / 2 + (6 if upright else 0), (y1 + y2) / 2 + (4 if upright else -6)
    anchor = "start" if upright else "middle"
    return f'{line}<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="11">{arrow.label}</text>'


def pipeline() -> str:
    """Two views of a recording through one network."""
    boxes = [Box(0, 0.7, "recording", "data")]
    arrows = []
    for row, n in ((0, 1), (1.4, 2)):
        names = [f"view {n}\n(random part)", f"augmentation {n}", f"frontend {n}", f"encoder {n}", f"projection {n}"]
        kinds = ["data", "module", "module", "trained", "trained"]
        boxes += [Box(i + 1, row, name, kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True))]
        arrows += [Arrow("recording", names[0]), *(Arrow(a, b) for a, b in itertools.pairwise(names))]
        arrows.append(Arrow(names[-1], "loss"))
    arrows += [Arrow("encoder 1", "encoder 2", "same weights", True), Arrow("projection 1", "projection 2", "", True)]
    return svg("Training on two views of each recording", [*boxes, Box(6, 0.7, "loss", "loss")], arrows)


def byol() -> str:
    """The online network predicts what the moving average of itself makes of the other view."""
    online = ["view 1", "encoder", "projection", "predictor"]
    target = ["view 2", "encoder\n(target)", "projection\n(target)", "stop\ngradient"]
    boxes = [Box(i, 0, name, "data" if i == 0 else "trained") for i, name in enumerate(online)]
    boxes += [Box(i, 1.4, name, "data" if i == 0 else "copy") for i, name in enumerate(target)]
    arrows = [Arrow(a, b) for a, b in itertools.pairwise(online)]
    arrows += [Arrow(a, b, dashed=True) for a, b in itertools.pairwise(target)]
    arrows += [Arrow("encoder", "encoder\n(target)", "moving average", True)]
    arrows += [Arrow("projection", "projection\n(target)", "moving average", True)]
    arrows += [Arrow("predictor", "distance"), Arrow("stop\ngradient", "distance", dashed=True)]
    return svg("BYOL: both views take both places", [*boxes, Box(4, 0.7, "distance", "loss")], arrows)


def paths() -> str:
    """What training does and what a finished model does, step by step."""
    training = ["folder", "data index", "two views", "augmentation", "frontend", "encoder", "projection", "loss"]
    inference = ["file", "segments", "frontend ", "encoder ", "embedding", "scores, probe,\nindex, export"]
    places = [0, 1, 4, 5, 6, 7]
    kinds = {"encoder": "trained", "encoder ": "trained", "projection": "trained", "loss": "loss", "embedding": "loss"}
    data = {"folder", "data index", "two views", "file", "segments"}
    boxes = [Box(i, 0, name, "data" if name in data else kinds.get(name, "module")) for i, name in enumerate(training)]
    boxes += [
        Box(place, 1.2, name, "data" if name in data else kinds.get(name, "module"))
        for place, name in zip(places, inference, strict=True)
    ]
    arrows = [Arrow(a, b) for row in (training, inference) for a, b in itertools.pairwise(row)]
    arrows += [Arrow("frontend", "frontend ", "saved", True), Arrow("encoder", "encoder ", "saved", True)]
    return svg("The two paths: training above, inference below", boxes, arrows)


FIGURES = {"pipeline": pipeline, "byol": byol, "paths": paths}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")
