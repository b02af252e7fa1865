"""OpenAssistant: trees of messages in which a prompt has many replies, ranked by people.

Reads both of its exports: one tree a row (``prompt`` with nested ``replies``)
and one message a row (``parent_id``). Deleted and rejected messages, and those
in other languages than asked for, are left out with everything below them.
https://huggingface.co/datasets/OpenAssistant/oasst1 (arXiv 2304.07327)
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from lora_kit.data.format import Convert, Format, Options
from lora_kit.data.message_tree import Node, branches, link, node_of, parse_tree
from lora_kit.data.types import Conversation, Message, Role, Row
from lora_kit.errors import Problem

_ROLES: Mapping[str, Role] = {"prompter": "user", "assistant": "assistant"}


def join(rows: Iterable[Row], on_problem: Callable[[Problem], None]) -> Iterator[Row]:
    """Put the trees of a flat export together; rows that are trees pass through."""
    nodes: list[Node] = []
    for row in rows:
        if "prompt" in row.fields: 
            yield row
