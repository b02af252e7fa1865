from hypothesis import assume, given
from hypothesis import strategies as st

from lora_kit.recipe.keys import all_keys, sections, unknown_key
from lora_kit.recipe.schema import Recipe

LETTERS = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")


@st.composite
def typo(draw: st.DrawFn, word: str) -> str:
    """The word with one letter removed, added or swapped with its neighbour."""
    at = draw(st.integers(0, len(word) - 1))
    kind = draw(st.sampled_from(["delete", "insert", "swap"]))
    if kind == "delete":
        return word[:at] + word[at + 1 :]
    if kind == "insert":
        return word[:at] + draw(LETTERS) + word[at:]
    return word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]


@given(data=st.data(), name=st.sampled_from([*all_keys(), *sections()]))
def test_a_typo_finds_its_key(data, name):
    section, _, leaf = name.rpartition(".")
    wrong = data.draw(typo(leaf))
    leaves = {key.rpartition(".")[2] for key in all_keys()} | set(sections())
    assume(wrong not in leaves)
    found, cure = unknown_key(f"{section}.{wrong}".lstrip("."))
    assert found == f"unknown key '{wrong}'" + (f" in {section}" if section else "")
    assert cure == f"did you mean '{leaf}'?"


def test_the_table_holds_every_key_once():
    fields = {"name"} | {
        f"{section}.{key}" for section, spec in sections().items() for key in spec.model_fields
    }
    assert set(all_keys()) == fields
    assert set(sections()) == set(Recipe.model_fields) - {"name"}
    assert all(key.meaning for key in all_keys().values())


def test_words():
    expected = {name: key.expected for name, key in all_keys().items()}
    assert expected["lora.rank"] == "an integer >= 1"
    assert expected["lora.dropout"] == "a number >= 0 and < 1"
    assert expected["train.max_grad_norm"] == "a number > 0 or null"
    assert expected["train.schedule"] == "one of cosine, linear, constant"
    assert expected["lora.targets"] == "one of all-linear, attention, mlp or a list of text"
    assert expected["lora.rank_stabilized"] == "true or false"


def test_a_key_of_another_section_is_found_there():
    assert unknown_key("rank")[1] == "did you mean 'lora.rank'?"
    assert unknown_key("lora.learning_rate")[1] == "did you mean 'train.learning_rate'?"


def test_what_is_like_nothing_gets_the_list():
    assert unknown_key("xyz")[1].startswith("known sections: base, data")
    assert unknown_key("lora.xyz")[1] == (
        "known: rank, alpha, dropout, targets, layers, rank_stabilized, init, dora, train_tokens"
    )


def test_a_typo_of_max_tokens_is_no_secret():
    assert unknown_key("data.max_token")[1] == "did you mean 'max_tokens'?"
    assert "environment" in unknown_key("data.hf_token")[1]
