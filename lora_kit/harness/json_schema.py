"""A JSON schema as a function from a value to what is wrong with it.

Through jsonschema (draft 2020-12), with three things taken away: references to anything outside the schema,
patterns that are names of properties, and patterns without a time limit.
"""

from collections.abc import Callable, Iterator
from typing import Any

import regex

LONGEST_FAULT = 160
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def open_schema(schema: object, *, pattern_seconds: float) -> Callable[[object], str]:
    """Check a schema and make it ready.

    Args:
        schema: Draft 2020-12, as JSON values.
        pattern_seconds: Longest that one ``pattern`` may take.

    Returns:
        Value to its first fault (``""`` if it has none).

    Raises:
        ValueError: Not a schema, or it refers to something outside itself.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import extend
    from referencing import Registry

    if not isinstance(schema, dict):
        raise ValueError("must be a JSON schema, an object")  # noqa: TRY004 - a wrong value in a file
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"not a JSON schema: {' '.join(error.message.split())[:LONGEST_FAULT]}") from None
    for name, value in _members(schema):
        _refuse(name, value)
    checker = extend(Draft202012Validator, {"pattern": _pattern_rule(pattern_seconds)})
    # An empty registry: what is not in the schema itself is not looked for anywhere.
    validator = checker(schema, registry=Registry())
    return lambda value: _first_fault(validator, value)


def _members(schema: object) -> Iterator[tuple[str, object]]:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _refuse(name: str, value: object) -> None:
    if name in _REFERENCES and isinstance(value, str) and not value.startswith("#"):
        raise ValueError(f"refers to '{value}': only references within the schema are followed")
    if isinstance(value, str) and (name == "$id" or (name == "$schema" and "2020-12" not in value)):
        raise ValueError(f"has {name} '{value}': schemas here are draft 2020-12 and have no address")
    if name == "patternProperties":
        raise ValueError("has patternProperties, which are not supported")
    if name == "pattern" and isinstance(value, str):
        try:
            regex.compile(value)
        except (regex.error, OverflowError, RecursionError) as error:
            raise ValueError(f"'{value[:60]}' is not a pattern: {error}") from None


def _pattern_rule(seconds: float) -> Callable[..., Iterator[Any]]:
    from jsonschema.exceptions import ValidationError

    def rule(_: object, pattern: str, text: object, __: object) -> Iterator[ValidationError]:
        if not isinstance(text, str):
            return
        try:
            if not regex.search(pattern, text, timeout=seconds):
                yield ValidationError(f"{text!r} does not match {pattern!r}")
        except TimeoutError:
            yield ValidationError(f"the pattern {pattern!r} took more than {seconds:g} s")

    return rule


def _first_fault(validator: Any, value: object) -> str:  # noqa: ANN401 - jsonschema builds its classes at run time
    from referencing.exceptions import Unresolvable

    try:
        error = next(validator.iter_errors(value), None)
    except (RecursionError, ArithmeticError) as refused:
        return f"it can't be checked: {type(refused).__name__}"
    except Unresolvable as refused:
        return f"the schema refers to nothing: {refused}"[:LONGEST_FAULT]
    if error is None:
        return ""
    place = "".join(f"[{part!r}]" for part in error.absolute_path)
    return " ".join(f"{place} {error.message}".split())[:LONGEST_FAULT]
