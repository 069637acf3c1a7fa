"""The demo's jobs, without a page: what the tabs and the endpoints call."""

from __future__ import annotations

import io
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import gradient, no_temporary_folder, picture, tones, wav
from PIL import Image

from app import __main__ as command
from app import pictures, tokens, trials, words
from app.comparison import compare, sweep
from app.media import SEARCH
from app.originals import Original, collected_notices
from app.scoring import load_lpips
from app.service import Service
from app.store import Models, Settings, TemporaryFiles
from app.versions import Version, write_csv
from app.widgets import TONES, chart, facts, measured, short_names
from codec import api, cards, coding
from codec.cli.compress import compress_main
from codec.cli.info import info_main
from codec.coding import read_indices
from codec.errors import BitstreamError, CodecError, MediaError, ModelError
from codec.media import load_audio

SPEECH, IMAGE = "speech-fsp", "image-fsp"


@pytest.fixture
def service(model_folder: Path, tmp_path: Path) -> Service:
    settings = Settings(
        models=model_folder, max_seconds=4, max_pixels=100_000, max_upload_bytes=2 << 20
    )
    return Service(settings, tmp_path / "app")


@pytest.fixture
def given(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file as a user would upload it."""

    def write(name: str, data: bytes) -> Path:
        (tmp_path / "uploads").mkdir(exist_ok=True)
        path = tmp_path / "uploads" / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def speech(service: Service, given: Callable[[str, bytes], Path]) -> Original:
    return service.open(given("voice.wav", wav(tones(16000))))


@pytest.fixture
def image(service: Service, given: Callable[[str, bytes], Path]) -> Original:
    return service.open(given("photo.png", picture(gradient(64, 96))))


# --------------------------------------------------------------------------------------------------
# coding


@pytest.mark.parametrize("name", [SPEECH, IMAGE])
@pytest.mark.parametrize("size", [256, 16384])
def test_the_bin_is_that_of_the_command_line(
    name: str,
    size: int,
    service: Service,
    given: Callable[[str, bytes], Path],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    data = (
        wav(tones(30_000, 44_100, 2), 44_100)
        if name == SPEECH
        else picture(gradient(45, 77), "JPEG")
    )
    path = given("input", data)
    version = service.code(service.open(path), name, size)
    arguments = [
        str(path),
        str(tmp_path / "out.bin"),
        "-k",
        str(size),
        "-m",
        str(model_folder / f"{name}.json"),
    ]
    assert compress_main([*arguments, "--quiet"]) == 0
    assert version.file.read_bytes() == (tmp_path / "out.bin").read_bytes()
    assert version.num_bytes == version.file.stat().st_size
    other = service.code(service.open(path), name, 1024)
    assert other.file.read_bytes() != version.file.read_bytes()


def test_what_is_heard_is_the_decoded_file_at_its_own_level(
    service: Service, speech: Original
) -> None:
    """No peak is normalised: the .wav is that of codec.decompress, byte for byte."""
    version = service.code(speech, SPEECH, 1024)
    model = service.models.get(SPEECH)
    assert version.media.read_bytes() == api.decompress(version.file.read_bytes(), model)
    shown, sent = (
        load_audio(io.BytesIO(data))[0] for data in (speech.media.read_bytes(), speech.data)
    )
    assert np.array_equal(shown, sent)


def test_figures_agree_with_each_other(service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 1024)
    record = version.record()
    assert record["bits_per_pixel"] == pytest.approx(8 * version.num_bytes / (64 * 96), abs=1e-5)
    assert record["ratio"] == pytest.approx(64 * 96 * 3 / version.num_bytes, abs=0.01)
    indices = read_indices(version.file.read_bytes(), service.models.get(IMAGE))[1]
    assert record["used_codes"] == len(set(indices.ravel().tolist())) <= record["num_codes"] == 1024
    assert set(record) >= {"PSNR", "SSIM", "encode_s", "decode_s"}


def test_ssimulacra2_stands_beside_where_it_has_a_value(
    service: Service, image: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too small for its scales.
    assert service.code(image, IMAGE, 1024).scores["SSIMULACRA2"] is None
    large = gradient(240, 240)
    source = replace(image, signal=large)
    assert service.scorer.score(source, large)["SSIMULACRA2"] == 100
    monkeypatch.setattr("app.media.SCORED_PIXELS", 240 * 240 - 1)
    # Too large for someone who waits.
    assert service.scorer.score(source, large)["SSIMULACRA2"] is None


def test_a_model_trained_on_a_metric_is_marked_wherever_that_stands(
    service: Service, image: Original
) -> None:
    version = service.code(image, IMAGE, 1024)
    assert version.record()["trained_on"] is None  # the card of this model does not say
    scores = {"PSNR": 24.0, "LPIPS-squeeze": 0.1234}
    ours = replace(version, scores=scores, trained={"LPIPS": 0.4})
    other = replace(
        version, scores=scores, trained={}, label="other", family="other", model="other"
    )
    classic = replace(
        version, scores=scores, trained={}, label="WebP", family="WebP", model=None, kind="classic"
    )
    unknown = replace(ours, scores=scores | {"LPIPS-squeeze": None})
    versions = [ours, other, classic, unknown]
    assert [v.record()["trained_on"] for v in versions] == ["LPIPS", "", "", "LPIPS"]
    rows = facts(versions).split("<tr ")[1:]
    assert ["0.123†" in row.split("</tr>")[0] for row in rows] == [True, False, False, False]
    assert "†" not in rows[3].split("</tr>")[0]  # a dash needs none
    below = facts(versions).split('<p class="below">')[1]
    assert f"LPIPS-squeeze ({IMAGE})" in below
    assert "Not trained on LPIPS-squeeze (other)." in below
    assert "below" not in facts([replace(ours, scores={"PSNR": 24.0})])
    labels = {
        p["label"]
        for line in chart([ours, other], "LPIPS-squeeze")["series"]
        for p in line["points"]
    }
    assert sum("0.123†" in label for label in labels) == 1


def test_long_speech_is_scored_on_a_bounded_part(service: Service, speech: Original) -> None:
    """What comes after the tenth second does not count."""
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 0.1, 11 * 16000).astype(np.float32)
    decoded = reference.copy()
    decoded[10 * 16000 :] = 0
    long = replace(speech, signal=reference[:, None])
    assert service.scorer.score(long, decoded)["STOI"] == pytest.approx(1, abs=1e-6)
    decoded[5 * 16000 : 6 * 16000] = 0
    assert service.scorer.score(long, decoded)["STOI"] < 0.99  # negative control: inside, it does


def test_what_has_no_figure_is_neither_shown_nor_recommended(
    service: Service, image: Original
) -> None:
    version = service.code(image, IMAGE, 1024)
    ours = replace(version, scores={"PSNR": 24.0, "SSIMULACRA2": None}, trained={"PSNR": 1.0})
    table = facts([ours])
    assert 'data-head="SSIMULACRA2"' not in table
    assert "Could not be measured on this input: SSIMULACRA2." in table
    assert "Judge by" not in table
    assert "To judge, see SSIMULACRA2 of python -m eval." in table
    scored = facts([replace(ours, scores={"PSNR": 24.0, "SSIMULACRA2": 60.0})])
    assert "Judge by SSIMULACRA2." in scored
    assert "not be measured" not in scored
    assert measured([ours, version]) == ["PSNR", "SSIM"]
    assert chart([ours], "PSNR")["series"]
    assert "No figure could be measured" in chart([ours], "SSIMULACRA2")["empty"]


def test_small_numbers_keep_their_digits() -> None:
    ratios = [words.ratio(value) for value in (0.0312, 8.44, 9.97, 23.4)]
    assert ratios == ["0.031 : 1", "8.4 : 1", "10 : 1", "23 : 1"]
    assert [words.duration(s) for s in (1 / 16000, 0.05, 2.0)] == ["0.0625 ms", "50 ms", "2.0 s"]


def test_a_name_keeps_its_small_letter() -> None:
    assert words.sentence("nothing is chosen") == "Nothing is chosen"
    for text in ("speech-vp has no codebook of size 0", "a.wav: no samples"):
        assert words.sentence(text) == text


def test_too_many_versions_are_refused_before_any_is_coded(
    service: Service, image: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "code", lambda *_: pytest.fail("something was coded"))
    with pytest.raises(MediaError, match="2 versions; choose at most 1"):
        compare(service, image, [IMAGE], [256, 1024], most=1)
    for models, sizes, what in (
        ([IMAGE, IMAGE], [256], "model"),
        ([IMAGE], [256, 256], "codebook size"),
    ):
        with pytest.raises(MediaError, match=f"name each {what} once"):
            compare(service, image, models, sizes)
    monkeypatch.undo()
    assert len(compare(service, image, [IMAGE], [256, 1024], most=2)) == 2


def test_the_backbone_that_is_given_is_the_one_that_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch hub has one, too, of a net that is named before it."""
    pytest.importorskip("lpips", reason="LPIPS's heads are in the extra [eval]")
    from torchvision import models as zoo

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    given = tmp_path / "squeeze.pth"
    kept = tmp_path / "checkpoints/alexnet-owt-7be5be79.pth"
    for path, net in ((given, zoo.squeezenet1_1), (kept, zoo.alexnet)):
        torch.save(net(weights=None).features.state_dict(), path)
    assert list(load_lpips(given)) == ["LPIPS-squeeze"]
    assert list(load_lpips(None)) == ["LPIPS-alex"]


def test_classic_codecs_say_that_they_get_one_channel(
    service: Service, given: Callable[[str, bytes], Path], speech: Original
) -> None:
    names = [baseline.name for baseline in service.classics.of("speech")]
    if not names:
        pytest.skip("no classic codec of speech is installed")
    stereo = service.open(given("stereo.wav", wav(tones(16_000, 16_000, 2))))
    said = service.classics.code(stereo, names[0], 100_000).notices
    assert any("the mean of the 2 channels" in line for line in said)
    assert not service.classics.code(speech, names[0], 100_000).notices


def test_tokens_of_every_channel_are_counted(
    service: Service, given: Callable[[str, bytes], Path]
) -> None:
    stereo = service.open(given("stereo.wav", wav(tones(16_000, 16_000, 2))))
    version = service.code(stereo, SPEECH, 256)
    every = tokens.tokens(service, version).indices.size
    assert tokens.edit(service, version, "one token", token=3)[1] == every


@pytest.mark.parametrize(
    ("medium", "name"), [("image", "webp"), ("image", "jpeg"), ("speech", "opus")]
)
def test_classic_codecs_stand_beside_at_the_nearest_bytes(
    medium: str, name: str, service: Service, speech: Original, image: Original
) -> None:
    if name not in [baseline.name for baseline in service.classics.of(medium)]:
        pytest.skip(f"{name} is not installed")
    source = speech if medium == "speech" else image
    version = service.classics.code(source, name, 1)
    assert version.kind == "classic"
    assert version.num_bytes == version.file.stat().st_size == len(version.file.read_bytes())
    assert any("cannot go down to 1 bytes" in line for line in version.notices)
    larger = service.classics.code(source, name, 3 * version.num_bytes)
    assert larger.num_bytes > version.num_bytes
    assert not larger.notices
    assert set(larger.scores) == set(
        service.code(source, service.models.of(medium)[0].name, 256).scores
    )


def test_compare_makes_every_version_that_is_asked_for(service: Service, image: Original) -> None:
    told: list[tuple[float, str]] = []
    versions = compare(
        service, image, [IMAGE], [1024, 256], ["jpeg"], True, lambda *step: told.append(step)
    )
    assert [v.codebook_size for v in versions] == [256, 1024, None, None]
    assert [share for share, _ in told] == sorted(share for share, _ in told)
    told = list(dict.fromkeys(told))  # each is told again while it goes on
    assert len(told) == len(versions)
    assert "1,024 codes" in told[1][1]
    with pytest.raises(MediaError, match="nothing to compare"):
        compare(service, image, [IMAGE], [])


def test_a_classic_codec_aims_at_the_largest_file_or_at_each(
    service: Service, image: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: list[int] = []
    code = service.classics.code

    def spy(original: Original, name: str, target: int, tried: dict[int, bytes]) -> Version:
        targets.append(target)
        return code(original, name, target, tried)

    monkeypatch.setattr(service.classics, "code", spy)
    small, large, _ = compare(service, image, [IMAGE], [256, 1024], ["jpeg"])
    assert targets == [large.num_bytes] != [small.num_bytes]
    made = {(256, 0): small, (1024, 0): large}
    made |= {(size, 1): replace(small, num_bytes=size, search=1) for size in (256, 1024)}
    monkeypatch.setattr(service, "code", lambda *found, search: made[found[2], search])
    targets.clear()
    compare(service, image, [IMAGE], [256, 1024], ["jpeg"], True, search=1)
    assert targets == [small.num_bytes, large.num_bytes]  # not those of the searched files


def test_a_search_is_a_version_of_its_own(
    service: Service, image: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    chosen = [IMAGE], [256, 1024], ["jpeg"], True, lambda _, what: told.append(what)
    versions = compare(service, image, *chosen, search=3)
    pairs = [(256, 0), (256, 3), (1024, 0), (1024, 3)]
    assert [(v.codebook_size, v.search) for v in versions[:4]] == pairs
    assert len(versions) == 6  # a JPEG for each size, not for each version
    assert versions[1].label == f"{versions[0].label}, searched"
    assert len({v.family for v in versions[:4]}) == 2
    assert short_names(versions)[:2] == ["256 codes", "256 codes, searched"]
    assert sum("search, " in what for what in dict.fromkeys(told)) == 2
    assert sum("search, " in what for what in told) > 2 * 3  # each step may be the last
    found = api.compress(image.data, 256, service.models.get(IMAGE), search=3)
    assert versions[1].file.read_bytes() == found != versions[0].file.read_bytes()
    with pytest.raises(MediaError, match="4 versions; choose at most 3"):
        compare(service, image, [IMAGE], [256, 1024], most=3, search=3)
    monkeypatch.setattr("app.media.Picture.searched_units", image.units * 3 / SEARCH - 1)
    told.clear()
    with pytest.raises(MediaError, match="would take minutes"):
        compare(service, image, *chosen, search=3)
    assert not told  # nothing was coded
    with pytest.raises(MediaError, match="would take minutes"):
        service.code(image, IMAGE, 256, search=3)
    service.code(image, IMAGE, 256, search=2)


@pytest.mark.parametrize("paper", ["#faf9f7", "#ffffff", "#1c1f22", "#131517"])
def test_every_tone_is_seen_on_light_and_dark_paper(paper: str) -> None:
    """3 : 1, WCAG 2.2, 1.4.11, on the page and on its cards."""

    def luminance(colour: str) -> float:
        linear = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in linear
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for tone in TONES:
        low, high = sorted((luminance(tone), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, tone


def test_sweep_covers_all_models_and_sizes(
    service: Service, image: Original, tmp_path: Path
) -> None:
    versions = sweep(service, image, ["jpeg"])
    coded = [version for version in versions if version.kind == "codec"]
    offered = [(card.name, k) for card in service.models.of("image") for k in card.num_codes]
    assert [(version.model, version.codebook_size) for version in coded] == offered
    rows = (
        write_csv(tmp_path / "t.csv", [version.record() for version in versions])
        .read_text()
        .splitlines()
    )
    assert len(rows) == 1 + len(versions)
    assert rows[0].startswith("version,kind,model,codebook_size")


@pytest.mark.parametrize("work", ["compare", "sweep"])
def test_what_a_report_raises_ends_the_work_before_the_next_version(
    work: str, service: Service, image: Original, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for owner, name in ((service, "code"), (service.classics, "code")):
        real = getattr(owner, name)
        monkeypatch.setattr(
            owner,
            name,
            lambda *given, _real=real, **more: (made.append("a version"), _real(*given, **more))[1],
        )

    class EnoughError(Exception):
        pass

    reports: list[float] = []

    def report(share: float, _: str) -> None:
        reports.append(share)
        if len(set(reports)) == 7:  # of four sizes and four of JPEG
            raise EnoughError

    sizes = list(service.models.card(IMAGE).num_codes)
    run = {
        "compare": lambda: compare(service, image, [IMAGE], sizes, ["jpeg"], True, report),
        "sweep": lambda: sweep(service, image, ["jpeg"], report),
    }[work]
    with pytest.raises(EnoughError):
        run()
    assert len(made) == 6
    assert reports == sorted(reports)


@pytest.mark.parametrize("search", [0, 20])
def test_what_a_report_raises_ends_a_version_that_is_being_made(
    search: int, service: Service, image: Original
) -> None:
    class EnoughError(Exception):
        pass

    told: list[str] = []

    def report(_: float, what: str) -> None:
        told.append(what)
        if told.count(what) == 4 and ("search" in what or not search):
            raise EnoughError

    with pytest.raises(EnoughError):
        compare(service, image, [IMAGE], [256], report=report, search=search)
    assert len(set(told)) == 1 + (search > 0)


# --------------------------------------------------------------------------------------------------
# inputs

BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is no recording" * 9, "not a recording or picture"),
    "cut picture": (picture(gradient(64, 96))[:900], "damaged picture"),
    "cut recording": (wav(tones(9000), kind="FLAC")[:60], "recording"),
    "bin": (b"\x8dCDC\r\n\x1a\n and so on", "open it in the Decode tab"),
    "too long": (wav(tones(16000 * 5)), "longer than 4 s"),
    "too large": (picture(gradient(400, 300)), "120,000 pixels; at most 100,000 are taken"),
    "too heavy": (bytes(3 << 20), "3 MiB; at most 2 MiB"),
    "too many channels": (wav(tones(150_000, 48_000, 12), 48_000), "12 channels at 48 kHz"),
    "no samples": (wav(tones(0)), "no samples"),
    "not a number": (wav(np.full((900, 1), np.nan, np.float32), subtype="FLOAT"), "not a number"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_plain_words(
    kind: str, service: Service, given: Callable[[str, bytes], Path]
) -> None:
    data, words_of_it = BAD[kind]
    if kind == "too many channels":
        service = Service(
            replace(service.settings, max_seconds=4, max_upload_bytes=99 << 20), service.files.root
        )
    with pytest.raises(CodecError, match=words_of_it) as caught:
        service.open(given("input", data))
    assert "\n" not in str(caught.value)
    assert not list((service.files.root / "files").rglob("*.*")), "a refused input leaves a file"


def test_nothing_and_the_wrong_medium_are_refused(
    service: Service, given: Callable[[str, bytes], Path]
) -> None:
    for nothing in (None, ""):
        with pytest.raises(MediaError, match="nothing is chosen"):
            service.open(nothing)
        with pytest.raises(MediaError, match="nothing is chosen"):
            service.decode(nothing)
        for ask in (service.bins.layers, service.bins.info):
            with pytest.raises(MediaError, match="nothing is chosen"):
                ask(nothing)
    with pytest.raises(MediaError, match="this is a picture"):
        service.open(given("a", picture(gradient(16, 16))), "speech")
    with pytest.raises(MediaError, match="no picture"):
        service.open(given("a", wav(tones(2000))), "image")


ODD = {
    "alpha": (picture(Image.new("RGBA", (32, 32), (255, 0, 0, 80))), "transparent", (32, 32)),
    "16 bits": (
        picture(Image.fromarray(np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64)),
        "8 bits",
        (32, 32),
    ),
    "stereo 96 kHz": (wav(tones(96_000, 96_000, 2), 96_000), "up to 8 kHz", (96_000, 2)),
    "silence": (wav(np.zeros((16000, 1), np.float32)), "silent", (16000, 1)),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_input_works_and_is_remarked_upon(
    kind: str, service: Service, given: Callable[[str, bytes], Path]
) -> None:
    data, remark, shape = ODD[kind]
    source = service.open(given("input", data))
    assert any(remark in line for line in source.notices), source.notices
    assert {"speech": "kHz", "image": f"{shape[1]} × {shape[0]} pixels"}[source.medium] in (
        source.description
    )
    version = service.code(source, service.models.of(source.medium)[0].name, 256)
    if source.medium == "speech":
        restored, rate = load_audio(io.BytesIO(version.media.read_bytes()))
        assert (restored.shape, f"{rate / 1000:g} kHz" in source.description) == (shape, True)
    if kind == "silence":
        assert version.scores == {"PESQ": None, "STOI": None}
    plain = service.open(given("plain", picture(gradient(32, 32))))
    assert not plain.notices  # negative control


def test_a_name_may_be_long_and_strange(
    service: Service, given: Callable[[str, bytes], Path]
) -> None:
    source = service.open(given("ü'\"<b>" + "名" * 80 + ".png", picture(gradient(32, 32))))
    version = service.code(source, IMAGE, 256)
    again, _ = service.decode(version.file)
    changed, _ = tokens.edit(service, again, "shuffle")
    assert changed.media.is_file()


def test_models_and_sizes_that_are_not_here(
    service: Service, image: Original, speech: Original
) -> None:
    with pytest.raises(ModelError, match="here are image-fsp, speech-fsp"):
        service.code(image, "image-none", 256)
    with pytest.raises(MediaError, match="choose from 256, 1024"):
        service.code(image, IMAGE, 300)
    with pytest.raises(MediaError, match="choose a model for speech"):
        service.code(speech, IMAGE, 256)
    with pytest.raises(MediaError, match="no baseline"):
        service.classics.code(image, "none", 1000)


# --------------------------------------------------------------------------------------------------
# decode


@pytest.mark.parametrize("medium", ["speech", "image"])
def test_a_bin_with_layers_is_shown_at_each_of_them(
    service: Service, given: Callable[[str, bytes], Path], medium: str
) -> None:
    media = wav(tones(16000)) if medium == "speech" else picture(gradient(64, 96))
    model = service.models.get(f"{medium}-fsp")
    path = given("layers.bin", api.compress(media, 1024, model, layers=True))
    stops = service.bins.layers(path)
    assert list(stops) == [256, 1024]
    for size, num_bytes in stops.items():
        version, _ = service.decode(path, size)
        assert (version.codebook_size, version.num_bytes) == (size, num_bytes)
        assert (
            version.file.read_bytes() == api.compress(media, 256, model)
            if size == 256
            else path.read_bytes()
        )
        expected = service.decode(given("single.bin", api.compress(media, size, model)))[0]
        assert np.array_equal(version.samples, expected.samples)
    assert service.decode(path)[0].codebook_size == 1024
    assert "layers" not in service.bins.info(path)
    with pytest.raises(MediaError, match="choose from 256, 1024"):
        service.decode(path, 4096)
    assert list(service.bins.layers(given("single.bin", api.compress(media, 256, model)))) == [256]


def test_a_bin_explains_itself_or_why_it_cannot(
    service: Service, image: Original, given: Callable[[str, bytes], Path]
) -> None:
    version = service.code(image, IMAGE, 1024)
    data = version.file.read_bytes()
    decoded, summary = service.decode(version.file)
    assert np.array_equal(decoded.samples, version.samples)
    assert summary.header.width == 96
    for length in range(0, len(data), 7):
        with pytest.raises(BitstreamError):
            service.decode(given("cut.bin", data[:length]))
    for place in range(0, len(data), 11):
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises((BitstreamError, ModelError)):
            service.decode(given("flip.bin", bytes(broken)))
    with pytest.raises(BitstreamError, match="not a file made by codec"):
        service.decode(given("text.bin", b"some words instead of bits"))


def test_a_bin_of_an_unknown_model_names_what_it_needs(
    service: Service, image: Original, tmp_path: Path, model_folder: Path
) -> None:
    version = service.code(image, IMAGE, 1024)
    folder = tmp_path / "others"
    folder.mkdir()
    for path in model_folder.glob("speech-fsp.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    poorer = Service(replace(service.settings, models=folder), tmp_path / "poorer")
    with pytest.raises(ModelError, match=service.models.card(IMAGE).model_id.hex()[:8]):
        poorer.decode(version.file)
    assert poorer.bins.info(version.file)["model"] == "not among the installed models"


def test_the_limits_hold_for_what_a_bin_unpacks_to(
    service: Service, given: Callable[[str, bytes], Path]
) -> None:
    """Small files of large things: the limits are those of inputs."""
    roomy = Service(replace(service.settings, max_seconds=60, max_pixels=10**6), service.files.root)
    long = roomy.code(
        roomy.open(given("a", wav(np.zeros((16000 * 6, 1), np.float32)))), SPEECH, 256
    )
    large = roomy.code(roomy.open(given("b", picture(Image.new("RGB", (500, 400))))), IMAGE, 256)
    for version in (long, large):
        assert roomy.decode(version.file)[0].num_bytes == version.num_bytes
        with pytest.raises(BitstreamError, match="over the limit"):
            service.decode(version.file)


def test_info_is_that_of_the_command(
    service: Service, speech: Original, capsys: pytest.CaptureFixture[str], models: Path
) -> None:
    assert models
    version = service.code(speech, SPEECH, 1024)
    assert info_main([str(version.file)]) == 0
    printed = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    printed = {key.strip(): value.strip() for key, value in printed.items()}
    assert service.bins.info(version.file) == {
        key: value for key, value in printed.items() if key != "file"
    }


# --------------------------------------------------------------------------------------------------
# tokens


@pytest.mark.parametrize("change", tokens.CHANGES)
def test_changed_tokens_make_a_true_bin(change: str, service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 1024)
    before = tokens.tokens(service, version)
    changed, count = tokens.edit(service, version, change, 0.5, 7, seed=3)
    after = tokens.tokens(service, changed)
    assert count == round(0.5 * before.indices.size)
    differ = before.indices != after.indices
    assert 0 < differ.sum() <= count
    assert changed.record()["model"] == IMAGE
    if change == "one token":
        assert (after.indices == 7).sum() >= count
    if change == "shuffle":
        assert np.array_equal(np.sort(before.indices.ravel()), np.sort(after.indices.ravel()))
    again, _ = tokens.edit(service, version, change, 0.5, 7, seed=3)
    assert again.file.read_bytes() == changed.file.read_bytes()
    none, count = tokens.edit(service, version, change, 0.0, 7)
    assert count == 0
    assert none.file.read_bytes() == version.file.read_bytes()


def test_a_spot_is_a_square_of_a_picture_and_a_stretch_of_speech(
    service: Service, image: Original, speech: Original
) -> None:
    version = service.code(image, IMAGE, 1024)
    before = tokens.tokens(service, version)
    changed, count = tokens.edit(service, version, "one token", token=9, area=(0.5, 0.5, 4))
    rows, columns = np.nonzero(before.map != tokens.tokens(service, changed).map)
    assert count == 16
    assert (rows.min() >= 2, rows.max() <= 5, columns.min() >= 4, columns.max() <= 7) == (True,) * 4
    _, count = tokens.edit(service, version, "one token", token=9, area=(4.5 / 12, 4.5 / 8, 4))
    assert count == 16  # around the middle of a token, too
    whole, _ = tokens.edit(service, version, "one token", token=9)  # negative control
    assert (before.map != tokens.tokens(service, whole).map).sum() > 16
    spoken = service.code(speech, SPEECH, 1024)
    inside = tokens.tokens(service, spoken)
    cut, count = tokens.edit(service, spoken, "one token", token=9, area=(0.5, 0.0, 5))
    places = np.flatnonzero(inside.indices[0, 0] != tokens.tokens(service, cut).indices[0, 0])
    assert count == 5
    assert places.max() - places.min() < 5


def test_changes_that_make_no_sense_are_refused(service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 256)
    with pytest.raises(MediaError, match="choose 0 to 255"):
        tokens.edit(service, version, "one token", token=256)
    with pytest.raises(MediaError, match="unknown change"):
        tokens.edit(service, version, "explode")


def test_the_codebook_on_the_page_is_the_models(service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 1024)
    inside = tokens.tokens(service, version)
    model = service.models.get(IMAGE)
    index = int(inside.indices[0, 0, 5])
    expected = model.codec.bottleneck.decode(torch.tensor([[[index]]]), 1024)[0, :, 0]
    assert np.array_equal(inside.vectors[index], expected.numpy())
    assert inside.counts.sum() == inside.indices.size
    assert inside.map.shape == (8, 12)


# --------------------------------------------------------------------------------------------------
# drawings


def test_equal_loudness_is_equal_and_only_turns_down() -> None:
    loud = tones(32000)[:, 0]
    signals = [loud, 0.3 * loud, 0.05 * loud]
    gains = pictures.playback_gains([pictures.loudness(signal) for signal in signals])
    assert max(gains) == 0 == gains[2]
    played = [
        pictures.loudness(signal * 10 ** (gain / 20))
        for signal, gain in zip(signals, gains, strict=True)
    ]
    assert np.ptp([value for value in played if value is not None]) < 0.05
    assert pictures.loudness(np.zeros(32000, np.float32)) is None
    assert pictures.loudness(loud[:1000]) is None
    assert pictures.playback_gains([None, -20.0, None]) == [0.0, 0.0, 0.0]


def test_a_token_has_its_colour_wherever_it_stands(tmp_path: Path) -> None:
    grid = np.array([[0, 5, 0], [5, 9, -1]])
    with Image.open(pictures.token_map(grid, 10, tmp_path / "map.png")) as image:
        pixels = np.array(image)
    assert pixels.shape == (2, 3, 4)
    assert np.array_equal(pixels[0, 0], pixels[0, 2])
    assert np.array_equal(pixels[0, 1], pixels[1, 0])
    assert len(np.unique(pixels[[0, 0, 1], [0, 1, 1]], axis=0)) == 3
    assert pixels[1, 2, 3] == 0


def test_histogram_and_waveform_lose_nothing() -> None:
    counts = np.random.default_rng(0).integers(0, 9, 1000)
    bars = pictures.histogram(counts, 128)
    assert sum(float(str(bar["share"])) for bar in bars) == pytest.approx(1, abs=1e-3)
    assert (bars[0]["first"], bars[-1]["last"]) == (0, 999)
    signal = np.zeros(10_000, np.float32)
    signal[6789] = 0.75
    assert max(high for _, high in pictures.peaks(signal)) == 0.75
    assert pictures.peaks(signal[:3])


def test_a_codebook_of_any_dimension_is_drawn(tmp_path: Path) -> None:
    for dim in (1, 2, 5):
        vectors = np.random.default_rng(0).normal(size=(50, dim)).astype(np.float32)
        path = pictures.codebook_plane(vectors, np.arange(50), tmp_path / f"{dim}.png")
        with Image.open(path) as image:
            assert np.array(image)[..., 3].any()
    assert pictures.codebook_plane(
        np.zeros((4, 3), np.float32), np.zeros(4, np.int64), tmp_path / "0.png"
    ).is_file()


# --------------------------------------------------------------------------------------------------
# blind tests


def test_ratings_come_back_to_what_was_rated(service: Service, image: Original) -> None:
    versions = compare(service, image, [IMAGE], [256, 1024, 4096])
    orders = set()
    for _ in range(20):
        test = trials.start_rating(versions)
        orders.add(tuple(test.names))
        assert sorted(test.names) == sorted(
            [trials.ORIGINAL, *(version.label for version in versions)]
        )
        values = {
            "Original": 100,
            versions[0].label: 10,
            versions[1].label: 20,
            versions[2].label: 30,
        }
        letters = dict(zip(trials.letters(4), (values[name] for name in test.names), strict=True))
        rows = trials.finish_rating(test, letters)
        assert {row["version"]: row["rating"] for row in rows} == values
        assert rows[0]["version"] == "Original"
        assert rows[1]["bytes"] == versions[2].num_bytes
    assert len(orders) > 1  # it is shuffled
    with pytest.raises(MediaError, match="B has no rating"):
        trials.finish_rating(test, {"A": 1})
    for rating in (101, -1):
        with pytest.raises(MediaError, match="0 to 100"):
            trials.finish_rating(test, dict.fromkeys("ABCD", rating))
    with pytest.raises(MediaError, match="A has no rating"):
        trials.finish_rating(test, {"A": "<script>"})


def test_x_is_tossed_among_two(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def draw(limit: int) -> int:
        asked.append(limit)
        return len(asked) % limit

    monkeypatch.setattr("app.trials.secrets.randbelow", draw)
    test, sides = trials.Abx("x", {}), []
    for _ in range(4):
        trials.toss(test)
        sides.append(test.x_is_a)
    assert asked == [2, 2, 2, 2]
    assert sides == [False, True, False, True]


def test_abx_counts_and_knows_chance(service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 256)
    sure, sides = trials.start_abx(version), set()
    with pytest.raises(MediaError, match="no answer"):
        trials.finish_abx(sure)
    while not sure.done:
        trials.toss(sure)
        sides.add(sure.x_is_a)
        trials.answer(sure, sure.x_is_a)
    result = trials.finish_abx(sure)
    assert (result["right"], result["trials"]) == (10, 10)
    assert result["by_chance"] == pytest.approx(1 / 1024, abs=1e-4)
    with pytest.raises(MediaError, match="over"):
        trials.answer(sure, True)
    guessing = trials.Abx("x", {}, answers=[True, False] * 5)
    assert trials.finish_abx(guessing)["by_chance"] == pytest.approx(0.623, abs=1e-3)


def test_disguised_files_tell_nothing_by_their_names(service: Service, image: Original) -> None:
    version = service.code(image, IMAGE, 256)
    copies = trials.disguise(service.files, [image.media, version.media])
    assert [copy.read_bytes() for copy in copies] == [
        image.media.read_bytes(),
        version.media.read_bytes(),
    ]
    for copy in copies:  # the size is not looked for: random digits may spell it
        assert not any(word in copy.name for word in ("original", "fsp", "photo"))


# --------------------------------------------------------------------------------------------------
# models and files


def test_a_model_is_loaded_once_whoever_asks(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    genuine = coding.load

    def counting(card: cards.Card, device: str = "cpu") -> coding.Model:
        loads.append(card.name)
        return genuine(card, device)

    monkeypatch.setattr(coding, "load", counting)
    models = Models(model_folder)
    threads = [threading.Thread(target=models.get, args=(name,)) for name in [SPEECH, IMAGE] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads) == [IMAGE, SPEECH]
    assert models.by_id(models.card(IMAGE).model_id) is models.get(IMAGE)


def test_two_users_at_once_get_their_own(
    service: Service, given: Callable[[str, bytes], Path]
) -> None:
    inputs = [given(f"{n}.png", picture(gradient(32 + 8 * n, 40))) for n in range(4)]
    alone = [service.code(service.open(path), IMAGE, 1024).file.read_bytes() for path in inputs]
    together: dict[int, bytes] = {}

    def use(number: int) -> None:
        together[number] = service.code(service.open(inputs[number]), IMAGE, 1024).file.read_bytes()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(4)] == alone


def test_notices_go_to_who_caused_them() -> None:
    log = logging.getLogger("codec")
    with collected_notices() as mine:
        other = threading.Thread(target=log.warning, args=("of another user",))
        other.start()
        other.join()
        log.warning("of mine")
    log.warning("afterwards")
    assert mine == ["of mine"]


def test_old_files_go_and_new_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = TemporaryFiles(tmp_path, keep_s=100)
    old, new = shelf.folder(), shelf.folder()
    for folder in (old, new):
        (folder / "a.png").write_bytes(bytes(1000))
    os.utime(old, (0, 0))
    shelf.tidy()
    assert (old.exists(), new.exists()) == (False, True)
    newer = shelf.folder()
    (newer / "a.png").write_bytes(bytes(1000))
    os.utime(new, (new.stat().st_atime, new.stat().st_mtime - 50))
    monkeypatch.setattr("app.store.MAX_FILES_BYTES", 1500)
    shelf.tidy()
    assert (new.exists(), newer.exists()) == (False, True)
    assert len({shelf.folder().name for _ in range(50)}) == 50


def test_uploads_count_and_go_like_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that broke off, which lie there as Gradio began them."""
    shelf = TemporaryFiles(tmp_path, keep_s=100)
    (tmp_path / "notes.txt").write_text("of somebody else")
    upload, broken = tmp_path / ("a1" * 32), tmp_path / "tmpx_3k"
    upload.mkdir()
    for path in (upload / "voice.wav", broken):
        path.write_bytes(bytes(1000))
    shelf.tidy()
    assert upload.exists()
    assert broken.exists()
    now = time.time()
    os.utime(broken, (now, now - 10))
    os.utime(tmp_path / "notes.txt", (0, 0))
    monkeypatch.setattr("app.store.MAX_FILES_BYTES", 1500)
    shelf.tidy()
    assert (upload.exists(), broken.exists()) == (True, False)
    os.utime(upload, (now, now - 101))
    shelf.tidy()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# --------------------------------------------------------------------------------------------------
# command


def test_it_starts_without_torch_and_gradio() -> None:
    """--help answers at once, and the page before the nets are imported."""
    code = (
        "import sys, app.__main__; print(sorted({'torch', 'gradio', 'skimage'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    code = (
        "import sys, app.service, app.tokens, app.trials; "
        "print('torch' in sys.modules, 'skimage' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False False"


def test_without_a_folder_for_temporary_files_the_server_says_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.gettempdir", no_temporary_folder)
        assert command.main([]) == 1
    error = "error: no folder for temporary files can be written; set TMPDIR to one that can\n"
    assert capsys.readouterr().err == error


def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert command.main(["--port", port]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert error.count("\n") == 1
    assert command.main(["--host", "no.such.invalid"]) == 1
    assert "no.such.invalid; give another --host" in capsys.readouterr().err
    assert command._address("::1", 80) == "[::1]:80"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert command.main(["--models", str(tmp_path), "--port", port]) == 3
    assert "no model cards here" in capsys.readouterr().err
    for wrong in (
        ["--max-seconds", "0"],
        ["--max-megapixels", "many"],
        ["--queue", "-1"],
        ["--port", "70000"],
        ["--port", "-1"],
        ["--lpips-backbone", "none"],
    ):
        with pytest.raises(SystemExit) as stopped:
            command.main(wrong)
        assert stopped.value.code == 2


def test_demo_mode_is_tighter_and_gives_way_to_options() -> None:
    parser = command._parser()
    usual = command._settings(parser.parse_args([]))
    public = command._settings(parser.parse_args(["--demo-mode"]))
    for limit in ("max_seconds", "max_pixels", "max_upload_bytes", "queue", "keep_s"):
        assert getattr(public, limit) < getattr(usual, limit)
    mine = command._settings(
        parser.parse_args(["--demo-mode", "--max-seconds", "7", "--max-megapixels", "0.5"])
    )
    assert (mine.max_seconds, mine.max_pixels, mine.keep_s) == (7, 500_000, public.keep_s)
    assert parser.parse_args([]).host == "127.0.0.1"
    assert not parser.parse_args([]).share


# --------------------------------------------------------------------------------------------------
# words


def test_words_of_the_page_are_escaped_and_explained() -> None:
    assert "<script>" not in words.empty("<script>", "<script>") + words.notice(
        ["<script>"]
    ) + words.tip("<script>")
    assert words.notice([]) == ""
    assert words.notice(["a", "a"]).count("<p>") == 1
    for term in (
        "bytes",
        "kbit/s",
        "bits per pixel",
        "ratio",
        "PESQ",
        "STOI",
        "PSNR",
        "SSIM",
        "SSIMULACRA2",
        "codes used",
        "time",
    ):
        assert f'data-tip="{words.TERMS[term][:9]}' in words.tip(term)
    assert (words.number(None).count("–"), words.number(1234), words.number(0.12345)) == (
        1,
        "1,234",
        "0.123",
    )
