"""The arrows of the plan: which part may import which, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each package may import of the others. Down only: app > eval > train > codec. (eval needs
# train because the experiments of the papers train their models before they measure them.)
ALLOWED = {"codec": set(), "train": {"codec"}, "eval": {"codec", "train"}, "app": {"codec", "eval"}}
# Heavy packages and the files of codec that may import them at the top.
TORCH_FREE = [
    "errors",
    "cards",
    "media/__init__",
    *(f"media/{path.stem}" for path in sorted((ROOT / "codec/media").glob("[a-z]*.py"))),
    *(f"container/{path.stem}" for path in sorted((ROOT / "codec/container").glob("*.py"))),
    "medium",
    *(f"cli/{path.stem}" for path in sorted((ROOT / "codec/cli").glob("*.py"))),
    "description",
    *(f"layers/{path.stem}" for path in sorted((ROOT / "codec/layers").glob("*.py"))),
    "plugins",
    "truncation",
    "files",
    "entropy/__init__",
    "entropy/fixed",
    "entropy/range_coder",
    "entropy/prior",
    "entropy/mixing",
]
COMMAND_FILES = {"codec.compress", "codec.decompress", "codec.info", "codec.truncate"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, top_only: bool = False) -> set[str]:
    """The dotted names that a file imports; at the top of the module only, if asked."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(package: str, path: Path) -> set[str]:
    return {
        name
        for name in imports(path)
        if name.split(".")[0] in ALLOWED.keys() - ALLOWED[package] - {package}
    }


def test_an_installed_wheel_has_every_package() -> None:
    """An editable install finds a package that pyproject.toml forgot; a wheel does not."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for package in ALLOWED for path in sources(package)}
    there = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(told) == there | {"codec.assets"}  # the folder assets/, under that name
    assert len(told) == len(set(told))


def tracked(*places: str) -> list[str]:
    """The names of the project's files, at all places or at some."""
    told = subprocess.run(
        ["git", "ls-files", "-z", *places], capture_output=True, text=True, cwd=ROOT
    )
    if told.returncode:
        pytest.skip("this is no clone: which files are the project's is not known")
    return told.stdout.split("\0")[:-1]


# Files for developers: those of the repository alone.
NOT_INSTALLED = ("assets/golden/", "assets/pictures/")


def test_an_installed_wheel_has_every_file_that_is_no_code() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = tool["package-dir"]
    told = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in (ROOT / homes.get(package, package.replace(".", "/"))).glob(pattern)
    }
    there = {
        ROOT / name
        for name in tracked(*ALLOWED, "assets")
        if not name.endswith(".py") and not name.startswith(NOT_INSTALLED)
    }
    assert {str(path) for path in there - told} == set()


def test_a_source_archive_has_every_file_of_the_repository() -> None:
    """Its tests need their helpers and golden files, and the manual its pages and pictures.

    setuptools adds the code, what a wheel has, and the four files that are named here.
    """
    names = tracked()
    rules = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    folders = {word for verb, *words in rules if verb == "graft" for word in words}
    patterns = [word for verb, *words in rules if verb == "include" for word in words]
    patterns += ["pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]
    left_out = {
        name
        for name in names
        if name.split("/")[0] not in folders | ALLOWED.keys()
        and not any(Path(name).match(pattern) for pattern in patterns)
    }
    assert left_out == set()


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_arrows_point_down(package: str) -> None:
    for path in sources(package):
        assert not violations(package, path), path


def test_the_walk_sees_an_arrow_that_points_up(tmp_path: Path) -> None:
    """Negative control, with an import hidden in a function."""
    path = tmp_path / "bad.py"
    path.write_text("def f():\n    from train.loop import Trainer\n")
    assert violations("codec", path) == {"train.loop", "train.loop.Trainer"}
    assert not violations("train", path)


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_starts_at_once_imports_no_torch(name: str) -> None:
    heavy = {
        "numba",
        "codec.entropy._compiled",
        "torch",
        "torchaudio",
        "torchvision",
        "codec.coding",
        "codec.model",
        "codec.api",
        "codec.bottleneck",
    }
    assert not imports(ROOT / "codec" / f"{name}.py", top_only=True) & heavy


def test_nothing_imports_a_command_file() -> None:
    """`import codec.compress` would replace the function of that name, and make python -m warn."""
    for package in ALLOWED:
        for path in sources(package):
            assert not imports(path) & COMMAND_FILES, path


def test_bottlenecks_and_nets_do_not_know_each_other() -> None:
    for path in sources("codec/nets"):
        assert not any("bottleneck" in name for name in imports(path)), path
    for path in sources("codec/bottlenecks"):
        assert not any(name.startswith(("codec.nets", "codec.model")) for name in imports(path)), (
            path
        )


def private(path: Path) -> set[str]:
    """Modules and names of codec that begin with an underscore and that a file imports.

    `__version__` is public.
    """
    return {
        name
        for name in imports(path)
        if name.split(".")[0] == "codec"
        and any(p.startswith("_") and not p.endswith("__") for p in name.split("."))
    }


def test_nobody_outside_imports_a_private_part_of_codec() -> None:
    outside = [
        path
        for package in ("train", "eval", "app", "examples", "tests/plugin")
        for path in sources(package)
    ]
    assert len(outside) > 80
    for path in outside:
        assert not private(path), path


def test_the_walk_sees_a_private_import(tmp_path: Path) -> None:
    """Negative control."""
    path = tmp_path / "bad.py"
    path.write_text(
        "from codec import __version__\nfrom codec.bottlenecks._grid import LevelGrid\n"
    )
    assert private(path) == {"codec.bottlenecks._grid", "codec.bottlenecks._grid.LevelGrid"}


def test_codec_needs_only_what_a_bare_install_brings() -> None:
    bare = {
        "codec",
        "numba",
        "numpy",
        "PIL",
        "safetensors",
        "soundfile",
        "torch",
        "torchaudio",
        "tqdm",
    }
    for path in sources("codec"):
        tops = {name.split(".")[0] for name in imports(path)}
        standard = tops & set(__import__("sys").stdlib_module_names)
        # triton comes with torch's builds for GPUs, and only there the kernel is imported; PyAV and
        # pillow-heif are tried where they are installed.
        tried = {"_radii_kernel.py": "triton", "pyav.py": "av", "heic.py": "pillow_heif"}
        extra = {tried[path.name]} if path.name in tried else set[str]()
        assert tops - standard <= bare | extra, path


def test_only_quiet_changes_the_filters_of_warnings() -> None:
    """They belong to the whole process, and the app's jobs run in threads."""
    changing = ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings")
    for package in ALLOWED:
        for path in sources(package):
            names = [
                node.attr
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
            ]
            assert path == ROOT / "codec/quiet.py" or not set(names) & set(changing), path
