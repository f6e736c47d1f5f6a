"""The hub of the tests is one that the real client can work with."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

from tests.unit.hub_server import Hub, hub  # noqa: F401 - a fixture


@pytest.fixture
def api(hub: Hub) -> huggingface_hub.HfApi:  # noqa: F811
    return huggingface_hub.HfApi(token=hub.token)


def test_what_is_uploaded_comes_back(hub: Hub, api: huggingface_hub.HfApi, tmp_path: Path) -> None:  # noqa: F811
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    contents = {"a.txt": b"one", "deep/b.bin": bytes(range(256)), "deep/er/c": b"", "README.md": b"# hi"}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    url = api.create_repo("thing", repo_type="space", space_sdk="gradio", private=True)
    assert (url.repo_id, url.repo_type) == ("tester/thing", "space")
    assert api.create_repo("thing", repo_type="space", space_sdk="gradio", exist_ok=True) == url
    done = api.upload_folder(repo_id=url.repo_id, repo_type="space", folder_path=source, commit_message="first")
    assert hub.files("space", "tester/thing") == contents
    assert hub.repos["space", "tester/thing"].private
    assert api.space_info(url.repo_id).sha == done.oid
    assert sorted(api.list_repo_files(url.repo_id, repo_type="space")) == sorted(contents)
    folder = Path(api.snapshot_download(url.repo_id, repo_type="space"))
    assert {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()} == contents
    one = api.hf_hub_download(url.repo_id, "deep/b.bin", repo_type="space")
    assert Path(one).read_bytes() == contents["deep/b.bin"]


def test_a_pull_request_leaves_the_main_branch_alone(hub: Hub, api: huggingface_hub.HfApi) -> None:  # noqa: F811
    hub.put("model", "me/m", {"a": b"old"})
    done = api.upload_file(path_or_fileobj=b"new", path_in_repo="a", repo_id="me/m", create_pr=True)
    assert done.pr_revision == "refs/pr/1"
    assert hub.files("model", "me/m") == {"a": b"old"}
    assert hub.files("model", "me/m", "refs/pr/1") == {"a": b"new"}
    assert Path(api.hf_hub_download("me/m", "a", revision="refs/pr/1")).read_bytes() == b"new"


def test_a_folder_goes_into_a_pull_request(hub: Hub, api: huggingface_hub.HfApi, tmp_path: Path) -> None:  # noqa: F811
    hub.put("space", "me/s", {"a": b"old"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"new")
    done = api.upload_folder(repo_id="me/s", repo_type="space", folder_path=tmp_path / "folder", create_pr=True)
    assert done.pr_url == f"{hub.url}/spaces/me/s/discussions/1"
    assert hub.files("space", "me/s") == {"a": b"old"}
    assert hub.files("space", "me/s", "refs/pr/1") == {"a": b"new"}


def test_a_file_is_deleted(hub: Hub, api: huggingface_hub.HfApi) -> None:  # noqa: F811
    hub.put("model", "me/m", {"a": b"1", "b": b"2"})
    api.delete_file("a", "me/m")
    assert hub.files("model", "me/m") == {"b": b"2"}


def test_what_is_not_there_or_not_for_everybody_is_told_as_the_hub_tells_it(hub: Hub) -> None:  # noqa: F811
    hub.put("model", "me/secret", {"a": b"1"}, private=True)
    stranger = huggingface_hub.HfApi(token=False)
    with pytest.raises(RepositoryNotFoundError):
        stranger.hf_hub_download("me/secret", "a")
    friend = huggingface_hub.HfApi(token=hub.token)
    assert Path(friend.hf_hub_download("me/secret", "a")).read_bytes() == b"1"
    with pytest.raises(EntryNotFoundError):
        friend.hf_hub_download("me/secret", "b")
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.create_repo("me/new")


def test_a_collection_has_its_items(hub: Hub) -> None:  # noqa: F811
    hub.collect("me/best-1", ("space", "me/a"), ("model", "me/b"))
    found = huggingface_hub.HfApi(token=False).get_collection("me/best-1")
    assert [(item.item_type, item.item_id) for item in found.items] == [("space", "me/a"), ("model", "me/b")]
