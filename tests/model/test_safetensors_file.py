"""Our reading of a header is safetensors' own, and nothing damaged gets through."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lora_kit.errors import ModelError
from lora_kit.model.safetensors_file import read_header

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]


def test_the_bytes_are_where_it_says(tmp_path: Path) -> None:
    tensors = {f"t{n}": torch.randint(0, 2, (n, 3)).to(dtype) for n, dtype in enumerate(DTYPES)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    raw, header = path.read_bytes(), read_header(path)
    assert header.keys() == tensors.keys()
    for name, tensor in load_file(path).items():
        entry = header[name]
        assert entry.shape == tuple(tensor.shape)
        expected = bytes(tensor.contiguous().view(torch.uint8).flatten().tolist()) if tensor.numel() else b""
        assert raw[entry.start : entry.end] == expected


def file_of(path: Path, header: Any, data: bytes, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(start: int, end: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry(0, 8)}, b"x" * 9),
        ({"a": entry(0, 8)}, b"x" * 7),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"x" * 12),
        ({"a": entry(0, 8), "b": entry(9, 17)}, b"x" * 17),
        ({"a": entry(4, 12)}, b"x" * 12),
        ({"a": entry(0, 8, shape=(3,))}, b"x" * 8),
        ({"a": entry(8, 0)}, b"x" * 8),
        ({"a": entry(0, 8, shape=(-2,))}, b"x" * 8),
        ({"a": entry(0, 8, shape=(-1, -2))}, b"x" * 8),
        ({"a": entry(0, 8, shape=(2.0,))}, b"x" * 8),
        ({"a": entry(0, 8, dtype="F33")}, b"x" * 8),
        ({"a": {"dtype": "F32"}}, b"x" * 8),
        ({"a": [1, 2]}, b"x" * 8),
        (["a"], b"x" * 8),
        (
            b'{"a":' + json.dumps(entry(0, 8)).encode() + b',"a":' + json.dumps(entry(0, 8)).encode() + b"}",
            b"x" * 8,
        ),
        (b'{"a": ' * 100_000, b""),
        (b"not json", b""),
        (b"\xff\xfe\xfd", b""),
    ],
)
def test_contradictions_are_refused(header: Any, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        read_header(file_of(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize("length", [0, 1, 2**60, 2**64 - 1, 100])
def test_impossible_header_lengths_are_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a readable"):
        read_header(file_of(tmp_path / "x.safetensors", {"a": entry(0, 8)}, b"x" * 8, length=length))


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"<html><body>Log in</body></html>", "web page"),
        (b"PK\x03\x04" + bytes(50), "pickle of torch.save"),
        (b"\x80\x02}q\x00." + bytes(50), "pickle"),
        (b"GGUF" + bytes(50), "GGUF file"),
    ],
)
def test_other_files_are_recognised(start: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(start)
    with pytest.raises(ModelError, match=what):
        read_header(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 150), value=st.integers(0, 255), cut=st.integers(0, 300))
def test_damage_is_an_error_or_stays_inside_the_file(
    tmp_path: Path, place: int, value: int, cut: int
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(4, 3), "b": torch.ones(2)}, path)
    raw = bytearray(path.read_bytes())
    raw[place] = value
    path.write_bytes(raw[: len(raw) - cut] if cut < 40 else raw)
    try:
        header = read_header(path)
    except ModelError:
        return
    assert all(0 < e.start <= e.end <= path.stat().st_size for e in header.values())


def test_what_can_not_be_opened_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # modes don't hold root back
    with pytest.raises(ModelError, match="can't be read: permission denied"):
        read_header(tmp_path / "x.safetensors")
