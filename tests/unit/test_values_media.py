"""Pictures and sound across the wall, both ways; what only says that it is one stays out."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from executor_image.runner import values
from executor_image.runner.media import Media
from orchestrator.errors import ConfigError, ProtocolViolation, ValueNotPortable
from orchestrator.media import MIME_TYPES, AgentAudio, AgentImage, media_of
from orchestrator.sandbox.values import MAX_BYTES, Opaque, decode, encode
from tests.unit.value_samples import decode_arguments

BEGINNINGS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\0\0\0\0WEBP",
    "audio/wav": b"RIFF\0\0\0\0WAVE",
    "audio/mpeg": b"ID3",
    "audio/ogg": b"OggS",
    "audio/flac": b"fLaC",
}


def out(value: object) -> Any:
    """From the sandbox to the host."""
    return decode(values.encode_result(value))


def into(value: object) -> Any:
    """From the host into the sandbox."""
    return values.decode(memoryview(encode(value, "value")))


def picture(mode: str = "RGB", size: tuple[int, int] = (3, 2)) -> Any:
    return Image.new(mode, size, 1)


def stored(made: Any, kind: str) -> bytes:
    file = io.BytesIO()
    made.save(file, kind)
    return file.getvalue()


def test_every_format_that_can_travel_is_tried_here() -> None:
    assert set(BEGINNINGS) == MIME_TYPES


@pytest.mark.parametrize("mime", BEGINNINGS)
def test_media_cross_both_ways_as_they_are(mime: str) -> None:
    data = BEGINNINGS[mime] + bytes(range(256))
    there = into([media_of(data, mime)])[0]
    assert type(there) is Media, "nothing can be decoded of that, so it is the data"
    assert (there.mime, there.data) == (mime, data)
    assert there._repr_mimebundle_() == {mime: data}
    back = out({"k": there})["k"]
    assert back == media_of(data, mime)
    assert type(back) is (AgentAudio if mime.startswith("audio/") else AgentImage)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBa", "La"])
def test_pictures_of_pillow_leave_and_enter_as_png(mode: str) -> None:
    made = picture(mode)
    for image in (out(made), decode(encode(made, "value"))):
        assert isinstance(image, AgentImage)
        assert (image.mime, image.to_pil().size) == ("image/png", (3, 2))
    assert into(made).size == (3, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_pictures_from_files_of_any_kind_leave_as_png_and_arrive_as_pillows(kind: str, tmp_path: Path) -> None:
    data = stored(picture(size=(5, 4)), kind)
    opened = Image.open(io.BytesIO(data))
    assert type(opened) is not Image.Image
    assert out(opened).mime == "image/png"
    there = into(AgentImage.of(data))
    assert (there.format, there.size) == (kind, (5, 4))
    assert out(there).to_pil().size == (5, 4)


def test_the_pixels_are_the_same() -> None:
    made = Image.frombytes("RGB", (16, 16), bytes(n % 251 for n in range(16 * 16 * 3)))
    assert out(made).to_pil().tobytes() == made.tobytes() == into(AgentImage.of(made)).tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBa", "La"])
def test_modes_that_png_does_not_have_are_converted(mode: str) -> None:
    image = AgentImage.of(picture(mode))
    assert image.to_pil().mode == {"RGBa": "RGBA", "La": "LA"}.get(mode, "RGB")
    with pytest.raises(ConfigError, match=r"cannot be stored as PNG .*; convert it to RGB first"):
        AgentImage.of(picture("F"))


def test_a_picture_that_cannot_be_png_is_opaque_and_cannot_be_an_argument() -> None:
    found = out([picture("F"), 1])
    assert isinstance(found[0], Opaque)
    assert found[1] == 1
    with pytest.raises(values.NotPortable, match=r"argument 1: a picture that cannot be stored as PNG"):
        values.encode_arguments((picture("F"),), {})
    with pytest.raises(ValueNotPortable, match="value: a picture that cannot be stored as PNG"):
        encode(picture("F"), "value")


def test_a_picture_that_is_too_large_is_opaque_by_itself() -> None:
    noise = Image.effect_noise((2000, 2000), 100)
    found = out([noise, 1])
    assert isinstance(found[0], Opaque)
    assert found[1] == 1
    with pytest.raises(values.NotPortable, match=r"image/png of [\d,]+ bytes; at most 2,097,152"):
        values.encode_arguments((noise,), {})
    with pytest.raises(ValueNotPortable, match="bytes; at most"):
        encode(noise, "value")


def bomb(*_: Any, **__: Any) -> Any:
    raise AssertionError("a method of the user's was called")


def test_a_subclass_and_a_class_that_says_it_is_pillows_are_opaque() -> None:
    own = type("Own", (Image.Image,), {"save": bomb, "convert": bomb, "__repr__": lambda self: "<mine>"})
    says = type("Image", (Image.Image,), {"__module__": "PIL.Image", "save": bomb, "__repr__": lambda self: "<mine>"})
    other = type("Image", (), {"__module__": "PIL.Image", "__repr__": lambda self: "<mine>"})
    for hostile in (own(), says(), other()):
        assert out(hostile).text == "<mine>"


@pytest.mark.parametrize("module", ["PIL.Image", "pandas", "matplotlib.figure", "numpy"])
@pytest.mark.parametrize("instead", [None, 5, types.SimpleNamespace(Image=5, Figure=5, DataFrame=5)], ids=type)
def test_whatever_user_code_puts_in_the_place_of_a_library(
    module: str, instead: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, instead)
    found = decode(values.encode_result([1, object()]))
    assert isinstance(found, Opaque) or found[0] == 1


def attribute(name: str, value: Any) -> Callable[[], Media]:
    def make() -> Media:
        media = Media("image/png", BEGINNINGS["image/png"])
        setattr(media, name, value)
        return media

    return make


@pytest.mark.parametrize(
    "make",
    [
        attribute("mime", "image/jpeg"),
        attribute("mime", "text/html"),
        attribute("mime", None),
        attribute("mime", type("Text", (str,), {"__eq__": bomb, "__hash__": bomb})("image/png")),
        attribute("data", b""),
        attribute("data", b"GIF89a"),
        attribute("data", bytearray(BEGINNINGS["image/png"])),
        attribute("data", BEGINNINGS["image/png"] + bytes(MAX_BYTES)),
    ],
)
def test_media_that_code_has_changed_cannot_break_the_protocol(make: Callable[[], Media]) -> None:
    """The host would take it for a violation and end the container."""
    assert isinstance(out([make()])[0], Opaque)
    with pytest.raises(values.NotPortable):
        values.encode_arguments((make(),), {})


def test_the_budget_of_bytes_is_one_for_all_parts() -> None:
    large = Media("audio/ogg", b"OggS" + bytes(MAX_BYTES // 2))
    assert out([large])[0].mime == "audio/ogg"
    assert isinstance(out([large, large]), Opaque)
    with pytest.raises(ValueNotPortable, match="at most 2,097,152 can travel"):
        encode([AgentAudio(large.data, large.mime)] * 2, "value")


@pytest.mark.parametrize(
    "media",
    [
        pb.Media(),
        pb.Media(format=pb.Media.FORMAT_PNG),
        pb.Media(format=pb.Media.FORMAT_PNG, data=b"GIF89a"),
        pb.Media(format=99, data=BEGINNINGS["image/png"]),
        pb.Media(data=BEGINNINGS["image/png"]),
        pb.Media(format=pb.Media.FORMAT_WAV, data=BEGINNINGS["image/webp"]),
    ],
)
def test_media_that_are_not_what_they_say_are_a_violation(media: pb.Media) -> None:
    for message in (pb.Value(media=media), pb.Value(list=pb.ValueList(items=[pb.Value(media=media)]))):
        with pytest.raises(ProtocolViolation, match="a media that is none"):
            decode(message.SerializeToString())
        with pytest.raises(ProtocolViolation):
            decode_arguments(pb.Arguments(positional=pb.ValueList(items=[message])).SerializeToString())


@settings(max_examples=200)
@given(st.integers(0, 12), st.sampled_from(sorted(BEGINNINGS.values())), st.binary(max_size=30))
def test_any_media_are_what_they_say_or_a_violation(format_: int, beginning: bytes, rest: bytes) -> None:
    message = pb.Value(media=pb.Media(format=format_, data=beginning + rest))  # type: ignore[arg-type]
    try:
        found = decode(message.SerializeToString())
    except ProtocolViolation:
        return
    assert found.data == beginning + rest
    assert BEGINNINGS[found.mime][:3] == beginning[:3]


def test_a_picture_that_pillow_cannot_read_arrives_as_its_data() -> None:
    there = into(AgentImage(BEGINNINGS["image/png"] + b"nothing", "image/png"))
    assert type(there) is Media


def test_without_pillow_a_picture_arrives_as_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = encode(picture(), "value")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    there = values.decode(memoryview(sent))
    assert (type(there), there.mime) == (Media, "image/png")
    assert repr(there) == f"<Media: image/png, {len(there.data)} bytes>"
    assert out(there).mime == "image/png"


def test_a_figure_of_matplotlib_leaves_as_png() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    figure.add_subplot().plot([1, 2])
    assert out(figure).to_pil().size == (640, 480)


def test_a_figure_that_cannot_be_drawn_is_opaque_by_itself() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    figure = figures.Figure()
    figure.suptitle("$\\nonsense$")
    found = out([figure, 1])
    assert isinstance(found[0], Opaque)
    assert found[1] == 1
