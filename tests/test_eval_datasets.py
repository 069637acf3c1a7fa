"""Test sets in the layouts that people have on disk, and what is said of those that are missing."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import gradient, picture, tones, wav

pytest.importorskip("pesq", reason="metrics are in the extra [eval]")
from codec.errors import MediaError
from eval.datasets import DATASETS, find, load_signal
from eval.signals import cut

PIXELS = gradient(40, 56)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_tars_and_files_give_the_same_items_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in ("b.png", "a.png", "deep/c.png", ".hidden/d.png"):
        put(folder / name, picture(PIXELS))
    with tarfile.open(tmp_path / "mine.tar", "w") as archive:
        for name in ("b.png", "deep/c.png", "a.png"):
            archive.add(folder / name, name)
    for source in (folder, tmp_path / "mine.tar"):
        found = find(str(source))
        assert [item.name for item in found.items] == ["a.png", "b.png", "deep/c.png"]
        for item in found.items:
            # Items go to other processes.
            medium, signal = load_signal(pickle.loads(pickle.dumps(item)))
            assert medium == "image"
            assert np.array_equal(signal, PIXELS)
    assert [item.name for item in find(str(folder / "a.png")).items] == ["a.png"]


def test_duplicate_names_are_kept_once_and_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for name in ("a.png", "b.png", "a.png"):
            content = picture(PIXELS)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = find(str(tmp_path / "twice.tar"))
    assert [item.name for item in found.items] == ["a.png", "b.png"]
    assert found.duplicates == ("a.png",)


def test_speech_is_mixed_and_resampled(tmp_path: Path) -> None:
    put(tmp_path / "x.wav", wav(tones(4800, 48_000, 2), 48_000))
    medium, signal = load_signal(find(str(tmp_path / "x.wav")).items[0])
    assert (medium, signal.shape) == ("speech", (1600, 1))


LAYOUTS = {
    "coco": ["val2017/000000000139.jpg", "coco/images/val2017/000000000139.jpg"],
    "imagenet": ["imagenet/val/n01440764/x.JPEG", "ILSVRC/Data/CLS-LOC/val/x.JPEG"],
    "kodak": ["kodak/kodim01.png"],
    "librispeech": ["LibriSpeech/test-clean/61/70968/61-70968-0000.flac"],
    "librispeech:dev-other": ["LibriSpeech/dev-other/61/70968/61-70968-0000.flac"],
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, paths in LAYOUTS.items() for path in paths]
)
def test_known_layouts_are_found(name: str, path: str, tmp_path: Path) -> None:
    content = (
        wav(tones(1600), kind="FLAC")
        if "flac" in path
        else picture(PIXELS, "PNG" if "png" in path else "JPEG")
    )
    put(tmp_path / path, content)
    found = find(name, tmp_path)
    assert len(found.items) == 1
    medium, signal = load_signal(found.items[0], found.crop)
    assert medium == ("speech" if "flac" in path else "image")
    if name in ("coco", "imagenet"):  # the published protocol
        assert signal.shape == (256, 256, 3)


def test_what_the_root_has_comes_before_a_folder_of_that_name_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the pictures to train with would be scored, and none of them cropped."""
    for path in ("here/coco/train2017/t.jpg", "here/coco/val2017/v.jpg", "root/val2017/r.jpg"):
        put(tmp_path / path, picture(PIXELS, "JPEG"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("CODEC_DATA", raising=False)

    def found(name: str, root: Path | None = None) -> tuple[int | None, list[str]]:
        one = find(name, root)
        return one.crop, [item.name for item in one.items]

    assert found("coco", tmp_path / "root") == (256, ["r.jpg"])
    assert found("coco") == (256, ["v.jpg"])  # the data set, in the folder here
    assert found("./coco") == (None, ["train2017/t.jpg", "val2017/v.jpg"])
    with pytest.raises(MediaError, match="coco is not in"):
        find("coco", tmp_path / "nowhere")
    put(tmp_path / "here/mine/a.png", picture(PIXELS))
    assert found("mine", tmp_path / "root") == (None, ["a.png"])


def test_cifar_in_every_layout(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    binary = np.concatenate(
        [np.zeros((3, 1), np.uint8), pixels.transpose(0, 3, 1, 2).reshape(3, -1)], 1
    )
    put(tmp_path / "a/cifar-10-batches-bin/test_batch.bin", binary.tobytes())
    mosaic = np.zeros((32, 1024, 3), np.uint8)
    mosaic[:, :96] = np.concatenate(list(pixels), 1)
    put(tmp_path / "b/cifar10-lossless-test3.webp", picture(mosaic, "WEBP", lossless=True))
    rows = {b"data": pixels.transpose(0, 3, 1, 2).reshape(3, -1), b"labels": [0, 0, 0]}
    put(tmp_path / "d/cifar-10-batches-py/test_batch", pickle.dumps(rows, 2))
    for root in ("a", "b", "d"):
        items = find("cifar10", tmp_path / root).items
        assert np.array_equal([load_signal(item)[1] for item in items], pixels)
    put(tmp_path / "c/cifar-10-batches-py/test_batch", b"damaged")
    with pytest.raises(MediaError, match="test_batch: damaged batch of CIFAR-10"):
        find("cifar10", tmp_path / "c")


def test_celeba_in_two_layouts(tmp_path: Path) -> None:
    jpeg = picture(PIXELS, "JPEG")
    for name in ("000001.jpg", "000002.jpg"):
        put(tmp_path / "a/celeba/img_align_celeba" / name, jpeg)
    put(tmp_path / "a/celeba/list_eval_partition.txt", b"000001.jpg 0\n000002.jpg 2\n")
    (tmp_path / "b").mkdir()
    offsets = np.array([0, len(jpeg), 2 * len(jpeg)])
    packed = np.frombuffer(jpeg * 2, np.uint8)
    np.savez(
        tmp_path / "b/celeba.npz",
        test_jpeg=packed,
        test_off=offsets,
        test_id=np.array(["000002", "000003"]),
    )
    assert [i.name for i in find("celeba", tmp_path / "a").items] == ["000002.jpg"]
    found = find("celeba", tmp_path / "b").items
    assert [i.name for i in found] == ["000002.jpg", "000003.jpg"]
    assert load_signal(found[1])[1].shape == PIXELS.shape


def test_common_voice_follows_its_table(tmp_path: Path) -> None:
    for name in ("a.mp3", "b.mp3", "c.mp3"):
        put(tmp_path / "cv-corpus-17.0/en/clips" / name, wav(tones(1600)))
    put(
        tmp_path / "cv-corpus-17.0/en/test.tsv",
        b'client_id\tpath\tsentence\nx\tc.mp3\tSay "no\nx\ta.mp3\thi\nx',  # its last row is cut
    )
    assert [item.name for item in find("commonvoice", tmp_path).items] == ["a.mp3", "c.mp3"]


@pytest.mark.parametrize("name", ["cifar10:valid", "celeba:training", "commonvoice:xx"])
def test_a_part_that_a_data_set_does_not_have_is_said_to_be_missing(
    name: str, tmp_path: Path
) -> None:
    rows = np.zeros((1, 3073), np.uint8)
    put(tmp_path / "cifar-10-batches-bin/test_batch.bin", rows.tobytes())
    put(tmp_path / "celeba/img_align_celeba/000001.jpg", picture(PIXELS, "JPEG"))
    put(tmp_path / "celeba/list_eval_partition.txt", b"000001.jpg 0\n")
    put(tmp_path / "commonvoice/en/clips/a.mp3", wav(tones(1600)))
    put(tmp_path / "commonvoice/en/test.tsv", b"path\na.mp3\n")
    with pytest.raises(MediaError, match=f"{name} is not in"):
        find(name, tmp_path)


def test_packs_of_one_name_are_one_set(tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"image-kodak-0{number}.tar", "w") as archive:
            archive.add(put(tmp_path / "x.png", picture(PIXELS)), f"{number}.png")
    assert len(find("image-kodak", tmp_path).items) == 2
    assert len(find("kodak", tmp_path).items) == 2  # stands in where there is no folder


def test_a_set_is_cut_alike_from_a_folder_and_from_a_pack(tmp_path: Path) -> None:
    put(tmp_path / "a/val2017/000000000139.jpg", picture(PIXELS, "JPEG"))
    (tmp_path / "b").mkdir()
    with tarfile.open(tmp_path / "b/coco.tar", "w") as archive:
        archive.add(tmp_path / "a/val2017/000000000139.jpg", "000000000139.jpg")
    assert find("coco", tmp_path / "a").crop == find("coco", tmp_path / "b").crop == 256


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(
        MediaError, match=rf"{name} is not in .*: looked for .*; get .*--root or \$CODEC_DATA"
    ) as error:
        find(name, tmp_path)
    assert "{part}" not in str(error.value)


def test_mistakes_name_what_is_wrong(tmp_path: Path) -> None:
    put(tmp_path / "bad.tar", b"nothing")
    (tmp_path / "empty").mkdir()
    for name, reason in (
        ("bad.tar", "damaged tar"),
        ("empty", "the set is empty"),
        ("no.tar", "no such file"),
    ):
        with pytest.raises(MediaError, match=reason):
            find(str(tmp_path / name))
    with pytest.raises(MediaError, match="no data set fashion"):
        find("fashion", tmp_path)


def test_the_cut_is_square_central_and_leaves_what_fits() -> None:
    wide = np.zeros((256, 300, 3), np.uint8)
    wide[:, 22:278] = 255
    assert cut(wide, 256).min() == 255
    assert cut(gradient(300, 500), 256).shape == (256, 256, 3)
    assert cut(gradient(64, 80), 256).shape == (256, 256, 3)
    assert cut(wide, None) is wide
