"""Filters, search, ordering, pages and CSV of a list."""

import csv
import io
import json

from tests.contract import recipes
from tests.contract.asking import Answer, Caller, Problems, good, is_envelope, needed_query
from tests.contract.facts import Operation, parameters, success


def filters(operation: Operation, call: Caller) -> Problems:
    for name in parameters(operation):
        value = recipes.filled(recipes.QUERIES.get(name, "text"), call.server)
        if value is None:
            continue
        answer = good(operation, call, query={**needed_query(operation, call), name: value})
        if answer.status != success(operation)["code"]:
            yield f"?{name}={value} is answered {answer}."
        control = good(operation, call, query={**needed_query(operation, call), name: "a\x00b"})
        if control.status != 400 or not is_envelope(control):
            yield f"A control character in ?{name} is answered {control} instead of a 400."


def filters_narrow(operation: Operation, call: Caller) -> Problems:
    """A filter named like a field leaves the rows whose field has, or contains, the value, and only those."""
    if not success(operation).get("array"):
        return
    needed = needed_query(operation, call)
    everything = good(operation, call).json
    numbers = {p["name"] for p in operation.get("query_params", []) if p["type"] == "number"}
    for name in set(parameters(operation)) - {"ordering", "search"} - recipes.PLACES:
        row = next((row for row in everything if _scalar(row.get(name))), None)
        # Where the field is a text, a number in the query names something that is related.
        if row is not None and name in numbers and isinstance(row[name], str):
            continue
        if row is None:
            continue
        value = json.dumps(row[name]) if isinstance(row[name], bool) else str(row[name])
        answer = good(operation, call, query={**needed, name: value})
        if answer.status != 200 or row not in answer.json:
            yield f"?{name}={value} does not answer with the row that has it: {answer}."
        elif strangers := [r[name] for r in answer.json if value.lower() not in _text(r[name])]:
            yield f"?{name}={value} also answers with {strangers[:3]}."


def searches(operation: Operation, call: Caller) -> Problems:
    """Every documented field is searched, and words that occur nowhere find nothing."""
    labels = operation.get("search") or []
    everything = good(operation, call).json if labels else []
    needed = needed_query(operation, call)
    for label in labels:
        field = label.lower().replace(" ", "_")
        if label in recipes.SEARCHED:
            value = str(recipes.filled(recipes.SEARCHED[label], call.server))
        else:
            value = next((str(row[field]) for row in everything if row.get(field)), "")
        if not value:
            yield f"No row has a {label} to search for; the populated server should have one."
            continue
        answer = good(operation, call, query={**needed, "search": value})
        if answer.status != 200 or not answer.json:
            yield f"?search={value} ({label}) finds nothing: {answer}."
    if (
        labels
        and (answer := good(operation, call, query={**needed, "search": "occurs-nowhere"})).content != b"[]"
    ):
        yield f"A search for what occurs nowhere finds {answer}."


def orders(operation: Operation, call: Caller) -> Problems:
    """Each documented field orders the rows; a minus sign turns them round."""
    if not operation.get("ordering"):
        return
    for name in operation["ordering"]:
        up, down = (good(operation, call, query={"ordering": order}) for order in (name, f"-{name}"))
        if up.status != 200 or down.status != 200:
            yield f"?ordering={name} is answered {up}, the other way round {down}."
            continue
        values, reverse = ([row.get(name) for row in answer.json] for answer in (up, down))
        if not all(map(_scalar, values)):
            continue
        if reverse != values[::-1]:
            yield f"?ordering=-{name} is not the reverse of ?ordering={name}: {values} and {reverse}."
        if all(isinstance(value, int) for value in values) and values != sorted(values):
            yield f"?ordering={name} does not order: {values}."
    nonsense = good(operation, call, query={"ordering": "no_such_field"})
    if nonsense.status != 400 or not is_envelope(nonsense):
        yield f"Ordering by an unknown field is answered {nonsense} instead of a 400."


def _scalar(value: object) -> bool:
    return isinstance(value, str | int) and value != ""


def _text(value: object) -> str:
    return (json.dumps(value) if isinstance(value, bool) else str(value)).lower()


def pages(operation: Operation, call: Caller) -> Problems:
    if "page" not in parameters(operation) or not success(operation).get("array"):
        return
    everything = good(operation, call).json
    needed = needed_query(operation, call)
    page = good(operation, call, query={**needed, "page": "1", "page_size": "1"})
    shown = page.json if page.status == 200 else {}
    if set(shown) != {"count", "next", "previous", "results"}:
        yield f"A page is answered {page}."
    elif shown["count"] != len(everything) or shown["results"] != everything[:1]:
        yield f"The first page of one row does not begin the whole list of {len(everything)}: {page}."
    off = good(operation, call, query={**needed, "page_size": "0"})
    if off.status != 200 or off.json != everything:
        yield f"?page_size=0 is answered {off} instead of the whole list."
    for query, status in (({"page": "x"}, 400), ({"page": "0"}, 400), ({"page": "100000"}, 404)):
        answer = good(operation, call, query={**needed, **query})
        if answer.status != status or not is_envelope(answer):
            yield f"{query} is answered {answer} instead of {status}."


def csv_file(operation: Operation, call: Caller) -> Problems:
    if "text/csv" not in operation.get("produces", []):
        return
    answer = good(operation, call, accept="text/csv;")
    if answer.status != 200 or not answer.headers["content-type"].startswith("text/csv"):
        yield f"As CSV the answer is {answer}."
    elif "filename=" not in answer.headers.get("content-disposition", ""):
        yield "The CSV download has no file name."
    elif not _is_table(answer):
        yield f"The CSV has no header with rows of the same width: {answer}."


def _is_table(answer: Answer) -> bool:
    lines = list(csv.reader(io.StringIO(answer.content.decode())))
    # The last line of a usage report is its signature.
    return len(lines) > 1 and len({len(line) for line in lines[:-1]}) == 1
