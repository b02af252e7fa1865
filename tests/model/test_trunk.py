"""The frozen trunk from the disk: every family's gradients are the whole model's; nothing wrong is used."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lora_kit.catalogue import FAMILIES
from lora_kit.data.collate import flatten, pad, share
from lora_kit.data.types import Example
from lora_kit.errors import MachineError, ModelError
from lora_kit.model import trunk as trunk_module
from lora_kit.model import trunk_cache as cache_module
from lora_kit.model.adapter_inject import adapter_parameters, add_adapter, load_adapter_tensors
from lora_kit.model.engine import Engine, engine_of, keep_trunk
from lora_kit.model.forward import example_nats, sum_nats
from lora_kit.model.memory import recompute_layers
from lora_kit.model.trunk import Trunk, find_trunk
from lora_kit.model.trunk_cache import TrunkCache, row_places, sweep, trunk_cache
from lora_kit.recipe.schema import LoraSpec

EXACT = 1e-12
LAYERS = {"bloom": "n_layer", "mpt": "n_layers", "gpt_bigcode": "n_layer"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def keep_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes softmaxes and norms in float32 whatever a model is in, which is noise of 1e-8."""
    softmax, to, single = torch.nn.functional.softmax, Tensor.to, Tensor.float

    def precise_softmax(scores: Tensor, dim: int, dtype: Any = None, **options: Any) -> Tensor:
        wide = scores.dtype if scores.dtype == torch.float64 else dtype
        return softmax(scores, dim=dim, dtype=wide, **options)

    def precise_to(x: Tensor, *args: Any, **options: Any) -> Tensor:
        narrows = x.dtype == torch.float64 and (*args, options.get("dtype"))[0] == torch.float32
        return x if narrows else to(x, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "softmax", precise_softmax)
    monkeypatch.setattr(Tensor, "to", precise_to)
    monkeypatch.setattr(Tensor, "float", lambda x: x if x.dtype == torch.float64 else single(x))


@pytest.fixture
def tuned(tiny_folder: Any, base_of: Any, open_model: Any) -> Callable[..., Any]:
    """``tuned(family, layers="last-1", **lora)``: three layers, an adapter that is not zero."""

    def build(
        family: str, layers: str = "last-1", dtype: str = "float64", method: str = "none", **lora: Any
    ) -> Any:
        folder = tiny_folder(family, **{LAYERS.get(family, "num_hidden_layers"): 3})
        spec = LoraSpec(rank=4, layers=layers, **lora)
        model = add_adapter(open_model(folder, dtype, method), spec, base_of(folder).family, seed=3).train()
        generator = torch.Generator().manual_seed(5)
        values = {
            name: torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.1
            for name, p in sorted(adapter_parameters(model).items())
        }
        load_adapter_tensors(model, values)
        return model

    return build


def rows_of(count: int, seed: int, begin: tuple[int, ...] = ()) -> list[Example]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        ids = begin + tuple(draw.randrange(4, 300) for _ in range(draw.randint(2, 20)))
        trained = tuple(t >= len(begin) + 1 for t in range(len(ids)))
        rows.append(Example(ids, trained, f"rows.jsonl:{number + 1}", f"{number:064x}"))
    return rows


def gradients(model: Any, batches: Sequence[Any]) -> tuple[float, dict[str, Tensor]]:
    losses = [sum_nats(model, batch) for batch in batches]
    tokens = sum(loss.tokens for loss in losses)
    for loss in losses:
        (loss.nats / tokens).backward()
    found = {name: p.grad.clone() for name, p in adapter_parameters(model).items()}
    model.zero_grad()
    return sum(loss.nats.item() for loss in losses) / tokens, found


def cached(model: Any, family: str) -> TrunkCache:
    cache = trunk_cache(find_trunk(model, flattened=FAMILIES[family].flattened), {"base": family})
    cache.hold()
    keep_trunk(model, cache)
    return cache


def count_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the rows that the trunk computes from here on."""
    computed: list[int] = []
    whole = Trunk.row_states

    def row_states(self: Trunk, ids: Tensor) -> Tensor:
        computed.append(len(ids))
        return whole(self, ids)

    monkeypatch.setattr(Trunk, "row_states", row_states)
    return computed


@pytest.mark.parametrize(("layers", "memory"), [("last-1", "low"), ("last-2", "standard")])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_gradients_of_every_family_are_those_without_it(
    tuned: Any, keep_float64: None, monkeypatch: Any, family: str, layers: str, memory: str
) -> None:
    model, rows = tuned(family, layers), rows_of(5, 1)
    if memory == "low":
        recompute_layers(model)
    collate = flatten if FAMILIES[family].flattened else pad
    batches = [collate(rows[:3]), collate(rows[3:])]
    expected_loss, expected = gradients(model, batches)
    assert max(one.abs().max().item() for one in expected.values()) > 1e-3  # not a comparison of zeros
    cached(model, family)
    computed = count_rows(monkeypatch)
    for made in (5, 5):  # the second time all come from the disk
        loss, found = gradients(model, batches)
        assert len(computed) == made
        assert loss == pytest.approx(expected_loss, abs=EXACT)
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) <= EXACT


def test_shared_beginnings_start_from_the_same_states(
    tuned: Any, keep_float64: None, monkeypatch: Any
) -> None:
    model, begin = tuned("llama"), tuple(range(20, 32))
    rows = [*rows_of(3, 2, begin), *rows_of(2, 3), Example(begin, (True,) * 12, "x:1", "0" * 64)]
    expected = gradients(model, [flatten(rows)])
    cached(model, "llama")
    computed = count_rows(monkeypatch)
    trie = share(rows)
    assert trie.shared_tokens > 20
    loss, found = gradients(model, [trie])
    assert len(computed) == 5  # the sixth row is the beginning of the first
    assert loss == pytest.approx(expected[0], abs=EXACT)
    assert max((found[name] - expected[1][name]).abs().max().item() for name in found) <= EXACT
    assert {len(path) for path in row_places(trie)} == {1, 2}


def test_a_row_has_the_same_bits_in_any_company_and_from_the_disk(tuned: Any) -> None:
    rows = rows_of(4, 4)
    for family, collate in (("llama", flatten), ("bloom", pad)):
        model = tuned(family, dtype="float32")
        cache = cached(model, family)
        first = cache.entering(collate(rows)).states.flatten(0, 1)
        again = cache.entering(collate(rows)).states.flatten(0, 1)
        assert torch.equal(first, again)
        alone = cache.entering(collate(rows[2:3])).states.flatten(0, 1)
        start = sum(len(row.input_ids) for row in rows[:2])
        if collate is pad:
            start = 2 * max(len(row.input_ids) for row in rows)
        assert torch.equal(first[start : start + len(alone)], alone)


def test_filling_the_cache_draws_no_random_number(tuned: Any) -> None:
    """Dropout of the adapter is the same whether the states were there or not."""
    model = tuned("gpt_neox", dtype="float32", dropout=0.5)
    batch = flatten(rows_of(4, 5))
    torch.manual_seed(7)
    plain = gradients(model, [batch])[1]
    cached(model, "gpt_neox")
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(gradients(model, [batch])[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in plain)
    assert all(torch.allclose(found[0][name], plain[name], atol=1e-5) for name in plain)


def test_a_four_bit_trunk(tuned: Any, monkeypatch: Any) -> None:
    model, batch = tuned("llama", dtype="float32", method="nf4"), flatten(rows_of(3, 6))
    expected = example_nats(model, batch)
    cached(model, "llama")
    computed = count_rows(monkeypatch)
    for _ in range(2):
        torch.testing.assert_close(example_nats(model, batch), expected, rtol=1e-5, atol=1e-5)
    assert len(computed) == 3


def stored(cache: TrunkCache) -> list[Path]:
    return sorted(path for path in cache.folder.glob("*/*") if path.is_file())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    """Put another row's file there: its seal is right, but not for this name."""
    other = next(one for one in path.parents[1].glob("*/*") if one != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [cut, flip, swap, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_computed_again(
    tuned: Any, monkeypatch: Any, damage: Callable[[Path], Any]
) -> None:
    model = tuned("llama", dtype="float32")
    cache = cached(model, "llama")
    rows = [Example(tuple(range(n, n + 9)), (True,) * 9, "x:1", "0" * 64) for n in (5, 50)]
    before = cache.entering(flatten(rows)).states
    contents = [path.read_bytes() for path in stored(cache)]
    computed = count_rows(monkeypatch)
    damage(stored(cache)[0])
    assert torch.equal(cache.entering(flatten(rows)).states, before)
    assert computed == [9]
    assert [path.read_bytes() for path in stored(cache)] == contents


def test_whatever_the_states_depend_on_is_in_the_name(tuned: Any, monkeypatch: Any) -> None:
    one = find_trunk(tuned("llama", dtype="float32"), flattened=True)
    names = {
        trunk_cache(one, {"base": "a"}).folder,
        trunk_cache(one, {"base": "b"}).folder,
        trunk_cache(
            find_trunk(tuned("llama", "last-2", dtype="float32"), flattened=True), {"base": "a"}
        ).folder,
        trunk_cache(find_trunk(tuned("llama"), flattened=True), {"base": "a"}).folder,
    }
    monkeypatch.setattr(cache_module, "_code", lambda: "other sources")
    names.add(trunk_cache(one, {"base": "a"}).folder)
    assert len(names) == 5


def test_a_model_without_a_trunk_is_refused(tuned: Any) -> None:
    for layers in ("all", "last-3"):
        with pytest.raises(ModelError, match=r"engine\.trunk_cache: there is no frozen trunk"):
            find_trunk(tuned("llama", layers), flattened=True)


def test_a_base_with_dropout_is_refused(tuned: Any) -> None:
    model = tuned("bloom")
    model.get_base_model().config.hidden_dropout = 0.1
    with pytest.raises(ModelError, match=r"hidden_dropout 0\.1, so its trunk is random"):
        find_trunk(model, flattened=False)


def test_every_dropout_of_a_family_is_known() -> None:
    """A family may not have a dropout that find_trunk doesn't look at."""
    from transformers import AutoConfig

    harmless = {"classifier_dropout", "summary_first_dropout", "bias_dropout_fusion"}
    for name, family in FAMILIES.items():
        config = AutoConfig.for_model(family.model_types[0])
        found = {key for key in vars(config) if "drop" in key} - harmless
        assert found <= set(trunk_module.DROPOUTS) | set(family.fixed), name


def test_a_full_disk_is_one_line(tuned: Any, monkeypatch: Any) -> None:
    model = tuned("llama", dtype="float32")
    cache = cached(model, "llama")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MachineError, match=r"can't be written: No space left.*trunk_cache to off") as error:
        sum_nats(model, flatten(rows_of(2, 8)))
    assert str(error.value).count("\n") <= 1
    assert not list(cache.folder.glob("*/.tmp-*"))


def test_what_killed_processes_left_is_cleared_when_nobody_else_is_there(tuned: Any) -> None:
    trunk = find_trunk(tuned("llama", dtype="float32"), flattened=True)
    one, two = (trunk_cache(trunk, {}) for _ in range(2))
    leftover = one.folder / "ab/.tmp-abc-1"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    one.hold()
    assert not leftover.exists()
    leftover.write_bytes(b"being written")
    two.hold()
    assert leftover.exists()


def test_old_trunks_go_but_none_that_is_open(tuned: Any) -> None:
    trunk = find_trunk(tuned("llama", dtype="float32"), flattened=True)
    ours, held, free = (trunk_cache(trunk, {"base": name}) for name in "abc")
    for cache in (ours, held, free):
        (cache.folder / "ab").mkdir(parents=True)
        (cache.folder / "ab/row").write_bytes(b"x" * 1000)
    ours.hold()
    held.hold()
    sweep(ours.folder, limit_bytes=2000)
    assert free.folder.exists()
    sweep(ours.folder, limit_bytes=1000)
    assert not free.folder.exists()
    sweep(ours.folder, limit_bytes=0)
    assert ours.folder.exists()
    assert held.folder.exists()


def test_the_model_is_as_it_was_afterwards(tuned: Any) -> None:
    model = tuned("bloom")
    base = model.get_base_model()
    names = [name for name, _ in model.named_parameters()]
    assert engine_of(base) == Engine()
    cached(model, "bloom")
    sum_nats(model, pad(rows_of(2, 9)))
    assert [name for name, _ in model.named_parameters()] == names
    assert all(not layer._forward_hooks for layer in base.transformer.h)
