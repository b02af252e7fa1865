"""The tokenizer's own chat template (or a user's Jinja file), with answers found without searching text.

What is said is isolated by rendering random stand-ins in its place, once for each sequence of roles.
The skeleton of template text that remains tells where each answer stands and where the prompt before
it ends. Each real conversation is then rendered once as it is, and must equal its skeleton with the
contents put in: so a template that cuts, escapes or depends on contents is noticed, not trained on.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from lora_kit.data.render_process import RenderProcess
from lora_kit.data.template_types import with_context
from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.types import Message, Role, Segment
from lora_kit.errors import ModelError

Parts = list[str | int]
_CURE = "choose a named template instead (data.template)"
_TRIMS = (str, str.strip, str.lstrip, str.rstrip)


@dataclass(frozen=True, slots=True)
class Plan:
    """The text of one sequence of roles.

    Args:
        parts: Text of the template, or the index of the message that stands there; and whether
            the part belongs to an answer span.
        leads: Text between prompt and answer, for each answer.
        tails: Text from the answer through the end mark, for each answer.
    """

    parts: tuple[tuple[str | int, bool], ...]
    leads: tuple[str, ...]
    tails: tuple[str, ...]


class JinjaTemplate:
    """A chat template in Jinja, tied to a tokenizer; threads may share it.

    Args:
        name: As in the recipe.
        source: The Jinja source.
        tokenizer: Whose control tokens end answers.
        process: Renders.
    """

    def __init__(self, name: str, source: str, tokenizer: Tokenizer, process: RenderProcess) -> None:
        self.name = name
        self.source = source
        self.tokenizer = tokenizer
        self.process = process
        self.answer_lead = ""
        self.answer_tail = ""
        self.stop_ids: frozenset[int] = frozenset()
        self._plans: dict[tuple[tuple[Role, ...], bool], Plan] = {}

    @property
    def fingerprint(self) -> str:
        """Hash of the source and of the special tokens that it is given."""
        identity = json.dumps([self.source, self.process.constants], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()

    def render(self, messages: Sequence[Message], *, generation_prompt: bool) -> list[Segment]:
        """Write messages as segments; see ``Template.render``.

        Raises:
            ModelError: The template raises for these messages, leaves out or changes what is
                said, does not end answers with a control token, or opens answers in training
                otherwise than in serving.
        """
        [segments] = self.render_many([messages], generation_prompt=generation_prompt)
        if isinstance(segments, ModelError):
            raise segments
        return segments

    def render_many(
        self, conversations: Sequence[Sequence[Message]], *, generation_prompt: bool
    ) -> list[list[Segment] | ModelError]:
        """Render conversations at once; those that fail become errors in their place."""
        written = [[_as_dict(message) for message in messages] for messages in conversations]
        texts = self.process.render_many(written, generation_prompt=generation_prompt)
        rendered: list[list[Segment] | ModelError] = []
        for messages, text in zip(written, texts, strict=True):
            try:
                rendered.append(self._segments(messages, text, generation_prompt=generation_prompt))
            except ModelError as error:
                rendered.append(error)
        return rendered

    def plan(self, roles: tuple[Role, ...], *, generation_prompt: bool) -> Plan:
        """Find the template's text and the answer spans for a sequence of roles."""
        key = (roles, generation_prompt)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._make_plan(roles, generation_prompt=generation_prompt)
            if len(self._plans) < 1024:
                self._plans[key] = plan
        return plan

    def _segments(
        self, messages: list[dict[str, str]], text: str | ModelError, *, generation_prompt: bool
    ) -> list[Segment]:
        if isinstance(text, ModelError):
            raise text
        roles: tuple[Role, ...] = tuple(message["role"] for message in messages)  # type: ignore[misc]
        plan = self.plan(roles, generation_prompt=generation_prompt)
        contents = _contents_in(text, plan, [message["content"] for message in messages])
        return [
            Segment(part, control=True, trained=trained)
            if isinstance(part, str)
            else Segment(contents[part], control=False, trained=trained)
            for part, trained in plan.parts
        ]

    def _make_plan(self, roles: tuple[Role, ...], *, generation_prompt: bool) -> Plan:
        skeleton = self._skeleton(roles, generation_prompt=generation_prompt)
        parts: list[tuple[str | int, bool]] = [(part, False) for part in skeleton]
        leads: list[str] = []
        tails: list[str] = []
        # From the back, so that cutting a literal moves no index that is still needed.
        for at in range(len(skeleton) - 2, 0, -2):
            index = skeleton[at]
            assert isinstance(index, int)
            if roles[index] != "assistant":
                continue
            before, after = str(skeleton[at - 1]), str(skeleton[at + 1])
            lead, tail = self._lead(roles[:index], skeleton[:at]), self._tail(after)
            parts[at - 1 : at + 2] = [
                (before.removesuffix(lead), False),
                (lead, True),
                (index, True),
                (tail, True),
                (after.removeprefix(tail), False),
            ]
            leads.insert(0, lead)
            tails.insert(0, tail)
        return Plan(tuple(part for part in parts if part[0] != ""), tuple(leads), tuple(tails))

    def _skeleton(self, roles: tuple[Role, ...], *, generation_prompt: bool) -> Parts:
        """Render stand-ins: template text at even places, message indices at odd ones."""
        stand_ins = [f"q{secrets.token_hex(12)}z" for _ in roles]
        messages = [{"role": role, "content": text} for role, text in zip(roles, stand_ins, strict=True)]
        text = self.process.render(messages, generation_prompt=generation_prompt)
        index_of = {stand_in: index for index, stand_in in enumerate(stand_ins)}
        pieces = re.split(f"({'|'.join(stand_ins)})", text)
        skeleton: Parts = [index_of.get(piece, piece) for piece in pieces]
        found = [part for part in skeleton if isinstance(part, int)]
        for index, role in enumerate(roles):
            times = found.count(index)
            if times == 0 or (times > 1 and role == "assistant"):
                raise ModelError(
                    f"the chat template writes the {role} message {index + 1} of {len(roles)} {times} times",
                    key="data.template",
                    cure=_CURE,
                )
        if found != sorted(found):
            raise ModelError(
                "the chat template changes the order of messages", key="data.template", cure=_CURE
            )
        return skeleton

    def _lead(self, roles: tuple[Role, ...], before: Parts) -> str:
        """What the model has to write between its prompt and the answer."""
        prompt = self._skeleton(roles, generation_prompt=True)
        same = prompt[:-1] == before[:-1] and str(before[-1]).startswith(str(prompt[-1]))
        if not same:
            raise ModelError(
                "the chat template opens an answer in training otherwise than in its generation prompt",
                key="data.template",
                cure=_CURE,
            )
        return str(before[-1])[len(str(prompt[-1])) :]

    def _tail(self, after: str) -> str:
        """The text behind an answer through its first control token, the end mark."""
        end = self.tokenizer.first_control_end(after)
        if end is None:
            raise ModelError(
                "the chat template ends an answer without a control token, so the model can't learn to stop",
                key="data.template",
                cure=f"put the tokenizer's EOS after the answer in a .jinja file, or {_CURE}",
            )
        return after[:end]


def load_jinja_template(name: str, source: str, tokenizer: Tokenizer) -> JinjaTemplate:
    """Compile a chat template and try it on a conversation of two exchanges.

    Raises:
        ModelError: It doesn't compile, or can't be trained and served alike.
    """
    process = RenderProcess(source, {**tokenizer.hf.special_tokens_map, "tools": None, "documents": None})
    template = JinjaTemplate(name, source, tokenizer, process)
    plans = [
        template.plan(("user", "assistant"), generation_prompt=False),
        template.plan(("user", "assistant", "user", "assistant"), generation_prompt=False),
    ]
    tails = [[*tokenizer.split_control(tail)] for plan in plans for tail in plan.tails]
    template.answer_lead = plans[0].leads[0]
    template.answer_tail = "".join(part for part in tails[0] if isinstance(part, str))
    template.stop_ids = frozenset(part for tail in tails for part in tail if isinstance(part, int))
    return template


def _as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": with_context(message)}


def _contents_in(text: str, plan: Plan, contents: list[str]) -> list[str]:
    """Find each message as the template wrote it: exactly, or trimmed at its ends.

    Raises:
        ModelError: The text is not the plan with the contents put in.
    """
    for trim in _TRIMS[:2]:
        trimmed = [trim(content) for content in contents]
        if text == "".join(part if isinstance(part, str) else trimmed[part] for part, _ in plan.parts):
            return trimmed
    written = list(contents)
    position = 0
    for n, (part, _) in enumerate(plan.parts):
        if isinstance(part, int):
            follows = plan.parts[n + 1][0] if n + 1 < len(plan.parts) else ""
            ends = follows if isinstance(follows, str) else ""
            fitting = (trim(contents[part]) for trim in _TRIMS)
            written[part] = next((c for c in fitting if text.startswith(c + ends, position)), contents[part])
        position += len(part if isinstance(part, str) else written[part])
    if text != "".join(part if isinstance(part, str) else written[part] for part, _ in plan.parts):
        raise ModelError(
            "the chat template changes what is said in a message", key="data.template", cure=_CURE
        )
    return written
