"""What `lora-kit export` says of a file: its size, and which numbers its tensors really hold."""

from lora_kit.cli.export import _lines


def test_a_file_of_many_kinds_says_so() -> None:
    types = {"f32": 61, "q5_0": 148, "q8_0": 63}
    made = {"file": "m.gguf", "bytes": 105_800_000, "architecture": "llama", "quant": "q4_k_m"}
    assert _lines({"folder": "out", **made, "types": types}) == [
        "written: out",
        "m.gguf: 105.8 MB, llama q4_k_m",
        "tensors: q5_0 in 148, q8_0 in 63, f32 in 61",
    ]


def test_shards_have_no_kinds() -> None:
    assert _lines({"folder": "out", "shards": 2}) == ["written: out"]
