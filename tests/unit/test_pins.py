"""The image that was built here, told apart from another under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import EngineError, ImageChanged, ImageMissing
from orchestrator.stack import pins
from orchestrator.stack.image import checked_id
from tests.unit.apart import apart, ordinary_folder

NAME = "cellblock-executor:0123456789ab"
ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def image(image_id: str = ONE, sources: str | None = "0123456789ab") -> dict[str, Any]:
    labels = {"cellblock.base": "b"} | ({"cellblock.sources": sources} if sources is not None else {})
    return {"Id": image_id, "Config": {"Labels": labels}}


def test_what_is_kept_is_found_again_under_its_name_alone() -> None:
    assert pins.pinned(NAME) == ""
    pins.pin(NAME, ONE)
    assert pins.pinned(NAME) == ONE
    assert pins.pinned("cellblock-executor:ba9876543210") == ""
    pins.pin(NAME, OTHER)
    assert pins.pinned(NAME) == OTHER


def test_nothing_else_is_left_behind(cache: Path) -> None:
    pins.pin(NAME, ONE)
    assert [path.name for path in (cache / "cellblock" / "images").iterdir()] == ["cellblock-executor_0123456789ab"]


@apart
def test_where_nothing_can_be_written_nothing_is_kept() -> None:
    with ordinary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        folder.chmod(0o500)
        pins.pin(NAME, ONE)
        assert pins.pinned(NAME) == ""
        folder.chmod(0o700)
        pins.pin(NAME, ONE)
        assert pins.pinned(NAME) == ONE


def test_a_pin_that_cannot_be_read_is_not_taken_for_none(cache: Path) -> None:
    pins.pin(NAME, ONE)
    (file,) = (cache / "cellblock" / "images").iterdir()
    file.write_bytes(b"\xff")
    with pytest.raises(EngineError, match=f"^{file}, .* cannot be read: it is no text"):
        checked_id(NAME, image(OTHER))
    file.unlink()
    file.mkdir()
    with pytest.raises(EngineError, match=f"^{file}, .* cannot be read: Is a directory"):
        checked_id(NAME, image(OTHER))


def test_a_name_is_no_path(cache: Path) -> None:
    pins.pin("../../elsewhere/x:y", ONE)
    assert [path.name for path in (cache / "cellblock" / "images").iterdir()] == [".._.._elsewhere_x_y"]


def test_an_image_of_the_sources_in_its_name_is_taken_and_its_id_is_what_counts() -> None:
    assert checked_id(NAME, image()) == ONE
    pins.pin(NAME, ONE)
    assert checked_id(NAME, image()) == ONE


def test_a_variant_that_was_made_of_it_is_taken() -> None:
    assert checked_id(f"{NAME}-more", image(OTHER)) == OTHER
    with pytest.raises(ImageChanged):
        checked_id(f"{NAME}-more", image(sources="ba9876543210"))


@pytest.mark.parametrize("sources", [None, "", "ba9876543210", "0123456789a"])
def test_an_image_of_other_sources_is_refused(sources: str | None) -> None:
    with pytest.raises(ImageChanged, match=f"{NAME} .*was not built from these sources; run `make image`") as caught:
        checked_id(NAME, image(sources=sources))
    assert isinstance(caught.value, ImageMissing)


@pytest.mark.parametrize(
    "inspected", [{"Id": ONE}, {"Id": ONE, "Config": None}, {"Id": ONE, "Config": {"Labels": None}}]
)
def test_an_image_without_labels_is_not_ours(inspected: dict[str, Any]) -> None:
    with pytest.raises(ImageChanged):
        checked_id(NAME, inspected)


def test_a_name_without_sources_is_not_that_of_an_image_without_sources() -> None:
    for name in ("cellblock-executor", "cellblock-executor:", "cellblock-executor:-more"):
        with pytest.raises(ImageChanged):
            checked_id(name, image(sources=None))


def test_another_image_than_the_one_that_was_built_here_is_refused() -> None:
    pins.pin(NAME, ONE)
    with pytest.raises(ImageChanged) as caught:
        checked_id(NAME, image(OTHER))
    assert ONE in str(caught.value)
    assert OTHER in str(caught.value)


@pytest.mark.parametrize("name", [ONE, "registry/own:1", "own@sha256:" + "1" * 64, "cellblock-executor-own:1"])
def test_an_image_of_another_name_is_its_owners_business(name: str) -> None:
    assert checked_id(name, image(OTHER, None)) == OTHER
