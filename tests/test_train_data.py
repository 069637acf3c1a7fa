"""Preparing training data: the layouts people have on disk, broken parts, and crops against what
they are cut from.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import resource
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from codec.errors import CodecError
from train import __main__ as train
from train.augment import augment
from train.data import chosen, prepare
from train.draws import Draws
from train.prepare import main
from train.sources import media
from train.store import Store

ROOT = Path(__file__).parent.parent


def png(value: int, size: tuple[int, int] = (24, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(file, "PNG")
    return file.getvalue()


def clip(value: float, length: int = 3000, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(length, value), 16_000, format=kind)
    return file.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return memory.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def librispeech(root: Path) -> None:
    put(root / "LibriSpeech/train-clean-100/19/198/19-198-0000.flac", clip(0.1, kind="FLAC"))
    put(root / "LibriSpeech/train-clean-100/19/198/19-198-0001.flac", clip(0.2, kind="FLAC"))
    put(root / "LibriSpeech/train-clean-100/19/198/19-198.trans.txt", "19-198-0000 A TEXT")
    put(root / "LibriSpeech/SPEAKERS.TXT", "19 | F")
    put(root / "LibriSpeech/test-clean/61/70968/61-70968-0000.flac", clip(0.7, kind="FLAC"))
    put(root / "LibriSpeech/dev-other/116/288045/116-288045-0000.flac", clip(0.8, kind="FLAC"))


def common_voice(root: Path) -> None:
    for i in range(3):
        # The content decides.
        put(root / f"clips/common_voice_en_{i}.mp3", clip(0.1 * (i + 1), kind="WAV"))
    put(
        root / "train.tsv",
        "client_id\tpath\tsentence\na\tcommon_voice_en_0.mp3\tx\nb\tcommon_voice_en_1\ty\n",
    )
    put(root / "test.tsv", "client_id\tpath\tsentence\nc\tcommon_voice_en_2.mp3\tz\n")


def common_voices(root: Path) -> None:
    """Two languages, one without a table of training clips."""
    common_voice(root / "en")
    put(root / "kk/clips/common_voice_kk_0.mp3", clip(0.9, kind="WAV"))
    put(root / "kk/test.tsv", "client_id\tpath\nc\tcommon_voice_kk_0.mp3\n")


def speech_shards(root: Path) -> None:
    put(root / "shard-000000.tar", tar({"a.wav": clip(0.1), "a.json": b"{}", "a.txt": b"words"}))
    put(
        root / "shard-000001.tar.gz", tar({"b.flac": clip(0.2, kind="FLAC"), "b.cls": b"7"}, "w:gz")
    )


def coco(root: Path) -> None:
    put(root / "train2017/000000000009.jpg", png(10))
    put(root / "train2017/000000000025.jpg", png(20))
    put(root / "val2017/000000000139.jpg", png(99))
    put(root / "annotations/instances_train2017.json", "{}")


def imagenet(root: Path) -> None:
    put(root / "train/n01440764/n01440764_18.JPEG", png(10))
    put(root / "train/n01443537/n01443537_2.JPEG", png(20))
    put(root / "val/n01440764/ILSVRC2012_val_00000293.JPEG", png(99))


def imagenet_tars(root: Path) -> None:
    inner = [tar({f"n0144076{i}_1.JPEG": png(10 * (i + 1))}) for i in range(2)]
    put(
        root / "ILSVRC2012_img_train.tar",
        tar({"n01440764.tar": inner[0], "n01440765.tar": inner[1]}),
    )


def batch(values: list[int]) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[:, None], 3072, 1)


def cifar_python(root: Path) -> None:
    for i in (1, 2):
        put(
            root / f"cifar-10-batches-py/data_batch_{i}",
            pickle.dumps({b"data": batch([10 * i]), b"labels": [3]}, 2),
        )
    put(
        root / "cifar-10-batches-py/test_batch",
        pickle.dumps({b"data": batch([99]), b"labels": [3]}, 2),
    )
    put(root / "cifar-10-batches-py/batches.meta", pickle.dumps({}, 2))


def cifar_archive(root: Path) -> None:
    members = {
        f"cifar-10-batches-bin/data_batch_{i}.bin": bytes([3]) + batch([10 * i]).tobytes()
        for i in (1, 2)
    } | {"cifar-10-batches-bin/test_batch.bin": bytes([3]) + batch([99]).tobytes()}
    put(root / "cifar-10-binary.tar.gz", tar(members, "w:gz"))


def celeba(root: Path) -> None:
    for i, value in enumerate((10, 20, 99), 1):
        put(root / f"img_align_celeba/00000{i}.jpg", png(value, (178, 218)))
    put(root / "list_eval_partition.txt", "000001.jpg 0\n000002.jpg 0\n000003.jpg 2\n")


def zipped_pictures(root: Path) -> None:
    put(
        root / "train2017.zip",
        zipped(
            {"train2017/1.jpg": png(10), "__MACOSX/train2017/._1.jpg": b"x", "a/2.png": png(20)}
        ),
    )


LAYOUTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "LibriSpeech": ("speech", librispeech),
    "Common Voice": ("speech", common_voice),
    "Common Voice, all languages": ("speech", common_voices),
    "webdataset of speech": ("speech", speech_shards),
    "COCO": ("image", coco),
    "ImageNet": ("image", imagenet),
    "ImageNet, tars in a tar": ("image", imagenet_tars),
    "CIFAR-10, pickled": ("image", cifar_python),
    "CIFAR-10, binary archive": ("image", cifar_archive),
    "CelebA": ("image", celeba),
    "zip": ("image", zipped_pictures),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_its_two_training_items_and_skips_nothing(
    layout: str, tmp_path: Path
) -> None:
    medium, make = LAYOUTS[layout]
    make(tmp_path / "data")
    prepare(medium, [tmp_path / "data"], tmp_path / "out", workers=2)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["skipped"] == []
    store = Store(tmp_path / "out", medium, (1056,) if medium == "speech" else (16, 16))
    assert len(store.shapes) == 2
    ends = np.cumsum(store.shapes.prod(1)) // (1 if medium == "speech" else 3) - 1
    values = store.flat[torch.tensor(ends)].reshape(2, -1)[:, 0].tolist()
    assert values == (pytest.approx([3276, 6553], abs=2) if medium == "speech" else [10, 20])


def test_a_part_that_is_named_is_taken_and_so_are_folders_beside_a_data_set(
    tmp_path: Path,
) -> None:
    librispeech(tmp_path)
    names = [
        Path(item.name).name for item in media("speech", [tmp_path / "LibriSpeech/test-clean"])
    ]
    assert names == ["61-70968-0000.flac"]
    put(tmp_path / "mine/a.wav", clip(0.1))
    names = [Path(item.name).name for item in media("speech", [tmp_path])]
    assert "a.wav" in names
    assert len(names) == 3  # and of the data set the training part


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    """As the other commands do: a waste basket, say, or what another system keeps beside a file."""
    for name in ("a.wav", "._a.wav", ".trash/b.wav", "in/.old/c.wav", "in/d.wav"):
        put(tmp_path / ".here" / name, clip(0.1))
    names = [Path(item.name).name for item in media("speech", [tmp_path / ".here"])]
    assert names == ["a.wav", "d.wav"]


def test_a_table_of_common_voice_can_be_named(tmp_path: Path) -> None:
    common_voice(tmp_path)
    assert [Path(item.name).name for item in media("speech", [tmp_path / "test.tsv"])] == [
        "common_voice_en_2.mp3"
    ]


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    put(tmp_path / "in/data_batch_1", pickle.dumps({b"data": Evil()}, 2))
    assert main(["image", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    assert "has no place in a batch of CIFAR-10" in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "gone", "locked"])
def test_what_is_broken_is_named_skipped_and_counted(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Archives cut off in the middle give what comes before; the rest of the data goes on."""
    put(tmp_path / "in/z.png", png(5))
    members = {f"{i}.png": png(i) for i in range(3)}
    if kind.startswith("tar"):
        whole = tar(members, "w:gz" if kind == "tar.gz" else "w")
        put(
            tmp_path / f"in/a.{kind}",
            whole[: len(whole) // 2] if kind == "tar.gz" else whole[:2600],
        )
    elif kind == "zip":
        put(tmp_path / "in/a.zip", zipped(members)[:-30])
    elif kind == "gone":
        (tmp_path / "in/a.png").symlink_to(tmp_path / "nothing")
        common_voice(tmp_path / "cv")
        (tmp_path / "cv/clips/common_voice_en_0.mp3").unlink()
        prepare("speech", [tmp_path / "cv"], tmp_path / "cv-out")
        assert (
            "common_voice_en_0.mp3: cannot be read"
            in json.loads((tmp_path / "cv-out.json").read_text())["skipped"][0]
        )
        return
    else:
        put(tmp_path / "in/a.png", b"")
    assert (
        main(["image", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    )
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["skipped"]) == 1
    assert f"a.{kind}" in record["skipped"][0] or "a.png" in record["skipped"][0]
    assert f"skipped {record['skipped'][0].split(': ')[0]}" in capsys.readouterr().err


def compressed(members: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


@pytest.mark.parametrize(
    "kind", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip", "tar.gz in a.tar", "xz in zip"]
)
def test_a_wrong_byte_anywhere_in_an_archive_is_named(kind: str, tmp_path: Path) -> None:
    """Whatever is read before it and beside it comes all the same, and what follows goes on."""
    drawn = random.Random(0)
    members = {f"{i}.png": drawn.randbytes(300) + b"x" * 300 for i in range(3)}
    whole = {
        "a.tar": lambda: tar(members),
        "a.tar.gz": lambda: tar(members, "w:gz"),
        "a.tar.bz2": lambda: tar(members, "w:bz2"),
        "a.tar.xz": lambda: tar(members, "w:xz"),
        "a.zip": lambda: compressed(members),
        "tar.gz in a.tar": lambda: tar({"b.tar.gz": tar(members, "w:gz")}),
        "xz in zip": lambda: zipped({"b.tar.xz": tar(members, "w:xz")}),
    }[kind]()
    path = tmp_path / {"xz in zip": "a.zip", "tar.gz in a.tar": "a.tar"}.get(kind, kind)
    put(tmp_path / "z.png", b"last")
    told = 0
    for place in range(0, len(whole), max(1, len(whole) // 400)):
        flipped = bytes([whole[place] ^ 1 << drawn.randrange(8)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        found = list(media("image", [tmp_path]))
        assert found[-1].content == b"last"
        errors = [str(item.error) for item in found if item.error is not None]
        assert all("\n" not in error and "()" not in error for error in errors)
        told += bool(errors)
    assert told


def full_disk(*arguments: str, limit: int) -> subprocess.CompletedProcess[str]:
    """A command that may write files of `limit` bytes at most, which fails as on a full disk, at
    any byte.
    """

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=limited,
        timeout=300,
    )


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / f"in/{i}.png", png(i, (100, 100)))
    done = full_disk(
        "-m",
        "train.prepare",
        "image",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "d/out"),
        limit=60_000,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'd/out.raw'}: File too large"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d").exists()
    # A training: the checkpoint does not fit, and the last whole one stays.
    prepare("image", [tmp_path / "in"], tmp_path / "data")
    train = [
        "-m",
        "train",
        "image-fsp",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "run"),
    ]
    train += [
        "--set",
        "data.crop=[32, 32]",
        "--set",
        "data.batch=1",
        "--threads",
        "1",
        "--steps",
        "1",
    ]
    done = full_disk(*train, limit=1_000_000)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path / 'run/checkpoint.pt'}: File too large\n"
    assert not list((tmp_path / "run").glob("*.p*t*"))


def test_recordings_have_no_shorter_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["speech", str(tmp_path), "--out", str(tmp_path / "out"), "--short-side", "64"]
    assert main(given) == 2
    assert "--short-side is of pictures; leave it out of speech" in capsys.readouterr().err


def test_pictures_are_scaled_to_a_shorter_side(tmp_path: Path) -> None:
    put(tmp_path / "in/wide.png", png(7, (90, 60)))
    put(tmp_path / "in/small.png", png(7, (20, 30)))
    prepare("image", [tmp_path / "in"], tmp_path / "out", short_side=30)
    assert sorted(json.loads((tmp_path / "out.json").read_text())["shapes"]) == [
        [30, 20, 3],
        [30, 45, 3],
    ]


# --- crops


@pytest.fixture
def ramps(tmp_path: Path) -> Path:
    """Items whose every value tells where it stands: samples count up, pixels hold row, column and
    item.
    """
    speech = [np.arange(1, 5001), np.arange(10_001, 10_701)]
    np.concatenate(speech).astype(np.int16).tofile(tmp_path / "speech.raw")
    record = {"medium": "speech", "shapes": [[len(s)] for s in speech], "skipped": []}
    (tmp_path / "speech.json").write_text(json.dumps(record))
    pictures = []
    for i, (height, width) in enumerate([(60, 50), (40, 90), (20, 20)]):
        rows, columns = np.mgrid[:height, :width]
        pictures.append(np.stack([rows, columns, np.full_like(rows, i)], -1).astype(np.uint8))
    np.concatenate([p.reshape(-1) for p in pictures]).tofile(tmp_path / "image.raw")
    record = {"medium": "image", "shapes": [list(p.shape) for p in pictures], "skipped": []}
    (tmp_path / "image.json").write_text(json.dumps(record))
    return tmp_path


def test_speech_crops_are_pieces_of_clips(ramps: Path) -> None:
    x = Store(ramps / "speech", "speech", (1000,)).batch(200, Draws(0)) * 32768
    starts = x[:, 0, 0].round()
    long = starts < 10_000
    assert torch.equal(
        (x - x[:, :, :1]).round()[long], torch.arange(1000.0).expand(int(long.sum()), 1, 1000)
    )
    assert float(starts[long].min()) < 300
    assert float(starts[long].max()) > 3700
    assert float(starts[long].max()) <= 4001
    short = x[~long].round()
    assert torch.equal(short[0, 0, :700], torch.arange(10_001.0, 10_701.0))
    assert float(short[:, :, 700:].abs().max()) == 0
    assert 200 * 700 / 5700 * 0.4 < len(short) < 200 * 700 / 5700 * 2  # drawn by length


def test_picture_crops_are_pieces_of_pictures_large_enough(ramps: Path) -> None:
    store = Store(ramps / "image", "image", (32, 24))
    x = (store.batch(200, Draws(0)) * 255).round().long()
    assert set(x[:, 2, 0, 0].tolist()) == {0, 1}
    rows, columns, item = x[:, 0], x[:, 1], x[:, 2, 0, 0]
    assert torch.equal(rows - rows[:, :1], torch.arange(32)[:, None].expand(200, 32, 24))
    assert torch.equal(columns - columns[:, :, :1], torch.arange(24).expand(200, 32, 24))
    assert int(rows[item == 0].max()) == 59
    assert int(columns[item == 1].max()) == 89
    assert int(rows[item == 1].max()) == 39
    with pytest.raises(CodecError, match="no item holds"):
        Store(ramps / "image", "image", (64, 64))


def test_zoom_scales_windows_and_changes_speed(ramps: Path) -> None:
    x = Store(ramps / "image", "image", (20, 20), zoom=2.0)
    slopes = {
        round(float((b[0, 1, 10, 15] - b[0, 1, 10, 5]) * 255 / 10), 2)
        for b in (x.batch(1, d) for d in [Draws(0)] * 8)
    }
    assert len(slopes) > 3
    assert min(slopes) >= 0.95
    assert max(slopes) <= 2.05
    assert x.usable.tolist() == [0, 1]
    draws, speech = Draws(0), Store(ramps / "speech", "speech", (1000,), zoom=1.1)
    speeds = set()
    for _ in range(12):
        y = speech.batch(1, draws)[0, 0] * 32768
        if float(y[500]) < 9000:
            speeds.add(round(float((y[800] - y[200]) / 600), 3))
        assert y.shape == (1000,)
    assert len(speeds) > 3
    assert min(speeds) >= 1 / 1.1 - 0.01
    assert max(speeds) <= 1.1 + 0.01


def test_two_processes_share_out_what_one_draws(ramps: Path) -> None:
    for medium, crop in (("speech", (500,)), ("image", (16, 16))):
        store = Store(ramps / medium, medium, crop, zoom=1.1)
        whole, parts = Draws(3), [Draws(3, "cpu", rank, 2) for rank in (0, 1)]
        for _ in range(2):
            one = augment(medium, store.batch(6, whole), whole)
            two = torch.cat([augment(medium, store.batch(3, d), d) for d in parts])
            assert torch.equal(one, two)


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_full_augmentation_keeps_the_range_and_changes_every_sample(medium: str) -> None:
    draws = Draws(0)
    x = torch.rand(8, 3, 32, 32) if medium == "image" else 0.2 * torch.randn(8, 1, 4000)
    y = augment(medium, x, draws, "full")
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    low = 0.0 if medium == "image" else -1.0
    assert float(y.min()) >= low
    assert float(y.max()) <= 1
    assert (y - x).abs().flatten(1).amax(1).min() > 1e-3
    assert not torch.equal(augment(medium, x, draws, "full"), y)
    silence = torch.zeros(4, 1, 4000)
    assert torch.isfinite(augment("speech", silence, draws, "full")).all()


def test_levels_lie_where_they_should() -> None:
    x = 0.05 * torch.randn(64, 1, 4000)
    level = 20 * augment("speech", x, Draws(0)).square().mean((1, 2)).sqrt().log10()
    assert -42.1 < float(level.min()) < -40  # and no further: the range is used, from end to end
    assert -14 < float(level.max()) < -11.9


def test_training_needs_no_library_of_media() -> None:
    """Machines that only train have prepared data.

    What decodes media is imported by `prepare` alone, when it runs.
    """
    from test_architecture import imports, sources

    for path in sources("train"):
        if path.name != "sources.py":
            assert not imports(path, top_only=True) & {
                "PIL",
                "soundfile",
                "codec.media",
                "train.sources",
            }, path
    assert "PIL" in imports(ROOT / "train/sources.py", top_only=True)  # the check can fail


def test_a_stream_goes_on_on_every_process_whatever_its_device_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Process 0 saves the stream that all share.

    Process 1, on the GPU "cuda:1", goes on with what "cuda:0" saved.
    """
    make = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda *_: make())  # stands in for a GPU's
    first = Draws(3, "cuda:0", 0, 2)
    for generator in first.generators.values():
        torch.rand(5, generator=generator)
    state = first.state_dict()
    for saved in (state, {"cpu": state["cpu"], "cuda:0": state["cuda"]}):  # today's, and of before
        for rank in (0, 1):
            other = Draws(99, f"cuda:{rank}", rank, 2)
            other.load_state_dict(saved)
            assert {k: g.get_state().tolist() for k, g in other.generators.items()} == {
                k: g.get_state().tolist() for k, g in first.generators.items()
            }
    host = Draws(99)
    host.load_state_dict(state)
    assert torch.equal(host.host.get_state(), first.host.get_state())


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_items_are_weighed_by_their_samples_or_pixels(tmp_path: Path, medium: str) -> None:
    for i in range(2):
        content = clip(0.1, 2000 + 1000 * i) if medium == "speech" else png(7, (30 + 10 * i, 20))
        put(tmp_path / f"in/{i}.{'wav' if medium == 'speech' else 'png'}", content)
    prepare(medium, [tmp_path / "in"], tmp_path / "data")
    store = Store(tmp_path / "data", medium, (1000,) if medium == "speech" else (16, 16))
    assert store.weights.tolist() == ([2000, 3000] if medium == "speech" else [600, 800])


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with a whole recording, a cut one and an empty one."""
    for i in range(2):
        put(tmp_path / f"in/{i}.wav", clip(0.1, 16_000)[: -4000 if i else None])
    put(tmp_path / "in/2.wav", b"")
    return tmp_path / "in"


def test_what_is_cut_short_is_named_and_kept_in_the_record(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["speech", str(clips), "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    notice = f"{clips / '1.wav'}: the recording is cut short: coded as far as it goes"
    assert output.err.splitlines() == [notice, f"skipped {clips / '2.wav'}: the file is empty"]
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["notices"], len(record["shapes"])) == ([notice], 2)
    assert output.out == (
        f"{tmp_path / 'out'}: 2 recordings, 0.0 minutes, 1 skipped; "
        f"next: python -m train RECIPE --data {tmp_path / 'out'} --out RUN\n"
    )
    assert main(["image", str(tmp_path / "in"), "--out", str(tmp_path / "x")]) == 1
    assert "; 3 recordings there, but this is for image" in capsys.readouterr().err


TRAIN = ["--out", "run", "--steps", "1", "--set", "data.batch=1"]


def test_data_are_found_by_any_of_their_names_and_else_a_line_says_which(
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    prepare("speech", [clips], data / "speech")
    for name in ("speech", "speech.raw", "speech.json"):
        assert chosen([data / name], None) == data / "speech"
        assert Store(data / name, "speech", (1920,)).medium == "speech"
    assert chosen([clips], None) is None
    put(tmp_path / "pictures/a.png", png(3))
    put(tmp_path / "pictures/b.png", png(3))
    capsys.readouterr()
    for recipe, given, message in (
        ("speech-fsp", data, f"prepared data there have a name: {data / 'speech'}"),
        ("speech-fsp", tmp_path / "pictures", "2 pictures there, but this is for speech"),
        ("speech-fsp", tmp_path / "nope", "no such file or folder, nor data"),
        ("image-fsp", data / "speech.json", "this data is speech, the recipe is for image"),
    ):
        assert train.main([recipe, "--data", str(given), *TRAIN]) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    with pytest.raises(CodecError, match=f"prepared data there have a name: {data / 'speech'}"):
        Store(data, "speech", (1920,))
    with pytest.raises(CodecError, match="this data is speech, the model own is for image"):
        Store(data / "speech", "image", (8, 8), wanted_by="the model own")
    assert not (tmp_path / "run").exists()


def test_a_crop_is_not_far_longer_than_every_item(clips: Path, tmp_path: Path) -> None:
    """Short clips are padded to thrice as much; a wrong number would take all memory."""
    prepare("speech", [clips], tmp_path / "data")
    assert Store(tmp_path / "data", "speech", (48_000,)).batch(2, Draws(0)).shape == (2, 1, 48_000)
    with pytest.raises(
        CodecError, match=r"crop = \[100000000\]: the longest item has 16000 samples"
    ):
        Store(tmp_path / "data", "speech", (100_000_000,))
