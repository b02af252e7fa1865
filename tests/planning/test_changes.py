"""What would help most: memory where it is short, else time; the same adapter before another one."""

from lora_kit.planning.changes import best_change, changed
from lora_kit.planning.outlook import Change, Memory, Span
from lora_kit.recipe.schema import BaseSpec, DataSpec, Recipe

GB = 1e9
RECIPE = Recipe(name="r", base=BaseSpec(model="m"), data=DataSpec(train="rows.jsonl", format="dolly"))


def memory(likely: float, room: float = 8 * GB) -> Memory:
    return Memory(Span(likely, likely, likely), int(room), "memory")


def change(name: str, seconds: float, gigabytes: float = 4.0, *, same: bool = True) -> Change:
    return Change((name,), seconds, gigabytes * GB, same, "")


LOW, NF4 = change("low", 140, 2.0), change("nf4", 110, 3.0, same=False)


def test_where_memory_is_short_the_least_time_that_fits_without_another_adapter() -> None:
    assert best_change([LOW, NF4, change("more", 80, 9.5)], 100, memory(9 * GB)) == LOW
    assert best_change([NF4], 100, memory(9 * GB)) == NF4
    assert best_change([change("low", 140, 8.5)], 100, memory(9 * GB)) is None


def test_where_memory_suffices_time_helps() -> None:
    quicker = change("1024", 80)
    assert best_change([LOW, NF4, quicker], 100, memory(4 * GB)) == quicker


def test_another_adapter_has_to_save_twice_as_much() -> None:
    same = change("1024", 80)
    assert best_change([same, change("last-8", 65, same=False)], 100, memory(4 * GB)) == same
    far = change("last-8", 55, same=False)
    assert best_change([same, far], 100, memory(4 * GB)) == far


def test_small_gains_and_what_does_not_fit_are_not_proposed() -> None:
    small, large = change("1024", 97), change("4096", 50, 9.0)
    assert best_change([small, large], 100, memory(4 * GB)) is None


def test_a_changed_recipe_is_another_value() -> None:
    other = changed(RECIPE, {"train.micro_batch_tokens": 256, "lora.layers": "last-8"})
    assert (other.train.micro_batch_tokens, other.lora.layers) == (256, "last-8")
    assert (RECIPE.train.micro_batch_tokens, RECIPE.lora.layers) == (1024, "all")
