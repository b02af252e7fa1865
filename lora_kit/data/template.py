"""Find a template by its name and tie it to a tokenizer.

``model`` is the tokenizer's own chat template, ``FILE.jinja`` one of the user's; both are Jinja and run
in a process of their own. The other names are small functions in ``templates/``, byte-equal to the
originals that they cite.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_kit.catalogue import TEMPLATES
from lora_kit.data.template_jinja import load_jinja_template
from lora_kit.data.template_types import Template, TemplateSpec, Turn, mark
from lora_kit.data.tokenizer import Tokenizer
from lora_kit.data.types import Message, Segment
from lora_kit.errors import ModelError

_PROBE = (
    Message("system", " system "),
    Message("user", " request ", context=" context "),
    Message("assistant", " answer "),
    Message("user", " further request "),
    Message("assistant", " further answer "),
)


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """A ``TemplateSpec`` with the special tokens of one tokenizer.

    Args:
        spec: The template.
        bos: Text of BOS, empty if texts don't open with one.
        eos: Text of EOS.
        end_mark: Text of the control token that ends an answer.
        answer_tail: Text between an answer and the first control token behind it.
        stop_ids: Ids of the control tokens that end an answer.
    """

    spec: TemplateSpec
    bos: str
    eos: str
    end_mark: str
    answer_tail: str
    stop_ids: frozenset[int]

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.spec.name

    @property
    def answer_lead(self) -> str:
        """Text that the model writes before each answer."""
        return self.spec.lead

    @property
    def fingerprint(self) -> str:
        """Hash of what the template makes of probe conversations."""
        probes = (_PROBE, _PROBE[1:], _PROBE[1:3], (*_PROBE[3:],))
        rendered = [self.render(probe, generation_prompt=False) for probe in probes]
        prompts = [self.render(probe[:-1], generation_prompt=True) for probe in probes]
        identity = json.dumps([self.name, rendered, prompts])
        return hashlib.sha256(identity.encode()).hexdigest()

    def render(self, messages: Sequence[Message], *, generation_prompt: bool) -> list[Segment]:
        """Write messages as segments; see ``Template.render``."""
        system = messages[0].content if messages[0].role == "system" else None
        turns = messages[0 if system is None else 1 :]
        assert generation_prompt == (len(turns) % 2 == 1)
        opens = bool(self.bos) and not self.spec.writes_bos
        segments = [mark(self.bos)] if opens else []
        for at in range(0, len(turns), 2):
            first = at == 0
            turn = Turn(turns[at], system if first else None, first, self.bos, self.eos)
            segments += self.spec.ask(turn)
            if at + 1 < len(turns):
                segments += self._answer(turns[at + 1].content, followed=at + 2 < len(turns))
        return [segment for segment in segments if segment.text]

    def _answer(self, content: str, *, followed: bool) -> list[Segment]:
        spec = self.spec
        end_mark = spec.next_mark if spec.next_mark and followed else self.end_mark
        return [
            Segment(spec.lead, control=True, trained=True),
            Segment(content.strip() if spec.strips else content, control=False, trained=True),
            Segment(spec.tail + end_mark, control=True, trained=True),
            Segment(spec.after, control=True, trained=False),
        ]

    def render_many(
        self, conversations: Sequence[Sequence[Message]], *, generation_prompt: bool
    ) -> list[list[Segment] | ModelError]:
        """Write many conversations."""
        return [self.render(messages, generation_prompt=generation_prompt) for messages in conversations]


def load_template(name: str, tokenizer: Tokenizer, *, folder: Path | None = None) -> Template:
    """Find a template and tie it to a tokenizer.

    Args:
        name: ``model``, a name of ``catalogue.TEMPLATES``, or the path of a ``.jinja`` file.
        tokenizer: Whose control tokens it writes.
        folder: What a relative path is relative to; the working directory if None.

    Raises:
        ModelError: Unknown name; no chat template; a template that the tokenizer lacks control
            tokens for, or that can't be trained or served safely.
    """
    if name == "model":
        return load_jinja_template(name, _own_source(tokenizer), tokenizer)
    if name.endswith(".jinja"):
        path = Path(name) if folder is None else folder / name
        return load_jinja_template(name, _read_source(path), tokenizer)
    spec: TemplateSpec = TEMPLATES[name]
    missing = [token for token in spec.needs if token not in tokenizer.control]
    if missing:
        raise ModelError(
            f"template '{name}' needs control tokens that the tokenizer lacks: {', '.join(missing)}",
            key="data.template",
            cure="choose one that ends answers with EOS, such as alpaca or dolly",
        )
    end_mark = spec.end_mark or tokenizer.eos_token
    if not end_mark:
        raise ModelError(
            f"template '{name}' ends answers with EOS, but the tokenizer has none",
            key="data.template",
            cure="set eos_token in tokenizer_config.json; without it the model can't learn to stop",
        )
    tail = tokenizer.split_control(spec.tail + end_mark)
    marks = (*tail, *tokenizer.split_control(spec.next_mark))
    return NamedTemplate(
        spec=spec,
        bos=tokenizer.bos_token if tokenizer.adds_bos else "",
        eos=tokenizer.eos_token,
        end_mark=end_mark,
        answer_tail=tail[0] if isinstance(tail[0], str) else "",
        stop_ids=frozenset(part for part in marks if isinstance(part, int)),
    )


def _own_source(tokenizer: Tokenizer) -> str:
    try:
        source = tokenizer.hf.get_chat_template()
    except ValueError as error:  # none at all, or several without one named "default"
        raise ModelError(
            "the tokenizer has no chat template",
            key="data.template",
            cure=f"choose one: {', '.join(TEMPLATES)}, or the path of a .jinja file",
        ) from error
    return str(source)


def _read_source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"can't read the template file ({type(error).__name__})", where=str(path), key="data.template"
        ) from error
