"""What lies in a checkpoint's place and is none is refused in a line, whatever it is."""

from __future__ import annotations

import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from codec.errors import CodecError
from train.checkpoint import read_checkpoint, write_checkpoint

WHOLE: dict[str, Any] = {
    "recipe": json.dumps({"codec": {}}),
    "codec": {"weight": torch.arange(300.0)},
    "average": {"weight": torch.arange(300.0)},
    "optimiser": {"state": {}},
    "size_losses": torch.zeros(4),
    "clock": [3, 1.5, "A", 0],
}


def saved(value: object) -> bytes:
    memory = io.BytesIO()
    torch.save(value, memory)
    return memory.getvalue()


FOREIGN = {
    "empty": b"",
    "text": b"epoch 3\n",
    "another text": b"hello world\n" * 9,
    "zeros": bytes(1000),
    "a pickle of code": pickle.dumps(Path("x")),
    "a pickle of numbers": pickle.dumps([1, 2]),
    "a tensor": saved(torch.zeros(3)),
    "a list": saved([1, 2]),
    "another program's": saved({"state_dict": {"weight": torch.zeros(3)}, "epoch": 3}),
    "a short clock": saved(WHOLE | {"clock": [3]}),
    "a number for weights": saved(WHOLE | {"average": 3}),
    "a recipe that is none": saved(WHOLE | {"recipe": "speech-fsp"}),
} | {f"without {name}": saved({k: v for k, v in WHOLE.items() if k != name}) for name in WHOLE}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(CodecError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert "()" not in text
    assert "weights_only" not in text


def test_damage_anywhere_is_a_line_or_without_effect(tmp_path: Path) -> None:
    """Some bytes of a .zip decide nothing; wherever one does, the file is refused."""
    path, drawn = tmp_path / "checkpoint.pt", random.Random(0)
    write_checkpoint(path, WHOLE)
    whole = path.read_bytes()
    assert read_checkpoint(path).keys() == WHOLE.keys()
    for number in range(400):
        place = drawn.randrange(len(whole))
        flipped = whole[place] ^ 1 << drawn.randrange(8)
        cut = whole[:place] if number % 4 == 0 else whole[:place] + bytes([flipped])
        path.write_bytes(cut if number % 4 == 0 else cut + whole[place + 1 :])
        refusal = ""
        try:
            assert read_checkpoint(path).keys() == WHOLE.keys()
        except CodecError as error:
            refusal = str(error)
        assert "\n" not in refusal
