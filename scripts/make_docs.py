"""Write docs/methods.md: every method with its strands and hyper-parameters, from the code itself."""

from __future__ import annotations

import sys
from pathlib import Path

from braid.methods.registry import catalogue, find_method
from braid.options import options_of

TARGET = Path(__file__).parent.parent / "docs" / "methods.md"


def methods_page() -> str:
    """The page as Markdown."""
    parts = ["# Methods", "", "Made by `make docs` from the method files; `braid show METHOD` prints the same.", ""]
    for slug, entry in catalogue().items():
        parts += [
            f"## {slug}",
            "",
            f"**{entry.title}**"
            + (f" ([arXiv {entry.arxiv}](https://arxiv.org/abs/{entry.arxiv}))" if entry.arxiv else ""),
        ]
        parts += ["", entry.summary, "", "| strand | |", "| --- | --- |"]
        parts += [f"| {name} | {_cell(text)} |" for name, text in entry.strands.items()]
        parts += ["", "| option | default | unit | what it is | source |", "| --- | --- | --- | --- | --- |"]
        for option in options_of(find_method(slug)):
            cells = (
                f"`--{option.name.replace('_', '-')}`",
                f"`{option.default}`",
                option.unit,
                option.help,
                option.source,
            )
            parts.append("| " + " | ".join(map(_cell, cells)) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    page = methods_page()
    if "--check" in sys.argv:
        sys.exit(
            0
            if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page
            else "docs/methods.md is stale: run make docs"
        )
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page, encoding="utf-8")
