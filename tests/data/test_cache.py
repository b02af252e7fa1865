import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_kit.data import cache
from lora_kit.data.cache import ENTRY, ROWS, entry_key, kept, sweep
from lora_kit.data.open_encoder import open_encoder
from lora_kit.data.prepare import PreparedData, prepare_data
from lora_kit.data.row_writer import RowWriter
from lora_kit.data.types import Conversation, Example
from lora_kit.errors import DataError, MachineError, Problem
from lora_kit.recipe.schema import DataSpec

ROWS_OF_40 = [{"instruction": f"q{n}", "input": "", "output": f"answer {n}"} for n in range(40)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Counting:
    """Counts the conversations that it encodes."""

    def __init__(self, encoder: Any) -> None:
        self.encoder, self.fingerprint, self.encoded = encoder, encoder.fingerprint, 0

    def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
        self.encoded += len(conversations)
        return self.encoder.try_encode_many(conversations)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "encoded"


@pytest.fixture
def prepare(folder: Path, byte_encoder: Any) -> Callable[[DataSpec], tuple[PreparedData, int]]:
    """``prepare(spec)``: the data, and how many conversations were encoded for it."""

    def run(spec: DataSpec) -> tuple[PreparedData, int]:
        encoder = Counting(byte_encoder)
        return prepare_data(spec, encoder, cache=folder), encoder.encoded

    return run


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_a_hit_is_what_was_made(write_rows, make_spec, prepare, folder: Path) -> None:
    spec = make_spec(write_rows([*ROWS_OF_40, ROWS_OF_40[0]]), validation_fraction=0.2)
    first, encoded = prepare(spec)
    again, none = prepare(spec)
    assert (encoded, none) == (41, 0)
    assert json.dumps(again.report.to_json()) == json.dumps(first.report.to_json())
    assert (again.train, again.validation) == (first.train, first.validation)
    assert again.fingerprint == first.fingerprint
    assert [path.name for path in entries(folder)[0].iterdir() if path.name not in {ROWS, ENTRY}] == []


def test_a_report_can_not_be_changed_from_outside(write_rows, make_spec, prepare) -> None:
    data, _ = prepare(make_spec(write_rows(ROWS_OF_40)))
    data.report.to_json()["sources"][0]["file"] = "x"
    assert data.report.to_json()["sources"][0]["file"] == "rows.jsonl"


def test_one_character_of_one_row_makes_another_entry(write_rows, make_spec, prepare, folder: Path) -> None:
    spec = make_spec(write_rows(ROWS_OF_40))
    before, _ = prepare(spec)
    write_rows([*ROWS_OF_40[:-1], ROWS_OF_40[-1] | {"output": "Answer 39"}])
    after, encoded = prepare(spec)
    assert (encoded, len(entries(folder))) == (40, 2)
    assert after.fingerprint != before.fingerprint


def changed_template(folder: Path) -> None:
    (folder / "own.jinja").write_text(TEMPLATE.replace("\n{% endfor %}", "\t{% endfor %}"), "utf-8")


def changed_vocabulary(folder: Path) -> None:
    """Two pieces change places: every text still has tokens, and some have others."""
    spec = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = spec["model"]["vocab"]
    one, other = [piece for piece in vocabulary if len(piece) == 1][:2]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")


def changed_end(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<s>"}), "utf-8")


@pytest.mark.parametrize("change", [changed_template, changed_vocabulary, changed_end])
def test_one_character_of_template_or_tokenizer_changes_the_key(
    change: Callable[[Path], None], tmp_path: Path, tiny_tokenizer: Path
) -> None:
    place = tmp_path / "tokenizer"
    shutil.copytree(tiny_tokenizer, place)
    (place / "own.jinja").write_text(TEMPLATE, "utf-8")
    spec = DataSpec(train="rows.jsonl", format="alpaca", template="own.jinja")

    def key() -> str:
        return entry_key(spec, open_encoder(place, spec.template, spec.system).fingerprint, [])

    before = key()
    assert key() == before
    change(place)
    assert key() != before


def test_everything_that_decides_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec(train="rows.jsonl", format="alpaca")
    source = {"role": "train", "file": "rows.jsonl", "sha256": "0" * 64}
    changes = {
        "train": "other.jsonl",
        "format": "dolly",
        "fields": {"instruction": "question"},
        "validation": "held.jsonl",
        "validation_fraction": 0.1,
        "template": "alpaca",
        "system": "Be brief.",
        "max_tokens": 7,
        "overlong": "drop",
        "on_bad_row": "drop",
        "on_empty": "drop",
        "on_overlap": "error",
        "limit": 5,
    }
    assert not changes.keys() - DataSpec.model_fields.keys()
    keys = [
        entry_key(spec.model_copy(update={name: value}), "e", [source]) for name, value in changes.items()
    ]
    keys += [entry_key(spec, "e", [source]), entry_key(spec, "f", [source]), entry_key(spec, "e", [])]
    keys += [entry_key(spec, "e", [source | {"sha256": "1" * 64}]), entry_key(spec, "e", [source, source])]
    monkeypatch.setattr(cache, "_VERSION", cache._VERSION + 1)
    cache._code.cache_clear()
    keys.append(entry_key(spec, "e", [source]))
    monkeypatch.setattr(cache, "version", lambda name: f"{name} of tomorrow")
    cache._code.cache_clear()
    keys.append(entry_key(spec, "e", [source]))
    cache._code.cache_clear()
    assert len(set(keys)) == len(keys)


def test_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Path(cache.__file__).parent
    shutil.copytree(package, tmp_path / "data", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "data" / "cache.py"))
    cache._code.cache_clear()
    before = cache._code()
    assert before[1] in {line for line in before if len(line) == 64}
    with (tmp_path / "data" / "formats" / "alpaca.py").open("a") as stream:
        stream.write("#")
    cache._code.cache_clear()
    assert cache._code()[1] != before[1]
    cache._code.cache_clear()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def say_otherwise(path: Path) -> None:
    path.write_text(path.read_text("ascii").replace('"rows_read": 40', '"rows_read": 41'), "ascii")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in (ROWS, ENTRY) for damage in (cut, flip, Path.unlink)),
        (ROWS, lambda path: path.write_bytes(b"")),
        (ENTRY, lambda path: path.write_text("[]", "ascii")),
        (ENTRY, say_otherwise),
    ],
)
def test_a_damaged_entry_is_made_anew(
    name: str, damage: Callable[[Path], None], write_rows, make_spec, prepare, folder: Path
) -> None:
    spec = make_spec(write_rows(ROWS_OF_40))
    before, _ = prepare(spec)
    wanted, report = list(before.train), before.report.to_json()
    path = entries(folder)[0] / name
    raw = path.read_bytes()
    copy = path.with_name("copy")  # what is mapped stays as it is
    shutil.copyfile(path, copy)
    copy.replace(path)
    damage(path)
    assert not path.exists() or path.read_bytes() != raw
    after, encoded = prepare(spec)
    assert encoded == 40
    assert (list(after.train), after.report.to_json()) == (wanted, report)
    assert prepare(spec)[1] == 0


def test_what_fails_leaves_nothing(write_rows, make_spec, folder: Path, byte_encoder) -> None:
    class Failing(Counting):
        def try_encode_many(self, _: Sequence[Conversation]) -> list[Example | Problem]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_data(make_spec(write_rows(ROWS_OF_40)), Failing(byte_encoder), cache=folder)
    assert entries(folder) == []


def test_rows_that_change_while_they_are_read_are_not_kept(
    write_rows, make_spec, folder: Path, byte_encoder
) -> None:
    class Editing(Counting):
        def try_encode_many(self, conversations: Sequence[Conversation]) -> list[Example | Problem]:
            write_rows([*ROWS_OF_40, ROWS_OF_40[0]])
            return super().try_encode_many(conversations)

    with pytest.raises(DataError, match=r"rows\.jsonl: the rows changed while they were read"):
        prepare_data(make_spec(write_rows(ROWS_OF_40)), Editing(byte_encoder), cache=folder)
    assert entries(folder) == []


def fill(place: Path) -> dict[str, Any]:
    with RowWriter(place / ROWS) as writer:
        writer.add(Example((1, 2), (False, True), "f:1", ""), held_out=False)
    return {"made": True}


def test_two_that_want_the_same_entry_make_it_once(folder: Path) -> None:
    made = []

    def slow(place: Path) -> dict[str, Any]:
        made.append(place)
        time.sleep(0.2)
        return fill(place)

    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(kept("a" * 64, slow, folder=folder)[2]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), sorted(found)) == (1, [False, False, False, True])


def test_what_a_killed_process_left_is_no_entry(folder: Path) -> None:
    left = folder / f".tmp-{'a' * 64}"
    left.mkdir(parents=True)
    fill(left)
    (left / "more").write_text("x")
    _, notes, is_new = kept("a" * 64, fill, folder=folder)
    assert (notes, is_new, [path.name for path in entries(folder)]) == ({"made": True}, True, ["a" * 64])


def test_without_a_place_to_keep_them_rows_are_prepared_all_the_same(
    write_rows, make_spec, byte_encoder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    data = prepare_data(make_spec(write_rows(ROWS_OF_40)), byte_encoder, cache=tmp_path / "file" / "encoded")
    assert len(data.train) == 40
    assert data.train[39].origin == "rows.jsonl:40"


def test_a_full_disk_is_said_in_a_line(folder: Path) -> None:
    def full(place: Path) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError, match="No space left on device; free space or set LORA_KIT_CACHE"):
        kept("a" * 64, full, folder=folder)
    assert entries(folder) == []


def test_entries_unused_for_longest_go_first(folder: Path) -> None:
    names = [letter * 64 for letter in "abcd"]
    for age, name in enumerate(names):
        kept(name, fill, folder=folder)
        os.utime(folder / name / ENTRY, (1000 + age, 1000 + age))
    kept(names[0], fill, folder=folder)  # a hit makes it young
    size = sum(path.stat().st_size for path in (folder / names[0]).iterdir())
    (folder / f".tmp-{'e' * 64}").mkdir()
    sweep(folder, limit_bytes=4 * size)
    assert [path.name for path in entries(folder)] == names
    sweep(folder, limit_bytes=2 * size)
    assert [path.name for path in entries(folder)] == ["a" * 64, "d" * 64]
    sweep(folder, keep="d" * 64, limit_bytes=0)
    assert [path.name for path in entries(folder)] == ["d" * 64]


def test_an_entry_that_is_being_made_is_not_swept(folder: Path) -> None:
    def sweeping(place: Path) -> dict[str, Any]:
        sweep(folder, limit_bytes=0)
        return fill(place)

    assert kept("a" * 64, sweeping, folder=folder)[2]
