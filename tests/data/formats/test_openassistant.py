import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_kit.catalogue import FORMATS
from lora_kit.data.columns import with_options
from lora_kit.data.message_tree import LONGEST_BRANCH
from lora_kit.data.prepare import prepare_data
from lora_kit.data.sources import read_rows
from lora_kit.data.types import Conversation, Row
from lora_kit.errors import DataError, Problem

FORMAT = FORMATS["openassistant"]


def said(text: str, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A message; prompters ask with a capital letter."""
    role = "prompter" if text[0].isupper() else "assistant"
    return {"message_id": text, "text": text, "role": role, "lang": "en", "replies": list(replies)} | fields


TREE = said(
    "Q",
    said("a", said("R", said("b", rank=0), said("c", rank=1)), rank=1),
    said("d", said("S"), rank=0),
    said("e", said("T", said("f"), lang="de"), rank=2),
    said("g", deleted=True),
    said("h", review_result=False),
)


def row(prompt: dict[str, Any] = TREE, **fields: Any) -> Row:
    return Row({"message_tree_id": "tree", "prompt": prompt} | fields, "f:1")


def paths(conversations: list[Conversation]) -> list[str]:
    """Each conversation as its texts; turns that aren't learned in brackets."""
    texts = []
    for conversation in conversations:
        assert conversation.group == "tree"
        turns = [
            m.content if m.train or m.role == "user" else f"({m.content})" for m in conversation.messages
        ]
        texts.append("".join(turns))
    return texts


def cut(**options: Any) -> list[str]:
    return paths(with_options(FORMAT, options).convert(row()))


def test_all_branches_end_in_answers_without_replies() -> None:
    assert cut() == cut(branches="all") == ["QaRb", "QaRc", "QeTf"]


def test_the_best_branch_follows_the_ranks_up_to_its_last_answer() -> None:
    assert cut(branches="best") == ["Qd"]


def test_every_turn_learns_each_answer_once() -> None:
    assert cut(branches="every_turn") == ["Qa", "Q(a)Rb", "Q(a)Rc", "Qd", "Qe", "Q(e)Tf"]


def test_languages_cut_branches_short() -> None:
    assert cut(languages=("en",)) == ["QaRb", "QaRc", "Qe"]
    assert cut(languages=("de",)) == []


def test_unreviewed_messages_can_be_kept() -> None:
    assert cut(unreviewed="keep", branches="every_turn")[-1] == "Qh"


def test_what_is_left_out_is_counted() -> None:
    form = with_options(FORMAT, {"languages": ("en",)})
    assert form.count is not None
    counts = {"trees": 1, "messages": 12, "orphans": 0, "unanswered": 1}
    assert form.count(row()) == counts | {"usable": 9, "other_language": 1, "deleted": 1, "unreviewed": 1}


def flat(prompt: dict[str, Any], parent: str | None = None) -> Iterator[dict[str, Any]]:
    yield {key: value for key, value in prompt.items() if key != "replies"} | {
        "parent_id": parent,
        "message_tree_id": "tree",
    }
    for reply in prompt["replies"]:
        yield from flat(reply, prompt["message_id"])


def joined(messages: list[dict[str, Any]]) -> tuple[list[Row], list[Problem]]:
    problems: list[Problem] = []
    rows = (Row(message, f"f:{number}") for number, message in enumerate(messages, 1))
    assert FORMAT.join is not None
    return list(FORMAT.join(rows, problems.append)), problems


@pytest.mark.parametrize("seed", range(5))
def test_one_message_a_row_gives_the_same_conversations_in_any_order(seed: int) -> None:
    messages = list(flat(TREE))
    if seed:
        random.Random(seed).shuffle(messages)
    (tree,), problems = joined(messages)
    assert not problems
    assert sorted(paths(FORMAT.convert(tree))) == ["QaRb", "QaRc", "QeTf"]
    assert messages[int(tree.origin[2:]) - 1]["text"] == "Q"


def test_orphans_are_counted_with_their_tree() -> None:
    messages = [message for message in flat(TREE) if message["text"] not in {"a", "e"}]
    (tree,), problems = joined(messages)
    assert not problems
    assert paths(FORMAT.convert(tree)) == []
    assert FORMAT.count is not None
    assert FORMAT.count(tree)["orphans"] == 5
    lost, problems = joined([message for message in flat(TREE) if message["text"] != "Q"])
    assert not problems
    assert [FORMAT.convert(one) for one in lost] == [[]]


def test_trees_and_messages_can_be_mixed() -> None:
    rows, problems = joined([row().fields, *flat(TREE)])
    assert not problems
    assert paths(FORMAT.convert(rows[0])) == paths(FORMAT.convert(rows[1]))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Q": {"parent_id": "b"}}, "f:1: parent_id: its parents lead back to itself"),
        ({"R": {"parent_id": "R"}}, "f:3: role: a reply from prompter to prompter"),
        ({"b": {"message_id": "c"}}, "f:5: message_id: a second message 'c'"),
        ({"b": {"message_id": None}}, "f:4: message_id: missing field 'message_id'"),
        ({"b": {"role": "assistent"}}, "f:4: role: unknown role 'assistent'; did you mean 'assistant'?"),
        ({"b": {"text": 5}}, "f:4: text: must be text, found a number"),
        ({"b": {"text": None}}, "f:4: text: missing field 'text'"),
        ({"b": {"rank": True}}, "f:4: rank: must be a number, found true or false"),
        ({"R": {"role": "assistant"}}, "f:3: role: a reply from assistant to assistant"),
        ({"Q": {"role": "assistant"}}, "f:1: role: a tree must begin with a prompter"),
    ],
)
def test_a_broken_message_is_named_by_its_own_row(change: dict, problem: str) -> None:
    messages = [message | change.get(message["text"], {}) for message in flat(TREE)]
    assert problem in map(str, joined(messages)[1])


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (said("a"), "prompt.role: a tree must begin with a prompter"),
        (said("Q", said("R")), "prompt.replies[0].role: a reply from prompter to prompter"),
        (
            said("Q", said("a"), said("b", parent_id="x")),
            "prompt.replies[1]: parent_id is 'x', but it stands below 'Q'",
        ),
        (said("Q", "text"), "prompt.replies[0]: must be an object, found text"),
        (said("Q") | {"replies": "none"}, "prompt.replies: must be a list, found text"),
        (said("Q", said("a", deleted="no")), "prompt.replies[0].deleted: must be true or false, found text"),
        ({"role": "prompter"}, "prompt.text: missing field 'text'"),
        (None, "prompt: must be text, found null"),
    ],
)
def test_a_broken_tree_is_named_by_its_place(prompt: Any, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        FORMAT.convert(row(prompt))
    assert str(caught.value).startswith(f"f:1: {problem}")


def test_an_absurdly_long_branch_is_refused() -> None:
    messages = [
        said(("Q" if n % 2 == 0 else "a") + str(n)) | {"parent_id": f"{'aQ'[n % 2]}{n - 1}" if n else None}
        for n in range(10 * LONGEST_BRANCH)
    ]
    random.Random(0).shuffle(messages)
    (tree,), problems = joined(messages)
    assert not problems
    with pytest.raises(DataError, match=f"a branch of more than {LONGEST_BRANCH} messages"):
        FORMAT.convert(tree)


def test_the_100_real_trees_in_both_exports(shared_data: Path, make_spec, write_rows, byte_encoder) -> None:
    path = shared_data / "train" / "en_100_tree.jsonl"
    report = prepare_data(
        make_spec(path, format="openassistant", max_tokens=10**6), byte_encoder
    ).report.to_json()
    assert (report["rows_read"], report["conversations"], report["train_rows"]) == (100, 400, 400)
    assert (report["counts"]["trees"], report["counts"]["messages"]) == (100, 1167)
    assert report["rows_used"] + report["dropped"]["no_conversation"]["count"] == 100

    messages = []
    for one in read_rows(path):
        messages += [
            message | {"message_tree_id": one.fields["message_tree_id"]}
            for message in flat(one.fields["prompt"])
        ]
    spec = make_spec(write_rows(messages), format="auto", max_tokens=10**6)
    again = prepare_data(spec, byte_encoder).report.to_json()
    assert again["format"] == "openassistant"
    assert {key: again[key] for key in ("rows_read", "train_rows", "counts", "tokens", "trained_tokens")} == {
        key: report[key] for key in ("rows_read", "train_rows", "counts", "tokens", "trained_tokens")
    }
    assert json.dumps(again)
