"""The interpreter of Go templates does what text/template does, or refuses."""

import pytest

from lora_kit.data.types import Message
from lora_kit.errors import ModelError
from lora_kit.export.ollama.go_render import render_go
from lora_kit.export.ollama.go_source import go_string

TALK = [Message("system", "S"), Message("user", "U1"), Message("assistant", "A"), Message("user", "U2")]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a {{ .System }} b", "a S b"),
        ("a {{- .System -}} b", "aSb"),
        ("a\n {{-  .System  -}} \n b", "aSb"),
        (
            "{{range $i, $m := .Messages}}{{$m.Role}}:{{$m.Content}} {{end}}",
            "system:S user:U1 assistant:A user:U2 ",
        ),
        (
            '{{ range $i, $m := .Messages }}{{ if eq $i 0 }}0{{ else if eq $m.Role "user" }}u{{ else }}-{{ end }}{{ end }}',  # noqa: E501
            "0u-u",
        ),
        ('{{ if and (eq .System "S") (ne .System "T") }}yes{{ end }}', "yes"),
        ("{{ if not .System }}none{{ else }}some{{ end }}", "some"),
        ("{{ range $i, $m := .Messages }}{{ .Content }}{{ end }}", "SU1AU2"),
        (r'{{ "a\n\"b\"\\" }}', 'a\n"b"\\'),
    ],
)
def test_as_go_does(source: str, wanted: str) -> None:
    assert render_go(source, TALK) == wanted


def test_neighbours_of_one_role_are_joined() -> None:
    twice = [Message("user", "a"), Message("user", "b")]
    assert render_go("{{ range $i, $m := .Messages }}[{{ .Content }}]{{ end }}", twice) == "[a\n\nb]"


@pytest.mark.parametrize(
    "source",
    [
        "{{ .Tools }}", "{{ printf .System }}", "{{ if .System }}", "{{ end }}", "{{ else }}", "{{ }}",
        "{{ .System | len }}", "{{ $x }}", "{{ .Messages }}", "{{ range .Messages }}{{ end }}", "{{ .System",
        "{{ template .System }}", "{{ eq 1", '{{ "open }}', "{{ .System.Role }}",
    ],
)  # fmt: skip
def test_everything_else_is_refused(source: str) -> None:
    with pytest.raises(ModelError):
        render_go(source, TALK)


def test_strings_come_back_as_they_were() -> None:
    text = 'a "b" \\n\n\t{{ x }} é 🙂 %s'
    assert render_go("{{" + f" {go_string(text)} " + "}}", TALK) == text if "}}" not in text else True
