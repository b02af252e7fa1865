"""Data sets on the hub, which a server on this machine plays: pinned, offline, one-line errors."""

import gzip
import io
import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_kit.data.hub import fetch_split
from lora_kit.errors import DataError, LoraKitError, MachineError

FIRST, SECOND = "1" * 40, "2" * 40
ROW = {"instruction": "When?", "input": "", "output": "2024-01-01"}


class FakeHub(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks about one data set, ``small/rows``."""

    commits: ClassVar[dict[str, dict[str, bytes]]]
    newest: ClassVar[str]
    failure: ClassVar[int | None]
    requests: ClassVar[list[str]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.requests.append(self.path)
        path = self.path.partition("?")[0]
        if self.failure is not None:
            return self.reply(b"{}", status=self.failure)
        if not path.removeprefix("/api").startswith("/datasets/small/rows"):
            return self.reply(b"{}", status=404, headers={"X-Error-Code": "RepoNotFound"})
        if found := re.fullmatch(r"/api/datasets/small/rows(?:/revision/(.+))?", path):
            return self.info(self.newest if found[1] in {None, "main"} else found[1])
        if found := re.fullmatch(r"/api/datasets/small/rows/tree/(.+)", path):
            return self.tree(found[1])
        found = re.fullmatch(r"/datasets/small/rows/resolve/([^/]+)/(.+)", path)
        assert found, path
        return self.file(found[1], found[2])

    def info(self, commit: str) -> None:
        if commit not in self.commits:
            return self.reply(b"{}", status=404, headers={"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": name} for name in self.commits[commit]]
        return self.reply(json.dumps({"id": "small/rows", "sha": commit, "siblings": siblings}).encode())

    def tree(self, commit: str) -> None:
        if commit not in self.commits:
            return self.reply(b"{}", status=404, headers={"X-Error-Code": "RevisionNotFound"})
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}
            for name, content in self.commits[commit].items()
        ]
        return self.reply(json.dumps(entries).encode())

    def file(self, commit: str, name: str) -> None:
        content = self.commits[commit][name]
        digest = sha1(content).hexdigest()
        self.reply(content, headers={"X-Repo-Commit": commit, "ETag": f'"{digest}"'})

    def reply(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[FakeHub]]:
    from huggingface_hub import constants

    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([ROW]), table)
    files = {
        "train-00000.jsonl": jsonl(ROW, ROW | {"input": "x"}),
        "train-00001.jsonl.gz": gzip.compress(jsonl(ROW)),
        "test.jsonl": jsonl(ROW),
        "evil.py": b"raise SystemExit",
        "README.md": b"# rows\n",
    }
    monkeypatch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's attempts
    handler = type(
        "Handler", (FakeHub,), {"commits": {FIRST: files}, "newest": FIRST, "failure": None, "requests": []}
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


def test_one_commit_is_pinned_and_only_the_split_is_fetched(hub: Any) -> None:
    found = fetch_split("hub:small/rows")
    assert (found.name, found.commit) == ("small/rows", FIRST)
    assert found.files == ("train-00000.jsonl", "train-00001.jsonl.gz")
    assert (found.folder / found.files[0]).read_bytes() == hub.commits[FIRST][found.files[0]]
    assert not [path for path in hub.requests if "evil.py" in path or "test.jsonl" in path]
    assert fetch_split("hub:small/rows/test").files == ("test.jsonl",)


def test_a_branch_that_moves_gives_the_newest_and_a_commit_stays(hub: Any) -> None:
    fetch_split("hub:small/rows")
    hub.commits[SECOND] = hub.commits[FIRST] | {"train-00000.jsonl": jsonl(ROW)}
    hub.newest = SECOND
    assert fetch_split("hub:small/rows").commit == SECOND
    assert fetch_split(f"hub:small/rows/train@{FIRST}").commit == FIRST


def test_what_was_fetched_needs_no_network(
    hub: Any, request: pytest.FixtureRequest, monkeypatch: Any
) -> None:
    from huggingface_hub import constants

    found = fetch_split("hub:small/rows")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    request.getfixturevalue("no_sockets")
    assert fetch_split("hub:small/rows") == found
    assert fetch_split(f"hub:small/rows@{FIRST}") == found
    for other in ("hub:small/rows/test", f"hub:small/rows@{SECOND}", "hub:small/none"):
        with pytest.raises(MachineError, match="not in the cache"):
            fetch_split(other)


def test_the_card_says_which_files_make_which_configuration(hub: Any) -> None:
    card = {
        "configs": [
            {"config_name": "easy", "data_files": [{"split": "train", "path": "test.jsonl"}]},
            {"config_name": "hard", "data_files": [{"split": "dev", "path": "train-*.jsonl"}]},
        ]
    }
    hub.commits[FIRST]["README.md"] = f"---\n{json.dumps(card)}\n---\n".encode()
    assert fetch_split("hub:small/rows/easy/train").files == ("test.jsonl",)
    assert fetch_split("hub:small/rows/hard/dev").files == ("train-00000.jsonl",)
    with pytest.raises(DataError, match="easy"):
        fetch_split("hub:small/rows")


def test_a_card_that_points_elsewhere_is_refused(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(jsonl(ROW))
    for path in ("../../secret.jsonl", str(tmp_path / "secret.jsonl"), "https://localhost/x.jsonl"):
        card = {"configs": [{"config_name": "default", "data_files": path}]}
        hub.commits[FIRST]["README.md"] = f"---\n{json.dumps(card)}\n---\n".encode()
        hub.commits[FIRST.replace("1", str(len(path) % 10), 1)] = hub.commits[FIRST]
        with pytest.raises(DataError) as caught:
            fetch_split(f"hub:small/rows@{FIRST.replace('1', str(len(path) % 10), 1)}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("hub:small/rows/dev", DataError, "no split 'dev'; it has: train, test"),
        ("hub:small/none", DataError, "no such data set"),
        (f"hub:small/rows@{SECOND}", DataError, "no such revision"),
        ("hub:rows", DataError, "write hub:OWNER/NAME"),
        ("hub:small/rows/a/b/c", DataError, "not the name of a data set"),
        ("hub:../rows", DataError, "not the name of a data set"),
    ],
)
def test_what_is_not_there_is_one_line(
    hub: Any, source: str, error: type[LoraKitError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fetch_split(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, DataError, "no such data set"),
        (403, DataError, "gated"),
        (429, MachineError, "too many requests"),
        (500, MachineError, "not in the cache"),
    ],
)
def test_a_hub_that_fails_is_one_line(hub: Any, status: int, error: type[LoraKitError], message: str) -> None:
    hub.failure = status
    with pytest.raises(error, match=message) as caught:
        fetch_split("hub:small/rows")
    assert "\n" not in str(caught.value)
    assert "small/rows" in str(caught.value)


def test_a_data_set_without_data_is_one_line(hub: Any) -> None:
    hub.commits[FIRST] = {"README.md": b"# none\n"}
    with pytest.raises(DataError, match="hub:small/rows") as caught:
        fetch_split("hub:small/rows")
    assert "\n" not in str(caught.value)
