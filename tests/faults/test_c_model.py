"""FAULTS, section C: what a wrong, damaged or hostile base model or adapter must meet."""

import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_kit.catalogue import FAMILIES
from lora_kit.errors import LoraKitError, ModelError
from lora_kit.model.adapter_inject import adapter_config, adapter_tensors, add_adapter, attach_adapter
from lora_kit.model.base import BaseFiles, find_base
from lora_kit.model.load import load_model
from lora_kit.recipe.schema import BaseSpec, LoraSpec, QuantizationSpec

LLAMA = FAMILIES["llama"]
executed: list[str] = []


class Canary:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (executed.append, ("pickle",))


@pytest.fixture(autouse=True)
def nothing_runs_and_nobody_calls(no_sockets: None) -> Any:
    executed.clear()
    yield
    assert executed == []
    assert "canary_module" not in sys.modules


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def find(folder: Path) -> BaseFiles:
    return find_base(BaseSpec(model=str(folder)))


def refused(call: Callable[[], Any], *parts: str) -> LoraKitError:
    """The call ends in one helpful line a problem, exit code 4, with these parts in it."""
    with pytest.raises(ModelError) as caught:
        call()
    assert caught.value.exit_code == 4
    for problem in caught.value.problems:
        assert len(str(problem)) <= 450
        assert "\n" not in str(problem)
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "x.ckpt", "model.pkl"])
@pytest.mark.fault("P9")
def test_c1_pickles_are_refused(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps({"weight": Canary()}))
    refused(lambda: find(folder), "pickle weights are not read", name, "trusted machine")


def test_c1_pickles_beside_safetensors_are_ignored(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Canary()}))
    load_model(find(folder), dtype="float32", quantization=QuantizationSpec(), device="cpu")


def damaged(kind: str, raw: bytes) -> bytes:
    return {
        "pickle": pickle.dumps(Canary()),
        "html": b"<!DOCTYPE html><title>404</title>",
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "empty": b"",
        "truncated": raw[: len(raw) // 2],
        "truncated header": raw[:100],
        "extra bytes": raw + b"\0",
        "header of 2^60": (2**60).to_bytes(8, "little") + raw[8:],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "pickle",
        "html",
        "lfs pointer",
        "empty",
        "truncated",
        "truncated header",
        "extra bytes",
        "header of 2^60",
    ],
)
def test_c2_what_only_has_the_name_of_safetensors(kind: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(damaged(kind, path.read_bytes()))
    refused(lambda: find(folder), "model.safetensors", "not a readable safetensors file")


def test_c3_a_name_twice_in_the_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].rstrip()
    twice = (
        header[:-1]
        + b',"model.norm.weight":'
        + json.dumps(json.loads(header)["model.norm.weight"]).encode()
        + b"}"
    )
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + raw[8 + length :])
    refused(lambda: find(folder), "occurs twice")


def test_c3_each_of_200_flipped_bits_is_another_base(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    draw = random.Random(3)
    seen = {find(folder).fingerprint}
    for _ in range(200):
        changed = bytearray(raw)
        changed[draw.randrange(start, len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        seen.add(find(folder).fingerprint)
    assert len(seen) > 195  # two draws may hit the same bit


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModelForCausalLM": "canary_module.Model", "AutoConfig": "canary_module.Config"}),
        ("_attn_implementation_internal", "nobody/kernel"),
        ("_attn_implementation", "nobody/kernel:attention"),
        ("attn_implementation", "nobody/kernel"),
        ("trust_remote_code", True),
        ("transformers_weights", "../x.safetensors"),
        ("quantization_config", {"quant_method": "made_up"}),
        ("something_new", 1),
    ],
)
@pytest.mark.fault("P9")
def test_c4_config_keys_are_allow_listed(key: str, value: Any, folder: Path, monkeypatch: Any) -> None:
    import transformers

    (folder / "canary_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda *_, **__: executed.append("config")
    )
    edit_config(folder, **{key: value})
    refused(lambda: find(folder), f"config.json: {key}: ")


@pytest.mark.parametrize("model_type", ["t5", "llava", "mamba", "../llama", "", None, 7, ["llama"]])
def test_c5_unsupported_architectures_list_the_supported(model_type: Any, folder: Path) -> None:
    edit_config(folder, model_type=model_type)
    refused(lambda: find(folder), "bloom, gemma, gpt_bigcode, gpt_neox, llama")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": 1e999}', "\x00", "[" * 100_000])
def test_c5_a_config_that_is_none(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    refused(lambda: find(folder), "config.json")


def test_c5_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(lambda: find(folder), "config.json", "missing")


def shard(folder: Path) -> Path:
    """Turn the single file into two shards with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[:8], names[8:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return path


def edit_index(path: Path, **changes: Any) -> None:
    weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map | changes}))


def test_c6_shards_that_are_whole_load(folder: Path, tiny_llama: Path) -> None:
    shard(folder)
    assert find(folder).fingerprint == find(tiny_llama).fingerprint
    load_model(find(folder), dtype="float32", quantization=QuantizationSpec(), device="cpu")


def test_c6_a_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(lambda: find(folder), "weight files are missing: model-00002-of-00002.safetensors")


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", "pytorch_model.bin", "..", "", 5])
def test_c6_an_index_that_points_elsewhere(place: Any, folder: Path) -> None:
    edit_index(shard(folder), **{"model.norm.weight": place})
    refused(lambda: find(folder), "model.norm.weight", "no safetensors file of this folder")


def test_c6_an_index_and_shards_that_disagree(folder: Path) -> None:
    index = shard(folder)
    edit_index(index, **{"not.there": "model-00001-of-00002.safetensors"})
    refused(lambda: find(folder), "disagree on not.there")
    edit_index(index, **{"model.norm.weight": "model-00001-of-00002.safetensors"})
    refused(lambda: find(folder), "model.norm.weight")


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        '{"weight_map": []}',
        '{"weight_map": {}}',
        "x",
    ],
)
def test_c6_an_index_that_is_none(content: str, folder: Path) -> None:
    shard(folder).write_text(content)
    refused(lambda: find(folder), "index.json")


def test_c6_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(lambda: find(folder), "neither model.safetensors nor")


def test_an_adapter_is_not_a_base(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/nothing"}))
    refused(lambda: find(folder), "an adapter, not a base model")


@pytest.fixture
def open_llama(tiny_llama: Path) -> Callable[[], Any]:
    files = find(tiny_llama)
    return lambda: load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cpu")


@pytest.fixture
def saved(open_llama: Callable[[], Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and tensors of an adapter."""
    peft_model = add_adapter(open_llama(), LoraSpec(rank=2), LLAMA, seed=0)
    return adapter_config(peft_model, "tiny"), adapter_tensors(peft_model)


def without(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: without(t, "layers.1"), "14 tensors are missing"),
        (lambda t: without(t, "lora_B"), "14 tensors are missing"),
        (lambda _: {}, "28 tensors are missing"),
        (
            lambda t: t | {"base_model.model.lm_head.lora_A.weight": torch.ones(2, 2)},
            "1 tensors are unexpected",
        ),
        (lambda t: {n.replace("base_model.", ""): x for n, x in t.items()}, "28 tensors are unexpected"),
        (lambda t: {n: torch.cat([x, x]) for n, x in t.items()}, "28 tensors have another shape"),
        (
            lambda t: {n: x + (float("nan") if "up_proj" in n else 0) for n, x in t.items()},
            "4 tensors hold NaN",
        ),
        (
            lambda t: {n: x + (float("inf") if "up_proj" in n else 0) for n, x in t.items()},
            "4 tensors hold NaN",
        ),
    ],
)
def test_c10_an_adapter_has_exactly_its_tensors(edit: Any, message: str, saved: Any, open_llama: Any) -> None:
    config, tensors = saved
    refused(lambda: attach_adapter(open_llama(), config, edit(tensors)), message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "LOHA"),
        ("task_type", "SEQ_CLS"),
        ("auto_mapping", {"base_model_class": "x", "parent_library": "canary_module"}),
        ("megatron_config", {"a": 1}),
        ("megatron_core", "canary_module"),
        ("bias", "all"),
        ("use_dora", "yes"),
        ("rank_pattern", {"q_proj": 4}),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("layer_replication", [[0, 2]]),
        ("key_of_the_future", "x"),
        ("r", 0),
        ("r", "8"),
        ("lora_alpha", -1),
        ("lora_alpha", float("nan")),
        ("lora_dropout", 1.5),
        ("target_modules", ".*_proj"),
        ("target_modules", []),
        ("use_rslora", "yes"),
    ],
)
def test_c10_adapter_configs_are_allow_listed(key: str, value: Any, saved: Any, open_llama: Any) -> None:
    config, tensors = saved
    refused(lambda: attach_adapter(open_llama(), config | {key: value}, tensors), "adapter_config.json", key)


def test_c10_what_other_versions_add_and_leave_out(saved: Any, open_llama: Any) -> None:
    config, tensors = saved
    needed = {key: config[key] for key in ("peft_type", "r", "lora_alpha", "target_modules")}
    attach_adapter(open_llama(), needed, tensors)
    attach_adapter(
        open_llama(), config | {"peft_version": "9", "new_switch": False, "new_config": None}, tensors
    )


def test_c10_a_required_key_is_missing(saved: Any, open_llama: Any) -> None:
    config, tensors = saved
    del config["target_modules"]
    refused(lambda: attach_adapter(open_llama(), config, tensors), "target_modules")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("nothing",), "'nothing' matches no layer"),
        (("q_proj", "c_attn"), "'c_attn' matches no layer"),
        (("q_proj", "proj"), "'proj' matches no layer"),
        (("mlp.q_proj",), "'mlp.q_proj' matches no layer"),
        (("self_attn",), "not only linear layers"),
        (("input_layernorm",), "not only linear layers"),
    ],
)
def test_c11_targets_that_miss(targets: Any, message: str, open_llama: Any) -> None:
    refused(
        lambda: add_adapter(open_llama(), LoraSpec(targets=targets), LLAMA, seed=0), "lora.targets", message
    )


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_c12_the_tied_head_and_embedding(target: str, open_llama: Any, saved: Any) -> None:
    spec = LoraSpec(targets=("q_proj", target))
    alternatives = ("tied", "all-linear", "modules_to_save", "trainable_token_indices")
    refused(lambda: add_adapter(open_llama(), spec, LLAMA, seed=0), target, *alternatives)
    config, tensors = saved
    refused(lambda: attach_adapter(open_llama(), config | {"target_modules": [target]}, tensors), "tied")


@pytest.mark.parametrize("target", ["lm_head", "embed_in"])
def test_c12_an_untied_head_is_frozen_too(target: str, tiny_neox: Path) -> None:
    model = load_model(find(tiny_neox), dtype="float32", quantization=QuantizationSpec(), device="cpu")
    spec = LoraSpec(targets=(target,))
    refused(lambda: add_adapter(model, spec, FAMILIES["gpt_neox"], seed=0), target, "frozen")


def test_c18_links_that_lead_out(folder: Path, tiny_neox: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tiny_neox / "model.safetensors")
    (folder / "notes.txt").symlink_to(folder / "nowhere")
    error = refused(lambda: find(folder), "model.safetensors", "leads out", "notes.txt", "leads nowhere")
    assert len(error.problems) == 2


def test_c18_links_inside_and_the_layout_of_the_hub_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.bin")
    (folder / "model.safetensors").symlink_to("weights.bin")
    find(folder)
    snapshot, blobs = tmp_path / "repo" / "snapshots" / ("1" * 40), tmp_path / "repo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert find(snapshot).fingerprint == find(folder).fingerprint


def test_c18_what_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "tokenizer.model")
    refused(lambda: find(folder), "tokenizer.model", "neither a file nor a folder")


def test_c18_a_folder_of_everything(folder: Path) -> None:
    for number in range(2001):
        (folder / f"{number}.txt").touch()
    refused(lambda: find(folder), "more than 2000 files")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "gguf"])
def test_c19_quantized_bases(method: str, folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": method, "bits": 8})
    refused(lambda: find(folder), "quantized already", "nf4", "fp4", "full-precision")


def test_c20_a_gpu_that_is_not_there(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    files = find(tiny_llama)
    refused(
        lambda: load_model(files, dtype="float32", quantization=QuantizationSpec(), device="cuda"),
        "train.device",
        "no GPU",
        "`cpu`",
    )
