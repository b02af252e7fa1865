"""``data.fields`` and ``data.options``: what a recipe says about its own rows, without code.

``fields: {instruction: question}`` reads the column `question` where the format
wants `instruction`; messages then speak of the column that the user knows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lora_kit.data.format import Format, Options
from lora_kit.data.types import Row
from lora_kit.errors import Problem, RecipeError
from lora_kit.registry import did_you_mean


def renamed(rows: Iterator[Row], fields: Mapping[str, str]) -> Iterator[Row]:
    """Yield the rows with the format's field names instead of the user's columns.

    Args:
        rows: As read.
        fields: Field of the format -> column of the file.
    """
    return (_renamed(row, fields) for row in rows) if fields else rows


def _renamed(row: Row, fields: Mapping[str, str]) -> Row:
    taken = {*fields, *fields.values()}
    mapped = {field: row.fields[column] for field, column in fields.items() if column in row.fields}
    return Row(mapped | {name: value for name, value in row.fields.items() if name not in taken}, row.origin)


def in_own_words(problem: Problem, fields: Mapping[str, str]) -> Problem:
    """Name the user's column where a problem names the format's field."""
    for field, column in fields.items():
        head, rest = problem.key[: len(field)], problem.key[len(field) :]
        if head == field and rest[:1] in {"", ".", "["}:
            return replace(
                problem, key=column + rest, found=problem.found.replace(f"'{field}'", f"'{column}'")
            )
    return problem


def check_fields(form: Format, fields: Mapping[str, str]) -> None:
    """Refuse a mapping onto a field that the format doesn't have.

    Raises:
        RecipeError: With the closest field.
    """
    known = [*form.required, *form.optional]
    problems = [
        Problem(f"format '{form.name}' has no such field", key=f"data.fields.{name}", cure=_cure(name, known))
        for name in fields
        if name not in known
    ]
    if problems:
        raise RecipeError.collect(problems)


def with_options(form: Format, options: Options) -> Format:
    """Return the format as its options want it.

    Raises:
        RecipeError: An option that it doesn't have, or a word that isn't among the option's choices.
    """
    problems = []
    for name, value in options.items():
        choices = form.options.get(name)
        key = f"data.options.{name}"
        if choices is None:
            cure = _cure(name, list(form.options)) if form.options else "remove it"
            problems.append(Problem(f"format '{form.name}' has no such option", key=key, cure=cure))
        elif choices and value not in choices:
            problems.append(Problem(f"must be one of {', '.join(choices)}", key=key))
        elif not choices and isinstance(value, str):
            problems.append(Problem("must be a list", key=key, cure=f"write [{value}]"))
    if problems:
        raise RecipeError.collect(problems)
    return form.configured(options) if form.configured and options else form


def _cure(name: str, known: list[str]) -> str:
    return did_you_mean(name, known) or f"known: {', '.join(known)}"
