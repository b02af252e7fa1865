"""Rows that another process encoded while this one imported torch are found; other rows are not lost."""

import atexit
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_kit import ahead
from lora_kit.ahead import encode_ahead
from lora_kit.data import prepare
from lora_kit.inputs import open_inputs
from lora_kit.model.base import find_base
from lora_kit.own_process import own_environment
from lora_kit.recipe.load import load_recipe
from lora_kit.recipe.schema import DataSpec, Recipe

Started = list["subprocess.Popen[bytes]"]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Let this process look as if it had not imported torch; what it starts is ended."""
    found: Started = []
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(atexit, "register", lambda _, child: found.append(child))
    yield found
    for child in found:
        ahead._end(child)


@pytest.fixture
def recipe(tiny_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "cache"))
    return load_recipe(str(tiny_recipe()))


def test_what_it_encoded_is_found(recipe: Recipe, children: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encode_ahead(recipe)
    assert children[0].wait(120) == 0
    monkeypatch.undo()  # torch is there again, and LORA_KIT_CACHE is set anew
    monkeypatch.setenv("LORA_KIT_CACHE", str(Path(recipe.data.train).parent / "cache"))
    monkeypatch.setattr(prepare._Preparation, "fill", lambda *_: pytest.fail("encoded twice"))
    inputs = open_inputs(recipe, find_base(recipe.base))
    assert len(inputs.data.train) + len(inputs.data.validation) == 24


def test_it_imports_no_torch(recipe: Recipe) -> None:
    code = (
        "import sys; from lora_kit import ahead; ahead.main(); "
        "sys.exit(sum(name.startswith('torch.') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=recipe.model_dump_json(), text=True, check=False
    )
    assert done.returncode == 0


def test_a_row_that_is_wrong_is_left_to_who_says_so(recipe: Recipe, children: Started) -> None:
    Path(recipe.data.train).write_text('{"instruction": 1}\n')
    assert encode_ahead(recipe)
    assert children[0].wait(120) != 0
    assert children[0].stderr is None


def test_it_ends_with_the_process_that_began_it(recipe: Recipe, children: Started) -> None:
    assert encode_ahead(recipe)
    ahead._end(children[0])
    assert children[0].returncode is not None


def test_where_torch_is_there_is_nothing_to_gain(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert not encode_ahead(recipe)


@pytest.mark.parametrize("train", ["hub:owner/name", "rows.jsonl.gz", "nowhere.jsonl", "."])
def test_rows_whose_number_nobody_knows_are_left(recipe: Recipe, children: Started, train: str) -> None:
    place = train if train.startswith("hub:") else str(Path(recipe.data.train).parent / train)
    data = recipe.data.model_copy(update={"train": place})
    assert not encode_ahead(recipe.model_copy(update={"data": data}))
    assert not children


def test_many_rows_are_left_to_who_shows_how_far_it_is(
    recipe: Recipe, children: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Path(recipe.data.train).stat().st_size
    monkeypatch.setattr(ahead, "MOST_BYTES", 2 * size - 1)
    twice = recipe.data.model_copy(update={"validation": recipe.data.train})
    assert not encode_ahead(recipe.model_copy(update={"data": twice}))
    assert encode_ahead(recipe)


def test_samples_of_this_package_are_few() -> None:
    spec = DataSpec(train=str(Path(ahead.__file__).parents[1] / "data/alpaca_sample.json"), format="alpaca")
    assert 0 < ahead._bytes(spec) < ahead.MOST_BYTES


def test_a_base_that_is_to_be_converted_is_left(tmp_path: Path) -> None:
    """Where there is no torch, a conversion ends before it reads or writes anything."""
    code = (
        "import sys; from pathlib import Path; sys.modules['torch'] = None\n"
        "from lora_kit.model.gguf_convert import convert\n"
        "convert(Path('nowhere.gguf'), Path('.'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=own_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "import of torch halted" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_process_no_harm(recipe: Recipe, children: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert not encode_ahead(recipe)
