"""What mkdocs needs beside the pages: parts of the project outside docs/, and formulas.

The pages are plain Markdown, and link to files as a code host shows them: ../FORMAT.md,
../examples/streaming.py, ../assets/pictures/.... For the site FORMAT.md, CHANGELOG.md and the
examples become pages, and pictures are copied. Links to any other file of the project lose their
target there, since nobody knows where the project is hosted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
# No name that differs by case alone.
PAGES = {"FORMAT.md": "specification.md", "CHANGELOG.md": "changes.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
FUNCTION = re.compile(
    r"(<m[io]>(?:log|ln|exp|tanh|tan)</m[io]>)(?=<mi>|<mn>|<msub>|<mfrac>|<mrow>)"
)
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.S)


def on_files(files: Files, config: Any) -> Files:
    """Adds what lies outside docs/."""
    for name, place in PAGES.items():
        files.append(
            File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8"))
        )
    for path in sorted((ROOT / "examples").glob("*.*")):
        if path.suffix in (".py", ".ipynb"):
            files.append(File.generated(config, f"examples/{path.stem}.md", content=_as_page(path)))
    for path in sorted((ROOT / "assets/pictures").iterdir()):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turns links out of docs/ into links within the site."""
    folder = (ROOT / "docs" / page.file.src_uri).parent
    if page.file.src_uri in PAGES.values():
        folder = ROOT

    def replaced(match: re.Match[str]) -> str:
        mark, text, target, anchor = match.groups()
        path = (folder / target).resolve()
        if "://" in target or not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "docs"):
            return match[0]
        inside = _place(path.relative_to(ROOT).as_posix())
        if inside is None or files.get_file_from_path(inside) is None:
            return match[0] if mark else text
        relative = os.path.relpath(inside, Path(page.file.src_uri).parent).replace(os.sep, "/")
        return f"{mark}[{text}]({relative}{anchor or ''})"

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(replaced, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(replaced, markdown[end:])])


def on_page_content(html: str, **_: Any) -> str:
    """Formulas become MathML, which browsers draw themselves.

    No script is needed, and nothing fetched from elsewhere.
    """

    def drawn(match: re.Match[str]) -> str:
        source = match[2].strip()
        block = source.startswith("\\[")
        latex = re.sub(
            r"&(amp|lt|gt);", lambda m: {"amp": "&", "lt": "<", "gt": ">"}[m[1]], source[2:-2]
        )
        drawing = str(convert(latex, display="block" if block else "inline"))
        if "\\" in drawing:
            raise PluginError(f"a formula with a command that is not known: {latex}")
        return FUNCTION.sub(r'\1<mspace width="0.17em"/>', drawing)

    return FORMULA.sub(drawn, html)


def _place(path: str) -> str | None:
    """Where a file of the project stands in the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("assets/pictures/"):
        return path.removeprefix("assets/")
    if path.startswith("examples/"):
        return f"{path.rpartition('.')[0]}.md"
    return None


def _as_page(path: Path) -> str:
    """A script or a notebook as a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return f"# {path.name}\n\n```python\n{text}```\n"
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(parts) + "\n"
