"""What a reader would type: the blocks and the inline commands of README and docs/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/runs/README.md"]
_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)
NEEDS = "# needs: "
"""How a block begins whose commands no test can run: what it takes."""


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    language: str
    text: str

    @property
    def needs(self) -> str | None:
        first, _, _ = self.text.partition("\n")
        return first.removeprefix(NEEDS) if first.startswith(NEEDS) else None

    @property
    def commands(self) -> list[str]:
        """Line by line, joined where one goes on, without comments."""
        joined = self.text.replace("\\\n", " ")
        bare = (re.sub(r"(?:^|\s+)#.*", "", line) for line in joined.splitlines())
        return [" ".join(line.split()) for line in bare if line.strip()]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(page, language, body) for language, body in _BLOCK.findall(text)]


def inline(page: Path) -> list[str]:
    """What stands between single backticks."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def session(page: Path) -> str:
    """The page's `bash` blocks, as one script."""
    return "\n".join(block.text for block in blocks(page) if block.language == "bash")
