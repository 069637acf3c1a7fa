"""After a plain `pip install .` a command works, or names the extra that it needs in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codec.cli.frame import Parser, run

ROOT = Path(__file__).resolve().parent.parent
# What the extras bring, by the names that are imported.
EXTRAS = (
    *("av", "faiss", "gradio", "gradio_client", "lpips", "matplotlib", "onnx", "onnxruntime"),
    *("onnxscript", "pesq", "pyarrow", "pystoi", "pytorch_msssim", "ray", "rich", "scipy"),
    *("skimage", "sklearn", "ssimulacra2", "tensorboard", "torchmetrics", "torchvision"),
    "vector_quantize_pytorch",
)
SCRIPT = """
import contextlib, importlib, io, json, sys
extras, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.modules |= dict.fromkeys(extras)
found = {}
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            found[command] = importlib.import_module(command).main(["--help"])
        except SystemExit as error:
            found[command] = error.code
        except BaseException as error:
            found[command] = f"Traceback: {error!r}"
print(json.dumps(found))
"""


def commands() -> list[str]:
    """The modules of train, eval and app that are run with -m, and those of codec with extras."""
    names = []
    for package in ("train", "eval", "app"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"^def main\(arguments", path.read_text(), re.MULTILINE):
                names.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return ["codec.onnx", *names]


def test_without_extras_no_command_ends_in_a_traceback() -> None:
    asked = [SCRIPT, json.dumps(EXTRAS), json.dumps(commands())]
    done = subprocess.run(
        [sys.executable, "-c", *asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert {"eval.compare", "eval.__main__", "train.__main__", "app.__main__"} <= set(found)
    line = r"error: \w+ is not installed; in the project's folder: pip install '\.\[[a-z,]+\]'"
    wrong = {
        command: code
        for command, code in found.items()
        if code != 0 and not (isinstance(code, str) and re.fullmatch(line, code))
    }
    assert not wrong
    assert found["train.__main__"] == found["eval.report"] == 0
    assert isinstance(found["eval.__main__"], str)


@pytest.mark.parametrize("name", ["scipy.stats", "train.absent"])
def test_what_is_missing_while_a_command_works_is_a_line_unless_it_is_ours(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: object) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    if name.startswith("train"):
        with pytest.raises(ModuleNotFoundError):
            run(Parser(), [], command)
        return
    assert run(Parser(), [], command) == 1
    expected = "error: scipy is not installed; in the project's folder: pip install '.[all]'\n"
    assert capsys.readouterr().err == expected
