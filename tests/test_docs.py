"""The manual and the README: every block of code runs as it stands there, links lead somewhere,
names are documented.

A block of sh, python or toml is run, in the order of its page, in a folder with a recording, a
picture and a folder of each. Two comments before a block change that:

    <!-- not run: REASON -->           for what needs a network, a GPU, another machine, or is no
                                       whole command
    <!-- run with: OLD => NEW; ... --> the same block with less work: a budget of steps instead of
                                       minutes, say

Lines of pip and make are checked against pyproject.toml and the Makefile instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import os
import re
import runpy
import shlex
import sys
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import ROOT, gradient, tones
from PIL import Image

import codec
from codec.losses import EXTRA_LOSSES
from train import recipe, recipes

MANUAL = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *MANUAL]
RUN = ("sh", "python", "toml")
SHOWN = ("text",)  # what a command prints, or a drawing
BLOCK = re.compile(r"(?:^<!-- (not run|run with): (.*?) -->\n+)?^```(\S*)\n(.*?)^```$", re.M | re.S)
SOURCES = [
    path for name in ("codec", "train", "eval", "app") for path in (ROOT / name).rglob("*.py")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is "", "not run" or "run with"."""

    mark: str
    note: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(*(part or "" for part in found))
        for found in BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --------------------------------------------------------------------------------------------------
# blocks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What a reader has: input.wav, photo.jpg, and a folder of recordings and one of pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("CODEC_DATA", str(tmp_path))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for kind in ("recordings", "pictures"):
        Path(kind).mkdir()
    for number in range(3):
        soundfile.write(f"recordings/{number}.wav", tones(16_000 + 960 * number), 16_000)
        Image.fromarray(gradient(72 + number, 96)).save(f"pictures/{number}.png")
    soundfile.write("input.wav", tones(8000), 16_000)
    Image.fromarray(gradient(40, 56)).save("photo.jpg")
    threads, rng = torch.get_num_threads(), torch.get_rng_state()
    losses = {medium: dict(extra) for medium, extra in EXTRA_LOSSES.items()}
    yield tmp_path
    for medium, extra in EXTRA_LOSSES.items():  # what a block registered goes
        extra.clear()
        extra.update(losses[medium])
    torch.set_num_threads(threads)
    torch.set_rng_state(rng)
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language in RUN for b in blocks(page))], ids=name
)
@pytest.mark.usefixtures("folder")
def test_blocks_run(page: Path) -> None:
    """All blocks of a page, one after another; Python blocks share their names."""
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.mark == "not run" or block.language not in RUN:
            continue
        text = block.text
        for change in block.note.split("; ") if block.mark == "run with" else ():
            old, new = change.split(" => ")
            assert old in text, f"{old!r} is not in the block that it changes"
            text = text.replace(old, new)
        if block.language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                run_line(line)
        elif block.language == "python":
            exec(compile(text, name(page), "exec"), names)
        else:
            Path("recipe.toml").write_text(text, encoding="utf-8")
            recipes.load("recipe.toml")
    if Path("restored.wav").exists():
        assert soundfile.info("restored.wav").frames == soundfile.info("input.wav").frames


def run_line(line: str) -> None:
    """One line of a shell block, in this process."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert not {"|", ">", "<", "&&", "&"} & set(words), f"{line}: needs a shell, so mark the block"
    if words[:2] == ["pip", "install"]:
        extras = re.findall(r"\.\[(.*)\]", words[2])
        assert len(words) == 3
        assert words[2] == "." or extras
        assert set(",".join(extras).split(",")) - {""} <= PROJECT["optional-dependencies"].keys(), (
            line
        )
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), (
            line
        )
    elif words[0] == "export":
        variable, _, value = words[1].partition("=")
        os.environ[variable] = value
    elif words[:2] == ["python", "-m"]:
        assert run_module(words[2], words[3:]) == 0, line
    else:
        assert words[0] == "python", f"{line}: not run by this test, so mark the block"
        assert run_script(Path(words[1]), words[2:]) == 0, line


def run_module(module: str, arguments: list[str]) -> int:
    """python -m MODULE, as its exit code."""
    # The thin files of commands are not imported: they would take the places of the functions of
    # their names.
    package, _, name = module.rpartition(".")
    if package == "codec" and (ROOT / f"codec/cli/{name}.py").is_file():
        command = getattr(importlib.import_module(f"codec.cli.{name}"), f"{name}_main")
    else:
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        package = spec.submodule_search_locations is not None
        try:
            command = importlib.import_module(f"{module}.__main__" if package else module).main
        except SystemExit as absent:  # CI has every extra: tests/test_eval.py looks
            pytest.skip(str(absent.code))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            return int((command(arguments) if module != "codec" else command()) or 0)
        except SystemExit as stop:
            return int(stop.code or 0)


def run_script(path: Path, arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
        return int(stop.value.code or 0)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A language that is run or shown; a reason where it is not run.

    There is no fence or mark that the pattern missed.
    """
    text, found = page.read_text(encoding="utf-8"), blocks(page)
    for block in found:
        assert block.language in RUN + SHOWN, f"```{block.language}: want one of {RUN + SHOWN}"
        assert block.mark != "not run" or len(block.note.split()) >= 3, (
            f"why is this not run: {block.note}"
        )
        assert not block.mark or block.language in RUN
    assert text.count("```") == 2 * len(found)
    assert len(re.findall("<!-- (?:not run|run with)", text)) == sum(
        bool(block.mark) for block in found
    )


def test_a_failing_line_is_noticed(folder: Path) -> None:
    """Negative controls: a command that fails, a script that does, an extra and a target that are
    not there.
    """
    (folder / "bad.py").write_text("import sys\nsys.exit(3)\n")
    for line in (
        "python -m codec.info missing.bin",
        "python bad.py",
        "pip install '.[nothing]'",
        "make nothing",
        "ls",
        "python -m codec.info a | cat",
    ):
        with pytest.raises(AssertionError):
            run_line(line)


# --------------------------------------------------------------------------------------------------
# links

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as code hosts and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M)
    seen: Counter[str] = Counter()
    found = set()
    for heading in headings:
        plain = unicodedata.normalize(
            "NFKD", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        ).lower()
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip())
        found.add(f"{slug}_{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    bad = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target, _, anchor = link.partition("#")
        if "://" in target:
            if not re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?", target):
                bad.append(link)
            continue
        path = (page.parent / target).resolve() if target else page
        inside = path.exists() and path.is_relative_to(ROOT)
        if not inside or (anchor and (path.suffix != ".md" or anchor not in anchors(path))):
            bad.append(link)
    return bad


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "FORMAT.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert not broken(page)


def test_a_broken_link_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A head\n[a](page.md#a-head) [b](#b-head) [c](none.md) [d](http://x) "
        "[e](../../etc/passwd)\n"
    )
    assert broken(page) == ["#b-head", "none.md", "http://x", "../../etc/passwd"]


def test_every_page_can_be_reached() -> None:
    """From docs/index.md by links, and each stands in the site's table of contents."""
    known, waiting = set(), [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        known.add(page)
        links = {link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))}
        targets = {
            (page.parent / link).resolve()
            for link in links
            if link.endswith(".md") and "://" not in link
        }
        waiting += [target for target in targets if target in MANUAL and target not in known]
    assert set(MANUAL) <= known
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(\S+\.md)$", site, re.M)
    made = {"specification.md", "changes.md"} | {
        f"examples/{p.stem}.md" for p in (ROOT / "examples").glob("*.*")
    }
    assert {page.relative_to(ROOT / "docs").as_posix() for page in MANUAL} | made == set(listed)


def test_the_manual_stands_on_its_own() -> None:
    """It cites nothing outside the project, and holds no path of the machine it was written on."""
    for page in PAGES:
        assert not re.search(
            r"\.\./shared|/tmp/|methods\.md section", page.read_text(encoding="utf-8")
        ), page


def test_cited_pages_exist() -> None:
    """Every docs/....md that code, tests or recipes name."""
    tests = [path for path in (ROOT / "tests").glob("*.py") if path.name != Path(__file__).name]
    for path in [*SOURCES, *tests, *(ROOT / "train").rglob("*.toml"), ROOT / ".ci/run"]:
        for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{path}: {page}"
        assert not re.search(r"(?<![\w/])methods(\.md| \d)", path.read_text(encoding="utf-8")), path


# --------------------------------------------------------------------------------------------------
# commands

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in SOURCES
    if "cli" not in path.parts and re.search(r"\bParser\(", path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize(
    "command", ["codec.compress", "codec.decompress", "codec.info", "codec.truncate", *COMMANDS]
)
def test_help_names_its_page(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module(command.removesuffix(".__main__"), ["--help"]) == 0
    text = capsys.readouterr().out
    assert not any(sign in text for sign in "─│└┐┘┴"), "a diagram in prose"
    page = re.search(r"See (docs/\S+\.md)", text)
    assert page is not None, "give the parser epilog='See docs/PAGE.md'"
    assert (ROOT / page[1]).is_file()


def test_codec_alone_names_the_manual(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_module("codec", []) == 0
    assert "docs/index.md" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# reference

PACKAGES = ("codec", "codec.bottlenecks", "codec.bottlenecks.parts", "codec.entropy", "codec.nets")
DOCUMENTED = {
    path
    for page in (ROOT / "docs/api").glob("*.md")
    for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)
}


def resolve(path: str) -> Any:
    """The object of a dotted name, whose module may be a command file's namesake."""
    module, attribute = path, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            attribute.insert(0, last)
    for part in attribute:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("package", "public"),
    [
        (package, public)
        for package in PACKAGES
        for public in importlib.import_module(package).__all__
    ],
)
def test_public_names_are_documented(package: str, public: str) -> None:
    """Each is in the reference, and its docstring says what it is.

    A function's also each argument and error.
    """
    thing = getattr(importlib.import_module(package), public)
    if isinstance(thing, str | int | dict):
        text = "\n".join(
            page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md")
        )
        assert f"`{public}`" in text
        return
    assert any(resolve(path) is thing for path in DOCUMENTED), (
        f"add ::: {thing.__module__}.{thing.__qualname__}"
    )
    assert not undocumented(thing)


def undocumented(thing: Any) -> list[str]:
    """What a docstring leaves out: a first sentence, an argument, the errors that are raised."""
    text = inspect.getdoc(thing) or ""
    call = thing.__dict__.get("__init__", thing) if inspect.isclass(thing) else thing
    inherited = inspect.isclass(thing) and call is thing  # an exception's arguments, say
    found = () if inherited else inspect.signature(call).parameters
    names = set(found) - {"self", "args", "kwargs"}
    missing = [f"argument {name}" for name in sorted(names) if not re.search(rf"\b{name}\b", text)]
    if len(text.partition("\n")[0].split()) < 2:
        missing.append("what it is")
    with contextlib.suppress(OSError, TypeError):  # a dataclass writes its own __init__
        if (
            re.search(r"^\s+raise ", inspect.getsource(call), re.M)
            and inspect.isfunction(call)
            and "Raises" not in text
        ):
            missing.append("errors")
    return missing


def test_a_poor_docstring_is_noticed() -> None:
    def poor(value: int) -> int:
        """Adds."""
        if value < 0:
            raise ValueError("negative")
        return value + 1

    assert undocumented(poor) == ["argument value", "what it is", "errors"]


@pytest.mark.parametrize(
    "public", sorted(set(importlib.import_module("codec.bottlenecks").__all__) - {"BOTTLENECKS"})
)
def test_methods_name_their_source(public: str) -> None:
    from codec.bottlenecks.__main__ import describe

    thing = getattr(importlib.import_module("codec.bottlenecks"), public)
    if public not in ("Bottleneck", "BottleneckOutput"):
        assert all(source for _, source in describe(thing)), (
            "a paper in brackets in the first line, or the module's"
        )


def test_the_reference_names_what_exists() -> None:
    for path in DOCUMENTED:
        assert resolve(path) is not None


def test_every_key_of_a_recipe_is_listed() -> None:
    sections = {
        "codec": recipe.CodecSection,
        "data": recipe.DataSection,
        "optimiser": recipe.OptimiserSection,
        "adversary": recipe.AdversarySection,
    }
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", page, re.M)
    assert sorted(listed) == sorted(
        f"{section}.{field.name}"
        for section, kind in sections.items()
        for field in dataclasses.fields(kind)
    )


# --------------------------------------------------------------------------------------------------
# figures


def test_the_figures_are_those_of_the_cards() -> None:
    from eval.model_tables import tables

    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert tables() in page, "run python -m eval.report and put its output into docs/models.md"


def test_classic_codecs_are_those_that_there_are() -> None:
    from eval.baselines import BASELINES

    (found,) = re.findall(
        r"\*\*Classic\*\*: `--baselines (\S+)`", (ROOT / "docs/evaluate.md").read_text()
    )
    assert sorted(found.split(",")) == sorted(BASELINES)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.partition(".dev")[0].split(".")]


def test_versions_agree() -> None:
    """Of the package, its metadata and the changelog.

    With unreleased changes the version is that of no release, so that a report can name it.
    """
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", changes, re.M)
    version = codec.__version__
    assert version == PROJECT["version"]
    if "## [Unreleased]\n\n###" in changes:
        assert re.fullmatch(r"\d+\.\d+\.\d+\.dev\d+", version)
        assert numbers(released[0]) < numbers(version)
    else:
        assert version == released[0]
