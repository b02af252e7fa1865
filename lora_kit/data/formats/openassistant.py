"""OpenAssistant: trees of messages in which a prompt has many replies, ranked by people.

Reads both of its exports: one tree a row (``prompt`` with nested ``replies``)
and one message a row (``parent_id``). Deleted and unreviewed messages, and those
in other languages than asked for, are left out with everything below them.
https://huggingface.co/datasets/OpenAssistant/oasst1 (arXiv 2304.07327)
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from lora_kit.data.format import Format, Options, optional_text, text_field
from lora_kit.data.message_tree import Node, Tree, linked_trees, message, nested_tree, walk
from lora_kit.data.types import Conversation, Message, Row
from lora_kit.errors import DataError, Problem

Path = tuple[Node, ...]
_FIELDS = ("prompt", "message_id", "parent_id", "text", "role", "lang", "rank", "deleted", "review_result")


def join(rows: Iterable[Row], on_problem: Callable[[Problem], None]) -> Iterator[Row]:
    """Put the trees of a flat export together; rows that are trees pass through."""
    nodes: list[Node] = []
    for row in rows:
        if "prompt" in row.fields or "message_id" not in row.fields:
            yield row
            continue
        try:
            nodes.append(message(row.fields, row.origin))
        except DataError as error:
            on_problem(error.problems[0])
    for tree, origin in linked_trees(nodes, on_problem):
        yield Row({"prompt": tree}, origin)


def configured(options: Options) -> Format:
    """Follow ``branches``, ``languages`` (those of all messages of a branch) and ``unreviewed``."""
    cut = _CUTS[str(options.get("branches", "all"))]
    languages = frozenset(options.get("languages", ()))
    keep_unreviewed = options.get("unreviewed") == "keep"

    def reason(node: Node) -> str:
        fields = node.fields
        if fields.get("deleted"):
            return "deleted"
        if not keep_unreviewed and "review_result" in fields and fields["review_result"] is not True:
            return "unreviewed"
        return "other_language" if languages and fields.get("lang") not in languages else ""

    def convert(row: Row) -> list[Conversation]:
        root = _tree(row).root
        if root is None:
            return []
        fields = root.fields
        tree_id = (
            optional_text(row, "message_tree_id") or fields.get("message_tree_id") or fields.get("message_id")
        )
        paths = cut(root, lambda node: not reason(node))
        return [Conversation(turns, row.origin, tree_id or row.origin) for turns in paths]

    def count(row: Row) -> Mapping[str, int]:
        tree = _tree(row)
        found = Counter({"trees": 1, "messages": tree.orphans, "orphans": tree.orphans})
        for node, _ in walk(tree.root) if tree.root else ():
            found["messages"] += 1
            found["unanswered"] += node.role == "user" and not node.replies
            found[reason(node) or "usable"] += 1
        return found

    return Format(
        name="openassistant",
        description="trees: prompt with nested replies, or one message a row with parent_id",
        required=("message_tree_id",),
        optional=_FIELDS,
        answer="prompt",
        convert=convert,
        options={"branches": tuple(_CUTS), "languages": (), "unreviewed": ("drop", "keep")},
        configured=configured,
        join=join,
        count=count,
    )


def _tree(row: Row) -> Tree:
    prompt = row.fields.get("prompt")
    if isinstance(prompt, Tree):
        return prompt
    if prompt is None:
        text_field(row, "prompt")
    return nested_tree(prompt, row.origin)


def _all(root: Node, keep: Callable[[Node], bool]) -> list[tuple[Message, ...]]:
    """Every path from the prompt to a message without replies, if that is an answer."""
    paths = walk(root, keep)
    return [
        _turns(path) for node, path in paths if node.role == "assistant" and not any(map(keep, node.replies))
    ]


def _every_turn(root: Node, keep: Callable[[Node], bool]) -> list[tuple[Message, ...]]:
    """Every answer once, with what leads to it; only that answer is learned."""
    return [_turns(path, last_only=True) for node, path in walk(root, keep) if node.role == "assistant"]


def _best(root: Node, keep: Callable[[Node], bool]) -> list[tuple[Message, ...]]:
    """The path of the best-ranked replies, up to its last answer."""
    path: Path = ()
    node = root if keep(root) else None
    while node is not None:
        path = (*path, node)
        node = min(filter(keep, node.replies), key=lambda reply: reply.rank, default=None)
    if path and path[-1].role == "user":
        path = path[:-1]
    return [_turns(path)] if path else []


def _turns(path: Path, *, last_only: bool = False) -> tuple[Message, ...]:
    return tuple(
        Message(node.role, node.fields["text"], train=not last_only or node is path[-1]) for node in path
    )


_CUTS = {"all": _all, "best": _best, "every_turn": _every_turn}

FORMAT = configured({})
