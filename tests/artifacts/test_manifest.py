"""A manifest vouches for every byte, and for itself."""

import json
import os

import pytest

from lora_kit.artifacts.commit import committed_dir, write_json
from lora_kit.artifacts.manifest import is_sealed, read_manifest, read_object, read_sealed, seal, verify_dir
from lora_kit.errors import MachineError, ModelError


@pytest.fixture
def folder(tmp_path):
    with committed_dir(tmp_path / "d", identity={"run": {"training_fingerprint": "ab" * 32}}) as part:
        (part / "a.bin").write_bytes(bytes(range(200)))
        (part / "b.bin").write_bytes(b"")
    return tmp_path / "d"


def test_every_flipped_bit_of_the_manifest_is_found(folder):
    path = folder / "manifest.json"
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 7)
        path.write_bytes(damaged)
        if json_equal(content, bytes(damaged)):
            continue  # white space for white space: nothing changed
        assert verify_dir(folder), f"byte {position}"
    path.write_bytes(content)
    assert verify_dir(folder) == []


def json_equal(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("position", range(0, 200, 13))
def test_a_flipped_bit_of_a_file_is_found(folder, position):
    content = bytearray((folder / "a.bin").read_bytes())
    content[position] ^= 1
    (folder / "a.bin").write_bytes(content)
    assert verify_dir(folder) == ["a.bin: sha256 differs"]


def test_missing_and_strange_files_are_named(folder):
    (folder / "a.bin").unlink()
    os.mkfifo(folder / "a.bin")
    (folder / "b.bin").unlink()
    assert verify_dir(folder) == ["a.bin: is not a regular file", "b.bin: is missing"]


def test_files_that_the_manifest_does_not_name_do_not_count(folder):
    (folder / ".DS_Store").write_bytes(b"x")
    assert verify_dir(folder) == []


def test_a_manifest_can_not_reach_outside(tmp_path):
    entry = {"sha256": "0" * 64, "bytes": 0}
    body = {"format_version": 1, "identity": {}, "files": {"../x": entry, "/etc/passwd": entry}}
    write_json(tmp_path / "manifest.json", seal(body))
    assert verify_dir(tmp_path) == [
        "../x: its name leaves the directory",
        "/etc/passwd: its name leaves the directory",
    ]


def test_another_format_is_not_damage(tmp_path):
    write_json(tmp_path / "manifest.json", seal({"format_version": 2}))
    with pytest.raises(MachineError, match="has format 2, this lora_kit reads format 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_not_an_object_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"is not (a )?JSON"):
        read_object(tmp_path / "x.json")
    with pytest.raises(ModelError, match="is missing"):
        read_sealed(tmp_path / "y.json")


def test_the_seal_is_blind_to_the_order_of_keys():
    sealed = seal({"a": 1, "b": [1.5, "ü"]})
    assert is_sealed(dict(reversed(sealed.items())))
    assert is_sealed(json.loads(json.dumps(sealed)))
    assert not is_sealed({"a": 1})
