"""A document of few kinds of blocks, written as Markdown or as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """The first column is text, the others are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Image:
    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class Code:
    text: str
    language: str = ""


Block = Heading | Paragraph | Bullets | Table | Image | Code


def to_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text, strong):
            return f"**{_flat(text)}**" if strong else _escaped(text)
        case Bullets(items):
            return "\n".join(f"- {_escaped(item)}" for item in items)
        case Table(columns, rows):
            rule = ["---", *["---:"] * (len(columns) - 1)]
            lines = [columns, rule, *([_cell(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Image(file, caption):
            return f"![{caption}]({file})"
        case Code(text, language):
            return f"```{language}\n{text}\n```"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """What a model wrote must not become markup."""
    return re.sub(r"([\\`*_<>\[\]$])", r"\\\1", _flat(text))


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } pre { overflow-x: auto; background: #f4f4f4; padding: 1rem }
.strong { font-weight: 600; font-size: 1.1rem }
"""


def to_html(blocks: Sequence[Block], *, title: str, folder: Path) -> str:
    """Images are read from `folder` and become part of the page."""
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text, strong):
            mark = ' class="strong"' if strong else ""
            return f"<p{mark}>{html.escape(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
        case Table(columns, rows):
            head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
            lines = "".join(
                f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
                for row in rows
            )
            return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
        case Image(file, caption):
            data = base64.b64encode((folder / file).read_bytes()).decode()
            return f'<img src="data:image/png;base64,{data}" alt="{html.escape(caption)}">'
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
