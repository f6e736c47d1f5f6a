"""What the hub of ``hub_server`` knows, and what it answers to each request: plain functions, without a socket."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

OWNER = "tester"  # whose token it is, and whose repositories those without an owner are
LONG_AGO = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Commit:
    """One state of a repository. ``id`` has the form of a git commit's: clients know it by that."""

    message: str
    files: Mapping[str, bytes]
    parent: str = ""

    @property
    def id(self) -> str:
        content = repr((self.parent, self.message, sorted(self.files.items())))
        return hashlib.sha1(content.encode()).hexdigest()


@dataclass
class Repo:
    """``sdk`` is a Space's. ``heads`` maps branches, and pull requests as ``refs/pr/1``, to commits."""

    private: bool = False
    sdk: str | None = None
    heads: dict[str, Commit] = field(default_factory=lambda: {"main": Commit("initial commit", {})})
    commits: dict[str, Commit] = field(default_factory=dict)

    def advance(self, branch: str, commit: Commit) -> None:
        self.heads[branch] = self.commits[commit.id] = commit

    def at(self, revision: str) -> Commit | None:
        return self.heads.get(revision) or self.commits.get(revision)


@dataclass
class Refusal(Exception):
    """``code`` goes into X-Error-Code, by which the client knows what is meant."""

    status: int
    message: str
    code: str = ""


@dataclass
class Hub:
    """What the server knows, for a test to fill and to look at.

    Attributes:
        requests: ``METHOD /path`` of each request, in order.
        tokens: what each of them showed as its token; "" for none.
    """

    url: str = ""
    token: str = "hf_local_token"
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def put(self, kind: str, name: str, files: Mapping[str, bytes], private: bool = False) -> str:
        """Commits ``files`` to the repository, made if it is not there; gives the commit's id.

        Args:
            kind: "model", "space" or "dataset".
        """
        repo = self.repos.setdefault((kind, name), Repo(private, "gradio" if kind == "space" else None))
        head = repo.heads["main"]
        repo.advance("main", Commit("put", {**head.files, **files}, head.id))
        return repo.heads["main"].id

    def files(self, kind: str, name: str, revision: str = "main") -> Mapping[str, bytes]:
        commit = self.repos[kind, name].at(revision)
        assert commit is not None
        return commit.files

    def collect(self, slug: str, *items: tuple[str, str]) -> None:
        """Makes a collection of ``(kind, name)``."""
        self.collections[slug] = {
            "slug": slug,
            "title": slug,
            "owner": {"name": OWNER, "type": "user"},
            "lastUpdated": LONG_AGO,
            "position": 0,
            "private": False,
            "theme": "blue",
            "upvotes": 0,
            "items": [
                {"_id": f"{place:024x}", "id": name, "type": kind, "position": place}
                for place, (kind, name) in enumerate(items)
            ],
        }


def blob_id(data: bytes) -> str:
    """As git names it; clients skip what has the same."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Request:
    hub: Hub
    method: str
    path: str
    query: Mapping[str, list[str]]
    token: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def repo(self, kind: str, name: str) -> Repo:
        found = self.hub.repos.get((kind, name))
        if found is None or (found.private and self.token != self.hub.token):
            raise Refusal(404 if self.token else 401, "Repository not found", "RepoNotFound")
        return found

    def commit(self, kind: str, name: str, revision: str) -> Commit:
        found = self.repo(kind, name).at(revision)
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def may_write(self) -> None:
        if self.token != self.hub.token:
            raise Refusal(401, "Invalid credentials in Authorization header")


@dataclass(frozen=True)
class Reply:
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


def as_json(value: Any) -> Reply:
    return Reply(json.dumps(value).encode())


def who_am_i(request: Request) -> Reply:
    request.may_write()
    return as_json({"name": OWNER, "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})


def validate_yaml(request: Request) -> Reply:
    return as_json({"errors": [], "warnings": []})


def create(request: Request) -> Reply:
    request.may_write()
    asked = request.json()
    kind = asked.get("type", "model")
    name = f"{asked.get('organization') or OWNER}/{asked['name']}"
    url = f"{request.hub.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"
    if (kind, name) in request.hub.repos:
        return Reply(json.dumps({"error": "You already created this repo", "url": url}).encode(), {":status": "409"})
    private = asked.get("visibility") == "private" or asked.get("private") is True
    request.hub.repos[kind, name] = Repo(private, asked.get("sdk"))
    return as_json({"url": url, "name": name})


def preupload(request: Request, kind: str, name: str, revision: str) -> Reply:
    request.may_write()
    known = request.commit(kind, name, revision).files
    return as_json({
        "files": [
            {
                "path": file["path"],
                "uploadMode": "regular",
                "shouldIgnore": False,
                "oid": blob_id(known[file["path"]]) if file["path"] in known else None,
            }
            for file in request.json()["files"]
        ]
    })  # fmt: skip


def commit(request: Request, kind: str, name: str, revision: str) -> Reply:
    request.may_write()
    repo, base = request.repo(kind, name), request.commit(kind, name, revision)
    header, *operations = [json.loads(line) for line in request.body.splitlines()]
    assert header["key"] == "header"
    made = Commit(header["value"]["summary"], _applied(base.files, operations), base.id)
    number = sum(head.startswith("refs/pr/") for head in repo.heads) + 1
    branch = f"refs/pr/{number}" if request.query.get("create_pr") else revision
    repo.advance(branch, made)
    place = f"{request.hub.url}/{'' if kind == 'model' else f'{kind}s/'}{name}"
    answer = {"success": True, "commitOid": made.id, "commitUrl": f"{place}/commit/{made.id}", "hookOutput": ""}
    return as_json(answer | ({"pullRequestUrl": f"{place}/discussions/{number}"} if branch != revision else {}))


def _applied(files: Mapping[str, bytes], operations: list[dict[str, Any]]) -> dict[str, bytes]:
    result = dict(files)
    for operation in operations:
        path = operation["value"]["path"]
        match operation["key"]:
            case "file":
                result[path] = base64.b64decode(operation["value"]["content"])
            case "deletedFile":
                if result.pop(path, None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            case "deletedFolder":
                result = {name: data for name, data in result.items() if not name.startswith(path.rstrip("/") + "/")}
            case other:
                raise Refusal(400, f"this hub does not know {other}")
    return result


def discuss(request: Request, kind: str, name: str) -> Reply:
    """Opens a pull request, for which an upload of a folder asks before it commits."""
    request.may_write()
    assert request.json()["pullRequest"]
    repo = request.repo(kind, name)
    number = sum(head.startswith("refs/pr/") for head in repo.heads) + 1
    repo.heads[f"refs/pr/{number}"] = repo.heads["main"]
    return as_json({"num": number})


def discussion(request: Request, kind: str, name: str, number: str) -> Reply:
    request.commit(kind, name, f"refs/pr/{number}")
    return as_json(
        {
            "num": int(number),
            "title": "",
            "status": "draft",
            "isPullRequest": True,
            "createdAt": LONG_AGO,
            "author": {"name": OWNER},
            "repo": {"name": name, "type": kind},
            "changes": {"base": "refs/heads/main"},
            "filesWithConflicts": [],
            "events": [],
        }
    )


def info(request: Request, kind: str, name: str, revision: str = "main") -> Reply:
    found = request.commit(kind, name, revision)
    repo = request.repo(kind, name)
    return as_json({
        "_id": "0" * 24,
        "id": name,
        "modelId": name,
        "author": name.partition("/")[0],
        "sha": found.id,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "sdk": repo.sdk,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "createdAt": LONG_AGO,
        "lastModified": LONG_AGO,
        "siblings": [{"rfilename": path} for path in sorted(found.files)],
    })  # fmt: skip


def tree(request: Request, kind: str, name: str, revision: str, under: str = "") -> Reply:
    files = request.commit(kind, name, revision).files
    prefix = f"{under}/" if under else ""
    found = [path for path in sorted(files) if path.startswith(prefix)]
    if request.query.get("recursive", ["false"])[0].lower() == "true":
        folders = {path[:end] for path in found for end in _slashes(path) if end > len(prefix)}
    else:
        folders = {prefix + path[len(prefix) :].partition("/")[0] for path in found if "/" in path[len(prefix) :]}
        found = [path for path in found if "/" not in path[len(prefix) :]]
    listed = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
    return as_json(listed + [_file(path, files[path]) for path in found])


def _slashes(path: str) -> list[int]:
    return [place for place, letter in enumerate(path) if letter == "/"]


def _file(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": blob_id(data), "size": len(data)}


def paths_info(request: Request, kind: str, name: str, revision: str) -> Reply:
    files = request.commit(kind, name, revision).files
    asked = parse_qs(request.body.decode()).get("paths", [])
    return as_json([_file(path, files[path]) for path in asked if path in files])


def resolve(request: Request, kind: str, name: str, revision: str, path: str) -> Reply:
    found = request.commit(kind, name, revision)
    if path not in found.files:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    data = found.files[path]
    headers = {"X-Repo-Commit": found.id, "ETag": f'"{blob_id(data)}"', "Accept-Ranges": "bytes"}
    return Reply(data, headers, "application/octet-stream")


def collection(request: Request, slug: str) -> Reply:
    if slug not in request.hub.collections:
        raise Refusal(404, "Collection not found")
    return as_json(request.hub.collections[slug])


KIND = r"(model|space|dataset)s"
NAME = r"([\w.-]+/[\w.-]+)"
REVISION = r"([^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", who_am_i),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("POST", r"/api/repos/create", create),
    ("GET", r"/api/collections/(.+)", collection),
    ("POST", rf"/api/{KIND}/{NAME}/preupload/{REVISION}", preupload),
    ("POST", rf"/api/{KIND}/{NAME}/commit/{REVISION}", commit),
    ("POST", rf"/api/{KIND}/{NAME}/paths-info/{REVISION}", paths_info),
    ("POST", rf"/api/{KIND}/{NAME}/discussions", discuss),
    ("GET", rf"/api/{KIND}/{NAME}/discussions/(\d+)", discussion),
    ("GET", rf"/api/{KIND}/{NAME}/tree/{REVISION}", tree),
    ("GET", rf"/api/{KIND}/{NAME}/tree/{REVISION}/(.+)", tree),
    ("GET", rf"/api/{KIND}/{NAME}/revision/{REVISION}", info),
    ("GET", rf"/api/{KIND}/{NAME}", info),
    ("GET", rf"/(?:(space|dataset)s/)?{NAME}/resolve/{REVISION}/(.+)", resolve),
]


def answer(request: Request) -> Reply:
    """By the first route that fits, a revision or a path of which may be quoted."""
    method = "GET" if request.method == "HEAD" else request.method
    for wanted, pattern, route in ROUTES:
        match = re.fullmatch(pattern, request.path) if wanted == method else None
        if match:
            return route(request, *(unquote(part) if part else "model" for part in match.groups()))
    raise Refusal(404, f"this hub has no {request.method} {request.path}")
