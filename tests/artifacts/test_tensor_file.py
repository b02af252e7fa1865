"""Tensors come back bit for bit, and damage never does."""

import os
import stat

import pytest
import torch

from lora_kit.artifacts.tensor_file import nonfinite_names, read_tensors, save_tensors, shorten_names
from lora_kit.errors import MachineError, ModelError

TENSORS = {
    "z": torch.arange(12, dtype=torch.float32).reshape(3, 4).t(),  # not contiguous
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "half": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "state": torch.arange(7, dtype=torch.uint8),
    "none": torch.empty(0, 3),
}


def test_tensors_come_back_in_the_order_of_names(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, TENSORS)
    read = read_tensors(path)
    assert list(read) == sorted(TENSORS)
    for name, tensor in read.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    save_tensors(tmp_path / "a", TENSORS)
    save_tensors(tmp_path / "b", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save_tensors(tmp_path / "empty", {})
    assert read_tensors(tmp_path / "empty") == {}


def test_read_tensors_own_their_memory(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(4096)})
    read = read_tensors(path)
    os.truncate(path, 0)  # would be a SIGBUS with a memory map
    read["a"] += 1
    assert read["a"].sum() == 8192


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_the_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_tensors(tmp_path / "t", TENSORS)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o666 & ~mask
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_by_name(tmp_path, bad):
    tensors = {
        "good": torch.ones(2),
        "ids": torch.ones(2, dtype=torch.int64),
        "bad": torch.tensor([1.0, bad]),
    }
    save_tensors(tmp_path / "t", tensors)
    assert nonfinite_names(tensors) == ["bad"]
    with pytest.raises(ModelError, match="holds NaN or infinity in bad"):
        read_tensors(tmp_path / "t")
    assert len(read_tensors(tmp_path / "t", finite=False)) == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "pickle", "page", "length"])
def test_a_file_that_is_not_whole_is_refused(tmp_path, damage):
    path = tmp_path / "t.safetensors"
    save_tensors(path, TENSORS)
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:-1],
            "longer": content + b"\0",
            "pickle": b"\x80\x04cos\nsystem\n",
            "page": b"<!DOCTYPE html><html>not found</html>",
            "length": (1 << 60).to_bytes(8, "little") + content[8:],
        }[damage]
    )
    with pytest.raises(ModelError, match="is not a whole safetensors file") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_missing_and_directory(tmp_path):
    with pytest.raises(ModelError, match="is missing"):
        read_tensors(tmp_path / "t")
    with pytest.raises(ModelError, match="not a regular file"):
        read_tensors(tmp_path)
    with pytest.raises(MachineError, match="moved or deleted"):
        save_tensors(tmp_path / "gone" / "t", TENSORS)


def test_long_lists_of_names_are_cut():
    assert shorten_names(["a", "b"]) == "a, b"
    assert shorten_names(list("abcdefgh")) == "a, b, c, d, e ... and 3 more"
