"""What the README shows, run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from codec import commands

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m codec\.(\w+) ([^#\n]+?)(?: +#.*)?$", README, re.M)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    soundfile.write("input.wav", rng.normal(0, 0.05, (8000, 1)), 16_000)
    Image.fromarray(rng.integers(0, 255, (40, 56, 3), np.uint8)).save("photo.jpg")
    return tmp_path


def test_the_commands_work_in_their_order() -> None:
    assert len(COMMANDS) >= 6
    for command, arguments in COMMANDS:
        words = shlex.split(arguments)
        if "out.bin" in words[1:2]:
            Path("out.bin").unlink(missing_ok=True)
        main = getattr(commands, f"{command}_main")
        if "--list-models" in words:
            with pytest.raises(SystemExit) as stop:
                main(words)
            assert stop.value.code == 0
        else:
            assert main(words) == 0, (command, words)
    assert soundfile.info("restored.wav").frames == 8000


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_the_python_examples_run(number: int) -> None:
    torch.manual_seed(0)
    namespace: dict[str, object] = {"x": torch.randn(1, 1, 4000)}
    exec(compile(PYTHON[number], f"README example {number}", "exec"), namespace)
    if "x_hat" in namespace:
        assert namespace["x_hat"].shape == (1, 1, 4000)  # type: ignore[attr-defined]
        assert bytes(namespace["wav"])[:4] == b"RIFF"  # type: ignore[call-overload]


def test_the_figures_are_those_of_the_cards() -> None:
    from eval.report import report

    assert report() in README, "run python -m eval.report and put its output into the README"
