"""Trees of messages: read strictly, put together from single messages, and cut into branches.

Every walk is a loop over a stack, and branches have a longest length, so that
no file can exhaust the interpreter's stack or the memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_kit.data.format import object_item, role_of
from lora_kit.data.strict_json import kind_of
from lora_kit.data.types import Role
from lora_kit.errors import DataError, Problem

LONGEST_BRANCH = 200
_ROLES: Mapping[str, Role] = {"prompter": "user", "assistant": "assistant"}
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "message_id": ((str,), "text"),
    "parent_id": ((str,), "text"),
    "message_tree_id": ((str,), "text"),
    "text": ((str,), "text"),
    "lang": ((str,), "text"),
    "rank": ((int, float), "a number"),
    "deleted": ((bool,), "true or false"),
    "review_result": ((bool,), "true or false"),
    "replies": ((list,), "a list"),
}


@dataclass(slots=True)
class Node:
    """A message and its replies.

    Args:
        fields: As read; types are checked.
        role: Who speaks.
        where: Origin of the row that it was read from.
        key: Its place in that row; empty if it is the row.
        replies: In the order of the file.
    """

    fields: Mapping[str, Any]
    role: Role
    where: str
    key: str = ""
    replies: list["Node"] = field(default_factory=list)

    @property
    def rank(self) -> float:
        """Place among its siblings, 0 = best; those without one come last."""
        rank = self.fields.get("rank")
        return float("inf") if rank is None else float(rank)


@dataclass(frozen=True, slots=True)
class Tree:
    """What belongs to one prompt.

    Args:
        root: The prompt; None if it is missing from the file.
        orphans: Messages of the tree that can't be reached from the prompt.
    """

    root: Node | None
    orphans: int = 0


def message(value: object, where: str, key: str = "") -> Node:
    """Read one message without its replies.

    Raises:
        DataError: A field of it is missing or of another type.
    """
    fields = object_item(value, where=where, key=key)
    lead = f"{key}." if key else ""
    for name, (kinds, expected) in _KINDS.items():
        found = fields.get(name)
        wrong = not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds)
        if found is not None and wrong:
            raise DataError(f"must be {expected}, found {kind_of(found)}", where=where, key=lead + name)
    for name in ("text", "role"):
        if fields.get(name) is None:
            raise DataError(f"missing field '{name}'", where=where, key=lead + name)
    return Node(fields, role_of(fields["role"], _ROLES, where=where, key=f"{lead}role"), where, key)


def nested_tree(prompt: object, where: str) -> Tree:
    """Read a prompt with its nested ``replies``.

    Raises:
        DataError: A message is wrong, or stands where it doesn't belong.
    """
    root = message(prompt, where, "prompt")
    _first(root)
    stack = [root]
    while stack:
        node = stack.pop()
        for index, reply in enumerate(node.fields.get("replies") or []):
            child = message(reply, where, f"{node.key}.replies[{index}]")
            parent = child.fields.get("parent_id")
            if parent is not None and parent != node.fields.get("message_id"):
                found = f"parent_id is {parent!r}, but it stands below {node.fields.get('message_id')!r}"
                raise DataError(found, where=where, key=child.key)
            _attach(node, child)
            stack.append(child)
    return Tree(root)


def linked_trees(nodes: Iterable[Node], on_problem: Callable[[Problem], None]) -> Iterator[tuple[Tree, str]]:
    """Put single messages together.

    Yields:
        Each tree and the origin of its first row, in the order of the prompts; then those without a prompt.
    """
    by_id: dict[str, Node] = {}
    for node in nodes:
        name = node.fields.get("message_id")
        if name is None or name in by_id:
            found = "missing field 'message_id'" if name is None else f"a second message {name!r}"
            on_problem(Problem(found, node.where, "message_id"))
        else:
            by_id[name] = node
    roots = []
    for node in by_id.values():
        try:
            parent = by_id.get(node.fields.get("parent_id") or "")
            if parent is not None:
                _attach(parent, node)
            elif node.fields.get("parent_id") is None:
                roots.append(_first(node))
        except DataError as error:
            on_problem(error.problems[0])
    yield from _with_orphans(by_id, roots, on_problem)


def _with_orphans(
    by_id: Mapping[str, Node], roots: list[Node], on_problem: Callable[[Problem], None]
) -> Iterator[tuple[Tree, str]]:
    reached = {id(node) for root in roots for node in _all_below(root)}
    orphans: dict[str, list[Node]] = {}
    for node in by_id.values():
        if id(node) not in reached:
            orphans.setdefault(node.fields.get("message_tree_id") or "", []).append(node)
    for lost in orphans.values():
        for node in _cycle(lost, by_id):
            on_problem(Problem("its parents lead back to itself", node.where, "parent_id"))
    for root in roots:
        lost = orphans.pop(root.fields.get("message_tree_id") or "", [])
        yield Tree(root, len(lost)), root.where
    for lost in orphans.values():
        yield Tree(None, len(lost)), lost[0].where


def _all_below(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += node.replies


def _cycle(lost: Iterable[Node], by_id: Mapping[str, Node]) -> list[Node]:
    """Return one message of each circle of parents."""
    settled: set[int] = set()
    found = []
    for start in lost:
        path: set[int] = set()
        node: Node | None = start
        while node is not None and id(node) not in settled | path:
            path.add(id(node))
            node = by_id.get(node.fields.get("parent_id") or "")
        if node is not None and id(node) in path:
            found.append(node)
        settled |= path
    return found


def _first(node: Node) -> Node:
    if node.role != "user":
        raise DataError(
            "a tree must begin with a prompter", where=node.where, key=f"{node.key}.role".strip(".")
        )
    return node


def _attach(parent: Node, child: Node) -> None:
    if child.role == parent.role:
        found = f"a reply from {child.fields['role']} to {parent.fields['role']}"
        raise DataError(found, where=child.where, key=f"{child.key}.role".strip("."))
    parent.replies.append(child)


def walk(
    root: Node, keep: Callable[[Node], bool] = lambda _: True
) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Yield every message and its path from the root, itself included, in the order of the file.

    Args:
        root: The prompt.
        keep: False leaves a message out with everything below it.

    Raises:
        DataError: A branch is absurdly long.
    """
    stack: list[tuple[Node, tuple[Node, ...]]] = [(root, (root,))] if keep(root) else []
    while stack:
        node, path = stack.pop()
        if len(path) > LONGEST_BRANCH:
            raise DataError(
                f"a branch of more than {LONGEST_BRANCH} messages", where=node.where, key=node.key
            )
        yield node, path
        stack += [(reply, (*path, reply)) for reply in reversed(node.replies) if keep(reply)]
