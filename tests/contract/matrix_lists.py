"""Lists as everybody: exactly the rows that the caller reaches, whatever the parameters and the format."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from typing import Any

from tests.contract import recipes
from tests.contract.asking import Answer, good, needed_query
from tests.contract.facts import Operation, parameters, success
from tests.contract.rules import view_of
from tests.contract.tenants import LABELS, As, Person, World

Problems = Iterator[str]
Parts = dict[str, list[str]]
ABSENT_ID, ABSENT_WORD = 2**61, "xyzzy-"


def check(operation: Operation, world: World, allowed: Callable[[Person], int | Set[str]]) -> Iterator[str]:
    """Everything in which the list shows too much or too little to somebody."""
    shown: dict[str, Parts] = {}
    for person in world.people:
        reach = allowed(person)
        if isinstance(reach, int) or person.lacks:
            continue
        # One caller of each role is asked everything.
        kind = str(person.role)
        call = world.call(person, world.servers[person.owner])
        whole = good(operation, call)
        parts, problems = _parts(operation, world, whole)
        problems += list(_same_parts(parts, reach, shown))
        if kind not in shown:
            problems += [*_pages(operation, call, parts), *_orders(operation, call, whole)]
            problems += [*_parameters(operation, world, call, reach), *_csv(operation, call, whole, reach)]
            shown[kind] = parts
        yield from (f"{person.name}: {problem}" for problem in problems)


def _parts(operation: Operation, world: World, answer: Answer) -> tuple[Parts, list[str]]:
    """The rows by the tenant that they belong to."""
    if answer.status != success(operation)["code"] or not isinstance(answer.json, list):
        return {}, [f"The list is answered {answer}."]
    parts, problems = defaultdict(list), []
    for row in answer.json:
        owner = _owner(operation, world, row)
        if owner is None:
            problems.append(f"Nobody knows whose row this is: {row}.")
        else:
            parts[owner].append(json.dumps(row, sort_keys=True))
    return {owner: sorted(rows) for owner, rows in parts.items()}, problems


def _owner(operation: Operation, world: World, row: dict[str, Any]) -> str | None:
    """Whose row it is: by where it was made, by the user that it names, or by the words in it."""
    model = getattr(view_of(operation).cls, "model", None)
    found = world.owner_of(model, row.get("id")) if model else None
    if found is None:
        found = world.owner_with(row.get("user", row.get("user_id")))
    if found is None:
        text = json.dumps(row)
        named = [owner for owner, label in LABELS.items() if label in text]
        found = named[0] if len(named) == 1 else None
    return found


def _same_parts(parts: Parts, reach: Set[str], shown: dict[str, Parts]) -> Problems:
    """Rows of all whom the caller reaches, of nobody else, and the same as others see of them."""
    if extra := set(parts) - reach:
        yield f"The list shows rows of {sorted(extra)}."
    if missing := reach - set(parts):
        yield f"The list shows no rows of {sorted(missing)}."
    for kind, others in shown.items():
        for owner in set(parts) & set(others):
            if parts[owner] != others[owner]:
                yield f"Of {owner} it shows {len(parts[owner])} rows, and {len(others[owner])} others to {kind}."


def _pages(operation: Operation, call: As, parts: Parts) -> Problems:
    if "page" not in parameters(operation):
        return
    page = good(operation, call, query={**needed_query(operation, call), "page": "1", "page_size": "1"})
    total = sum(map(len, parts.values()))
    if page.status != 200 or page.json["count"] != total or len(page.json["results"]) != 1:
        yield f"A page of one of {total} rows is answered {page}."


def _orders(operation: Operation, call: As, whole: Answer) -> Problems:
    for name in operation.get("ordering") or ():
        answer = good(operation, call, query={**needed_query(operation, call), "ordering": name})
        if answer.status != 200 or _sorted(answer) != _sorted(whole):
            yield f"?ordering={name} shows other rows: {answer}."


def _sorted(answer: Answer) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in answer.json)


def _parameters(operation: Operation, world: World, call: As, reach: Set[str]) -> Problems:
    """An id or a name out of reach finds what an unknown one finds: a filter tells of nothing that exists."""
    for owner in sorted(set(LABELS) - reach)[:1]:
        theirs = world.servers[owner]
        for name in parameters(operation):
            template = recipes.QUERIES.get(name, "text")
            mine, foreign = recipes.filled(template, call.server), recipes.filled(template, theirs)
            if isinstance(foreign, int) and mine != foreign:
                yield from _like_unknown(operation, call, name, str(foreign), str(ABSENT_ID))
            yield from _like_unknown(operation, call, name, LABELS[owner], ABSENT_WORD)


def _like_unknown(operation: Operation, call: As, name: str, foreign: str, unknown: str) -> Problems:
    needed = needed_query(operation, call)
    answer = good(operation, call, query={**needed, name: foreign})
    expected = good(operation, call, query={**needed, name: unknown})
    if answer.status != expected.status or _without(answer, foreign) != _without(expected, unknown):
        yield f"?{name}={foreign} is answered {answer}, an unknown one {expected}."
    if answer.status == 200 and foreign.isdecimal() and answer.json:
        yield f"?{name}={foreign} finds rows: {answer}."


def _without(answer: Answer, text: str) -> str:
    return answer.content.decode().replace(text, "")


def _csv(operation: Operation, call: As, whole: Answer, reach: Set[str]) -> Problems:
    """As many rows as the list has, below a heading and perhaps above a signature, and nobody's but the reached."""
    if "text/csv" not in operation.get("produces", []):
        return
    answer = good(operation, call, accept="text/csv")
    lines = list(csv.reader(answer.content.decode().splitlines()))
    if answer.status != 200 or len(lines) - len(whole.json) not in (1, 2):
        yield f"The CSV file has {len(lines)} lines for {len(whole.json)} rows: {answer}."
    for owner in sorted(set(LABELS) - reach):
        if LABELS[owner].encode() in answer.content:
            yield f"The CSV file shows something of {owner}: {answer}."
