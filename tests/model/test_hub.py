"""The hub, played by a server on this machine: pinned commits, offline use, one-line errors."""

import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lora_kit.errors import LoraKitError, MachineError, ModelError
from lora_kit.model.base import find_base
from lora_kit.model.hub import FILES, fetch
from lora_kit.recipe.schema import BaseSpec

FIRST, SECOND = "1" * 40, "2" * 40


class FakeHub(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks about one repository, ``small/model``."""

    commits: ClassVar[dict[str, dict[str, bytes]]]
    newest: ClassVar[str]
    failure: ClassVar[int | None]
    cut_after: ClassVar[int | None]
    requests: ClassVar[list[str]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.failure is not None:
            codes = {403: "GatedRepo"} if self.failure == 403 else {}
            return self.reply(
                b"{}", status=self.failure, headers={"X-Error-Code": codes.get(self.failure, "")}
            )
        path = self.path.partition("?")[0]
        if not path.removeprefix("/api/models").startswith("/small/model"):
            return self.reply(b"{}", status=404, headers={"X-Error-Code": "RepoNotFound"})
        if found := re.fullmatch(r"/api/models/small/model(?:/revision/(.+))?", path):
            return self.info(found[1] or "main")
        if found := re.fullmatch(r"/api/models/small/model/tree/(.+)", path):
            return self.tree(self.commit_of(found[1]))
        found = re.fullmatch(r"/small/model/resolve/([^/]+)/(.+)", path)
        assert found, path
        return self.file(found[1], found[2])

    def commit_of(self, revision: str) -> str:
        return self.newest if revision == "main" else revision

    def info(self, revision: str) -> None:
        commit = self.commit_of(revision)
        if commit not in self.commits:
            return self.reply(b"{}", status=404, headers={"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in self.commits[commit]]
        return self.reply(json.dumps({"id": "small/model", "sha": commit, "siblings": siblings}).encode())

    def tree(self, commit: str) -> None:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
            | (
                {"lfs": {"oid": sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
                if name.endswith(".safetensors")
                else {}
            )
            for name, content in self.commits[commit].items()
        ]
        self.reply(json.dumps(entries).encode())

    def file(self, commit: str, name: str) -> None:
        content = self.commits[commit][name]
        digest = sha256(content) if name.endswith(".safetensors") else sha1(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest.hexdigest()}"', "Accept-Ranges": "bytes"}
        self.reply(content, headers=headers)

    def reply(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if self.cut_after is None else body[: self.cut_after])


@pytest.fixture
def hub(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[FakeHub]]:
    from huggingface_hub import constants

    files = {path.name: path.read_bytes() for path in tiny_llama.iterdir()}
    files |= {"pytorch_model.bin": b"\x80\x02canary", "evil.py": b"raise SystemExit", "README.md": b"x"}
    handler = type(
        "Handler",
        (FakeHub,),
        {"commits": {FIRST: files}, "newest": FIRST, "failure": None, "cut_after": None, "requests": []},
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield handler
    server.shutdown()
    server.server_close()


def test_one_commit_is_fetched_and_recorded(hub: Any, tmp_path: Path) -> None:
    files = find_base(BaseSpec(model="small/model"), cache=tmp_path)
    assert files.revision == FIRST
    assert files.folder.name == FIRST
    names = {path.name for path in files.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names <= set(FILES)


def test_a_branch_that_moves_gives_the_newest_and_a_commit_stays(hub: Any, tmp_path: Path) -> None:
    fetch("small/model", None)
    hub.commits[SECOND] = hub.commits[FIRST] | {"tokenizer_config.json": b"{}"}
    hub.newest = SECOND
    assert fetch("small/model", None)[1] == SECOND
    assert fetch("small/model", FIRST)[1] == FIRST


def test_a_cached_commit_needs_no_network(hub: Any, request: pytest.FixtureRequest) -> None:
    folder, commit = fetch("small/model", None)
    request.getfixturevalue("no_sockets")
    assert fetch("small/model", commit) == (folder, commit)


@pytest.mark.fault("C8")
def test_offline_the_cache_answers_with_the_recorded_commit(hub: Any, monkeypatch: Any) -> None:
    from huggingface_hub import constants

    fetch("small/model", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("small/model", None)[1] == FIRST
    with pytest.raises(MachineError, match="not in the cache"):
        fetch("small/model", SECOND)
    with pytest.raises(MachineError, match="not in the cache"):
        fetch("small/other", None)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, ModelError, "no such model, or hides it"),
        (403, ModelError, "gated"),
        (404, ModelError, "no such model"),
        (429, MachineError, "too many requests"),
        (500, MachineError, "not in the cache"),
    ],
)
@pytest.mark.fault("C8")
def test_what_goes_wrong_is_one_line(hub: Any, status: int, error: type[LoraKitError], message: str) -> None:
    hub.failure = status
    with pytest.raises(error, match=message) as caught:
        fetch("small/model", None)
    assert "\n" not in str(caught.value)
    assert "small/model" in str(caught.value)


def test_a_revision_that_is_not_there(hub: Any) -> None:
    with pytest.raises(ModelError, match="no such revision"):
        fetch("small/model", "v9")


def test_a_model_with_pickles_only_is_refused_before_they_are_fetched(hub: Any) -> None:
    del hub.commits[FIRST]["model.safetensors"]
    with pytest.raises(ModelError, match=r"pickle weights are not read: pytorch_model\.bin"):
        fetch("small/model", None)
    assert not [path for path in hub.requests if "pytorch_model.bin" in path]


@pytest.mark.fault("C7")
def test_a_cut_download_is_refused_and_finished_the_next_time(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's attempts
    hub.cut_after = 5000
    with pytest.raises(MachineError, match="can't be fetched"):
        fetch("small/model", None)
    hub.cut_after = None
    files = find_base(BaseSpec(model="small/model"), cache=tmp_path)
    assert (files.folder / "model.safetensors").read_bytes() == hub.commits[FIRST]["model.safetensors"]


@pytest.mark.fault("C7")
def test_a_download_with_another_content_is_refused(hub: Any, tmp_path: Path) -> None:
    folder, _ = fetch("small/model", None)
    blob = (folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        find_base(BaseSpec(model="small/model"), cache=tmp_path)
