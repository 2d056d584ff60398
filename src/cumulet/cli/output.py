"""Output in the forms of `az`: JSON by default, `--query` in JMESPath, errors on standard error."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated

import typer

from cumulet.common.ascii import raised


class Format(StrEnum):
    """Output formats."""

    JSON = "json"
    TSV = "tsv"
    TABLE = "table"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
QueryOption = Annotated[
    str | None, typer.Option("--query", metavar="JMESPATH", help="JMESPath query to apply to the result.")
]


def show(result: object, form: Format = Format.JSON, query: str | None = None) -> None:
    """Print a result that is JSON. Raises `BadParameter` if the query is not valid."""
    if query is not None:
        import jmespath
        from jmespath.exceptions import JMESPathError

        try:
            result = jmespath.search(query, result)
        except JMESPathError as error:
            raise typer.BadParameter(str(error), param_hint="--query") from None
    if form is Format.JSON:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif form is Format.TSV:
        for row in result if isinstance(result, list) else [result]:
            cells = row.values() if isinstance(row, dict) else row if isinstance(row, list) else [row]
            print("\t".join(_cell(cell) for cell in cells))
    else:
        _table(result)


def fail(message: str) -> int:
    """Print an error and return the exit code."""
    print(f"ERROR: {message}", file=sys.stderr)
    return 1


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _table(result: object) -> None:
    """Print the scalar fields of each object in columns."""
    items = result if isinstance(result, list) else [result]
    rows: list[dict[str, object]] = [item if isinstance(item, dict) else {"Result": item} for item in items]
    names = list(
        dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict | list))
    )
    cells = [[raised(name[:1]) + name[1:] for name in names]] + [
        [_cell(row.get(name)) for name in names] for row in rows
    ]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    for number, line in enumerate(cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
