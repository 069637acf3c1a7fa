"""The tokens of a file, read and written again, by the public functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import gradient, picture, tones, wav

import codec
from codec.errors import BitstreamError, MediaError, ModelError

pytestmark = pytest.mark.usefixtures("models")


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_a_recording_there_and_back(rate: int, channels: int) -> None:
    data = codec.compress(wav(tones(5000, rate, channels), rate), 256)
    tokens = codec.read_tokens(data)
    assert tokens.shape[:2] == (channels, 1)
    assert tokens.dtype == np.int64
    written = codec.write_tokens(tokens, "speech-fsp", 256, num_samples=5000, sample_rate=rate)
    assert written == data
    for some in (torch.from_numpy(tokens), tokens.tolist(), tokens.astype(np.uint8)):
        again = codec.write_tokens(some, "speech-fsp", 256, num_samples=5000, sample_rate=rate)
        assert again == data
    whole = codec.write_tokens(tokens, "speech-fsp", 256, sample_rate=rate)
    assert np.array_equal(codec.read_tokens(whole), tokens)
    assert len(codec.decompress(whole)) >= len(codec.decompress(data))


def test_a_picture_there_and_back(tmp_path: Path) -> None:
    data = codec.compress(picture(gradient(13, 40)), 1024)
    (tmp_path / "a.bin").write_bytes(data)
    tokens = codec.read_tokens(tmp_path / "a.bin", codec.load("image-fsp"))
    stride = codec.load("image-fsp").codec.stride
    assert tokens.shape == (1, 1, -(-13 // stride), -(-40 // stride))
    assert codec.write_tokens(tokens, "image-fsp", 1024, size=(13, 40)) == data
    other = tokens.copy()
    other[0, 0, 0, 0] = (other[0, 0, 0, 0] + 1) % 1000
    changed = codec.write_tokens(other, "image-fsp", size=(13, 40))
    assert np.array_equal(codec.read_tokens(changed), other)
    assert codec.decompress(changed) != codec.decompress(data)
    assert codec.info(codec.write_tokens(tokens, "image-fsp"))["width"] == tokens.shape[3] * stride


def test_layers_are_read_where_one_stops() -> None:
    model = codec.load("image-fsp")
    source = picture(gradient(40, 64))
    data = codec.compress(source, 1024, model, layers=True)
    for size in (256, 1024):
        single = codec.read_tokens(codec.compress(source, size, model))
        assert np.array_equal(codec.read_tokens(data, model, codebook_size=size), single)
    assert np.array_equal(codec.read_tokens(data), single)
    record = codec.info(data)
    for said in (record, *record["layers"].values()):
        assert said["rate"] == f"{said['bits_per_pixel']:.4f} bits per pixel"
    with pytest.raises(MediaError, match="no layers"):
        codec.read_tokens(codec.compress(source, 256, model), codebook_size=1024)


def test_mistakes_are_told() -> None:
    tokens = codec.read_tokens(codec.compress(wav(tones(5000)), 256))
    for wrong, words in (
        (tokens[0], "want tokens"),
        (tokens[:, :, None], "want tokens"),
        (np.concatenate([tokens, tokens], 1), "want tokens"),
        (tokens[:, :, :0], "want tokens"),
        (tokens - 300, "must lie in"),
        (tokens + 256, "must lie in"),
    ):
        with pytest.raises(ValueError, match=words):
            codec.write_tokens(wrong, "speech-fsp", 256)
    for count in (5000 - 96, 5000 + 96):
        with pytest.raises(ValueError, match="positions, and the tokens"):
            codec.write_tokens(tokens, "speech-fsp", 256, num_samples=count)
    with pytest.raises(TypeError, match="tokens are integers"):
        codec.write_tokens(tokens / 2, "speech-fsp", 256)
    with pytest.raises(ModelError):
        codec.write_tokens(tokens, "speech-none", 256)
    with pytest.raises(ValueError, match="want tokens"):
        codec.write_tokens(tokens, "image-fsp", 256)
    with pytest.raises(ValueError, match="want tokens"):
        codec.write_tokens(np.zeros((2, 1, 2, 2), int), "image-fsp", 256)
    with pytest.raises(ValueError, match="a recording has no size; give num_samples"):
        codec.write_tokens(tokens, "speech-fsp", 256, size=(8, 8))
    picture = np.zeros((1, 1, 2, 2), int)
    for given in ({"num_samples": 5000}, {"sample_rate": 8000}):
        with pytest.raises(ValueError, match="a picture has no samples and no rate; give its size"):
            codec.write_tokens(picture, "image-fsp", 256, **given)
    with pytest.raises(ValueError, match=r"a side of a picture is a whole number.*not 16\.0"):
        codec.write_tokens(picture, "image-fsp", 256, size=(16.0, 16))
    for size in (16, 0, (), (16,), (16, 16, 3), "16"):
        with pytest.raises(ValueError, match=r"a picture's size is .height, width. in pixels, not"):
            codec.write_tokens(picture, "image-fsp", 256, size=size)
    with pytest.raises(BitstreamError):
        codec.read_tokens(codec.compress(wav(tones(5000)), 256)[:-9])
