"""Which folders are a known data set, and which only look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from train import layouts
from train.sources import media


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_called_train_is_imagenet_only_with_classes_or_by_name(tmp_path: Path) -> None:
    put(
        tmp_path / "mine/train/a.png",
        tmp_path / "imagenet/val/a.JPEG",
        tmp_path / "other/train/n01440764/a.JPEG",
    )
    assert layouts.imagenet(tmp_path / "mine", "train") is None
    assert layouts.imagenet(tmp_path / "imagenet", "val") == tmp_path / "imagenet/val"
    assert layouts.imagenet(tmp_path / "other", "train") == tmp_path / "other/train"
    assert layouts.imagenet(tmp_path / "other", "val") is None


def test_celeba_as_it_is_published_has_its_table_beside_its_pictures(tmp_path: Path) -> None:
    put(
        *(tmp_path / f"Img/img_align_celeba/{number}.jpg" for number in range(3)),
        tmp_path / "Eval/x",
    )
    (tmp_path / "Eval/list_eval_partition.txt").write_text("0.jpg 0\n1.jpg 1\n\n2.jpg 2\n")
    for number, part in enumerate(("train", "valid", "test")):
        assert layouts.celeba(tmp_path, part) == [tmp_path / f"Img/img_align_celeba/{number}.jpg"]
    assert layouts.celeba(tmp_path, "all") == []


@pytest.mark.parametrize("part", ["train", "test"])
def test_batches_of_cifar_are_those_of_the_part_alone(part: str, tmp_path: Path) -> None:
    put(
        *(
            tmp_path / f"cifar-10-batches-py/{name}"
            for name in ("data_batch_1", "test_batch", "data_batch_9")
        )
    )
    found = layouts.cifar10(tmp_path, part) or []
    assert [path.name for path in found] == ["data_batch_1" if part == "train" else "test_batch"]


def test_a_data_set_without_training_files_does_not_train_on_the_others(tmp_path: Path) -> None:
    """An empty list of training files is one: nothing else of the folder is taken in its place."""
    put(tmp_path / "img_align_celeba/0.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("0.jpg 2\n")
    assert list(media("image", [tmp_path])) == []
