"""The HTML page of a report: one file that needs no network and is readable on a phone and on paper."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CSS = """
:root { color-scheme: light; --ink: #1c2330; --soft: #5b6575; --line: #d9dee7; --accent: #4269d0; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p, li { max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { border-left: 4px solid var(--accent); padding: .2rem 1rem; background: #f4f6fb; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .8rem 0; }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
th, td.number { overflow-wrap: normal; }
tr.baseline td { color: var(--soft); }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; display: block; }
.panels { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; align-items: start; }
.panels img { width: 100%; }
@media (max-width: 40rem) {
  .panels { grid-template-columns: 1fr; }
  thead { display: none; }
  table, tbody, tr, td { display: block; }
  tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: .1rem 0; display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  td::before { content: attr(data-label); color: var(--soft); flex: none; }
}
"""


@dataclass(frozen=True)
class Panel:
    """One panel of a plot.

    Attributes:
        png: the image file.
        title: title of the panel; "" if it is the only one.
    """

    png: bytes
    title: str


def page(title: str, body: Sequence[str]) -> str:
    """An HTML document.

    Args:
        title: text of the title.
        body: HTML elements.
    """
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,"><style>{CSS}</style></head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"
    )


def heading(level: int, text: str) -> str:
    """A heading of level 1 to 6."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is its CSS class."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def verdict_box(sentences: Sequence[str]) -> str:
    """A box of sentences; the text before the first colon of each sentence is bold."""
    parts = [sentence.partition(": ") for sentence in sentences]
    lines = (f"<p><strong>{escape(claim)}</strong>{colon}{escape(rest)}</p>" for claim, colon, rest in parts)
    return '<div class="verdict">' + "".join(lines) + "</div>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], dim: Sequence[bool] = ()) -> str:
    """A table whose rows become cards on a narrow screen.

    Args:
        header: names of the columns.
        rows: texts of the cells.
        dim: for each row, whether it is a baseline, which is shown in grey.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = []
    for i, row in enumerate(rows):
        kind = ' class="baseline"' if i < len(dim) and dim[i] else ""
        cells = "".join(
            f'<td data-label="{escape(name)}"{_kind(cell)}><span>{escape(cell)}</span></td>'
            for name, cell in zip(header, row, strict=True)
        )
        lines.append(f"<tr{kind}>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _kind(cell: str) -> str:
    """Attribute of a cell: numbers are never wrapped; long names may be, so that the page fits a narrow screen."""
    return ' class="number"' if re.fullmatch(r"-|-?[0-9.]+.*", cell) else ""


def figure(panels: Sequence[Panel], alt: str, caption: str) -> str:
    """A plot with two panels in a row, or one on a narrow screen.

    Args:
        panels: the panels of the plot.
        alt: alternative text of the first panel; the other panels refer to it with their titles.
        caption: explanation of the plot.
    """
    images = []
    for i, panel in enumerate(panels):
        text = alt if i == 0 else f"The same of {panel.title}."
        data = base64.b64encode(panel.png).decode()
        images.append(f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">')
    kind = ' class="panels"' if len(panels) > 1 else ""
    return f"<figure><div{kind}>{''.join(images)}</div><figcaption>{escape(caption)}</figcaption></figure>"
