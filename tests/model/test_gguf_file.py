"""C15: a GGUF header is believed only as far as the file reaches."""

import random
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from lora_kit.errors import ModelError
from lora_kit.model.gguf_file import check_gguf


def test_a_whole_file_passes(tiny_gguf: Path) -> None:
    header = check_gguf(tiny_gguf)
    assert header.metadata["general.architecture"] == "llama"
    expected = {
        t.name: (t.data_offset, t.data_offset + t.n_bytes) for t in gguf.GGUFReader(tiny_gguf).tensors
    }
    assert header.tensors == expected


@pytest.mark.fault("C15")
def test_300_mutations_are_errors_or_stay_inside_the_file(tiny_gguf: Path, tmp_path: Path) -> None:
    original = tiny_gguf.read_bytes()
    header_end = min(start for start, _ in check_gguf(tiny_gguf).tensors.values())
    draw = random.Random(15)
    path = tmp_path / "x.gguf"
    refused = 0
    for _ in range(300):
        raw = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            place = draw.choice(
                [draw.randrange(header_end), draw.randrange(32), header_end - draw.randint(1, 600)]
            )
            raw[place : place + draw.choice([1, 4, 8])] = draw.randbytes(draw.choice([1, 4, 8]))
        path.write_bytes(raw[: draw.choice([len(raw), len(raw), draw.randrange(len(raw))])])
        try:
            header = check_gguf(path)
        except ModelError:
            refused += 1
        else:
            assert all(0 < start < end <= path.stat().st_size for start, end in header.tensors.values())
    assert refused > 100


@pytest.mark.parametrize(
    ("place", "code", "value"),
    [
        (0, "4s", b"GGML"),
        (4, "I", 1),
        (4, "I", 2**31),
        (8, "Q", 2**63),
        (16, "Q", 2**63),
        (16, "Q", 2**40),
        (24, "Q", 2**62),
        (24, "Q", 2**24 + 1),
    ],
)
@pytest.mark.fault("C15")
def test_forged_counts_and_lengths(
    place: int, code: str, value: Any, tiny_gguf: Path, tmp_path: Path
) -> None:
    raw = bytearray(tiny_gguf.read_bytes())
    struct.pack_into(f"<{code}", raw, place, value)
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(ModelError, match="not a readable GGUF file"):
        check_gguf(path)


def written(
    path: Path, architecture: str = "llama", tensor: str = "token_embd.weight", **values: Any
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint16
        add(key.replace("__", "."), value)
    writer.add_tensor(tensor, np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("past_name", "code", "value", "message"),
    [
        (0, "I", 5, "has 5 dimensions"),
        (4, "Q", 0, "impossible shape"),
        (4, "Q", 2**62, "lies beyond its end"),
        (20, "I", 99, "unknown number type 99"),
        (20, "I", 12, "impossible shape"),  # Q4_K has blocks of 256
        (24, "Q", 2**62, "lies beyond its end"),
    ],
)
@pytest.mark.fault("C15")
def test_forged_tensors(past_name: int, code: str, value: int, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.gguf")
    raw, name = bytearray(path.read_bytes()), b"token_embd.weight"
    struct.pack_into(f"<{code}", raw, raw.index(name) + len(name) + past_name, value)
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=message):
        check_gguf(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "mamba"}, "unsupported GGUF architecture 'mamba'"),
        ({"split__count": 3}, "one of 3 parts"),
        ({"llama__rope__scaling__type": "linear"}, "rotary scaling would be lost"),
        ({"tensor": "rope_freqs.weight"}, "rotary scaling would be lost"),
    ],
)
def test_what_would_become_another_model_is_refused(values: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        check_gguf(written(tmp_path / "x.gguf", **values))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(20), b"\x80\x02" * 40])
def test_short_and_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        check_gguf(path)
