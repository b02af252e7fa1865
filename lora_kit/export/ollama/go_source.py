"""A chat template in Go's text/template, as Ollama reads it from a Modelfile.

Ollama gives ``.Messages`` (neighbours of one role joined) and ``.System`` (all system messages); its
documentation: https://github.com/ollama/ollama/blob/main/docs/template.md. Text stands in quoted strings and
every action eats the white space around it, so that only the strings write anything.
"""

from lora_kit.export.turns import Turns

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def go_source(turns: Turns, *, without_bos: str = "") -> str:
    """Write the template.

    Args:
        turns: The text around turns.
        without_bos: Text of the BOS token if the program adds it by itself: it is left out at the start.
    """
    write = _action
    first, system = turns.first.removeprefix(without_bos), turns.system.removeprefix(without_bos)
    lines = [
        "{{- range $i, $m := .Messages }}",
        '{{- if eq $m.Role "system" }}',
        *write(system),
        "{{- $m.Content }}",
        '{{- else if eq $m.Role "user" }}',
        "{{- if eq $i 0 }}",
        *write(first),
        '{{- else if and (eq $i 1) (ne $.System "") }}',
        *write(turns.after_system),
        "{{- else }}",
        *write(turns.between),
        "{{- end }}",
        "{{- $m.Content }}",
        *write(turns.prompt),
        '{{- else if eq $m.Role "assistant" }}',
        *write(turns.lead),
        "{{- $m.Content }}",
        "{{- end }}",
        "{{- end }}",
    ]
    return "\n".join(lines)


def go_string(text: str) -> str:
    r"""Quote text as Go does.

    Example:
        >>> print(go_string('a "b"\n'))
        "a \"b\"\n"
    """
    quoted = "".join(_ESCAPES.get(character, character) for character in text)
    return f'"{quoted}"'


def _action(text: str) -> list[str]:
    return ["{{- " + go_string(text) + " }}"] if text else []
