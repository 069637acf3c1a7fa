"""The same input gives the same bytes: with 1 and 2 threads, alone and in a batch of 8, on this
Python and on another.

(Whole and in windows: tests/test_coding.py. Compiled and plain coder, any indices:
tests/test_mixing.py.)
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import gradient, picture, tones, wav
from test_mixing import plain
from torch import Tensor

from codec import api, cards, coding
from codec.coding import Model
from codec.container import Header, pack
from codec.media import load_audio, load_image

SIZE = 1024
PACKS = {"speech": "speech-test.tar", "image": "image-test-coco.tar"}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def signals(contents: list[bytes], model: Model) -> Tensor:
    """(B, C, *N): the beginnings of recordings, or the top left corners of pictures."""
    if model.card.medium == "image":
        rows = [
            torch.from_numpy(load_image(io.BytesIO(c))[:96, :64].copy()).movedim(-1, 0) / 255
            for c in contents
        ]
    else:
        waves = [load_audio(io.BytesIO(content), 16000)[0][:9600].mean(1) for content in contents]
        rows = [torch.from_numpy(np.ascontiguousarray(wave))[None] for wave in waves]
    return torch.stack(rows)


def header(model: Model, x: Tensor) -> Header:
    shape = (
        {"height": x.shape[2], "width": x.shape[3]}
        if model.card.medium == "image"
        else {"sample_rate": 16000}
    )
    return Header(
        model.card.medium,
        model.card.model_id,
        SIZE,
        model.card.num_codes[SIZE],
        channels=3 if model.card.medium == "image" else 1,
        **shape,
    )


def bitstreams(x: Tensor, model: Model, batch: int) -> list[bytes]:
    """Every sample, encoded `batch` at a time."""
    with torch.inference_mode():
        indices = torch.cat([model.codec.encode(part, SIZE) for part in x.split(batch)])
    samples = x.shape[-1] if model.card.medium == "speech" else 0
    head, tables = header(model, x), model.tables[SIZE]
    return [pack(head, row[None], samples, tables) for row in indices.flatten(2).numpy()]


def check(contents: list[bytes], model: Model) -> None:
    """All combinations of threads and batches."""
    x = signals(contents, model)
    expected = bitstreams(x, model, 1)
    assert len(set(expected)) == len(contents)
    for count in (1, 2):
        with threads(count):
            for batch in (1, 8):
                assert bitstreams(x, model, batch) == expected, f"{count} threads, batch {batch}"


def test_tiny_models(speech_model: Model, image_model: Model) -> None:
    """Batches of signals; then whole files through the API, by 2 threads and by the plain coder,
    too.
    """
    recordings = [wav(tones(9600 + i)[i:]) for i in range(8)]
    pictures = [picture(np.roll(gradient(96, 64), 9 * i, (0, 1))) for i in range(8)]
    for contents, model in ((recordings, speech_model), (pictures, image_model)):
        check(contents, model)
        data = api.compress(contents[0], model=model)
        with threads(2):
            assert api.compress(contents[0], model=model) == data
        with plain():
            assert api.compress(contents[0], model=model) == data


@pytest.mark.parametrize("card", cards.list_cards(), ids=lambda card: card.name)
def test_shipped_models_on_real_media(card: cards.Card, real: Callable[[str, int], bytes]) -> None:
    contents = [real(PACKS[card.medium], number) for number in range(8)]
    check(contents, coding.load(card))


def test_a_batch_that_mattered_would_show(
    speech_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: an encoder that looks at its neighbours in the batch."""
    contents = [wav(tones(9600 + i)[i:]) for i in range(8)]
    encoder = speech_model.codec.encoder
    monkeypatch.setattr(
        encoder, "forward", lambda x, old=encoder.forward: old(x) + 0.1 * x.mean() + 0.01 * len(x)
    )
    with pytest.raises(AssertionError, match="batch 8"):
        check(contents, speech_model)


SCRIPT = """
import hashlib, json, sys
sys.modules["numba"] = None  # the plain coder: numpy is all that it needs
sys.path.insert(0, sys.argv[1])
import numpy as np
from pathlib import Path
from codec.container import pack, unpack
from codec.entropy import Prior, Tables
for path in sorted(Path(sys.argv[1], "assets/golden").glob("*.json")):
    golden = json.loads(path.read_text())
    prior = golden.get("prior")
    if prior:
        arrays = {name: np.array(table, np.int64) for name, table in prior.items()}
        arrays["digits"] = arrays["digits"].reshape(-1, len(arrays["bias"]))
        prior = Prior.from_tensors(arrays)
    tables = Tables(golden["tables"] and np.array(golden["tables"]), prior)
    header, indices, samples = unpack(path.with_suffix(".bin").read_bytes(), tables)
    assert indices.tolist() == golden["indices"]
    again = pack(header, indices, samples, tables)
    assert np.array_equal(unpack(again, tables)[1], indices)
    print(path.stem, len(again), hashlib.sha256(again).hexdigest())
"""


def other_pythons() -> list[str]:
    """Interpreters of other versions that have numpy."""
    found = []
    for minor in range(11, 20):
        path = shutil.which(f"python3.{minor}")
        if path and minor != sys.version_info[1]:
            check = subprocess.run([path, "-c", "import numpy"], capture_output=True, check=False)
            found += [path] if check.returncode == 0 else []
    return found


def test_another_python_writes_and_reads_the_same_bytes(root) -> None:
    command = ["-c", SCRIPT, str(root)]
    mine = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True
    ).stdout
    assert len(mine.splitlines()) >= 7
    others = other_pythons()
    if not others:
        pytest.skip("no other python3.x with numpy on PATH")
    for path in others:
        assert (
            subprocess.run([path, *command], capture_output=True, text=True, check=True).stdout
            == mine
        ), path
