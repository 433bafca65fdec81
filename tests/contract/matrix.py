"""Does an operation let in whom the contract lets in, and shows it nothing else? Asked over HTTP as everybody.

`check` returns in what the operation differs from the rule that `permissions.json` states; nothing if it is green.
An operation whose rule cannot be computed is a problem too.
"""

from collections.abc import Callable, Iterator, Set
from typing import Any

from django.test.utils import override_settings

from tests.contract import matrix_lists, recipes
from tests.contract.asking import ABSENT, Answer, good, is_envelope
from tests.contract.facts import Operation, parameters, schema, success
from tests.contract.rules import PROFILE_FLAGS, STANDS_FOR, ids_in_path, opened_to_delegates, rule, view_of
from tests.contract.tenants import LABELS, Person, World

Problems = Iterator[str]
TENANTS = frozenset(LABELS)
# Tenants whose objects a reach means, by its word. Nobody has managed users assigned but root.
REACHED: dict[str, Callable[[Person], Set[str]]] = {
    "own": lambda person: {person.owner},
    "original_user": lambda person: {person.owner},
    "self": lambda person: {person.owner},
    "own+managed": lambda person: {person.owner, "managed"} if person.role == "root" else {person.owner},
    "original_user+managed": lambda person: {person.owner, "managed"},
    "all": lambda person: TENANTS,
    "others": lambda person: TENANTS,
    "server": lambda person: TENANTS,
    "shared": lambda person: TENANTS,
    "public": lambda person: TENANTS,
}
GARBAGE = "garbage"


def check(operation: Operation, world: World) -> list[str]:
    """Everything in which the operation differs from the matrix."""
    checks: list[Callable[[Operation, World], Problems]] = [
        _statuses, _order, _other_parents, _body_references, _values_for_some, _figures,
        _features, _settings_for_delegates,
    ]  # fmt: skip
    found = [problem for one in checks for problem in one(operation, world)]
    if rule(operation)["scope"]["via"] == "list":
        found += matrix_lists.check(operation, world, lambda person: allowed(operation, person))
    return found


def allowed(operation: Operation, person: Person) -> int | Set[str]:
    """The tenants whose objects the person reaches, or the status of the refusal. Raises for an unknown rule."""
    stated = rule(operation)
    if "public" in stated["roles"].values():
        return TENANTS
    if person.role is None:
        return 401
    reach = stated["roles"][person.role]
    if reach == "none":
        return 403
    lacking = {flag for flag in (*stated["user_flags"], *stated["delegate_flags"]) if flag in person.lacks}
    if person.is_delegate:
        lacking |= {f for f in stated["delegate_flags"] if STANDS_FOR.get(f, f) not in person.flags}
    return 403 if lacking else REACHED[reach](person)


def people(operation: Operation, world: World) -> list[Person]:
    """Everybody; those whose profile lacks flags only where the rule asks for one of them."""
    stated = rule(operation)
    flags = PROFILE_FLAGS & {*stated["user_flags"], *stated["delegate_flags"]}
    return [person for person in world.people if not person.lacks or person.lacks & flags]


def let_in(operation: Operation, world: World) -> Iterator[tuple[Person, Set[str]]]:
    """Those who may call the operation, one of each kind, and whom they reach."""
    seen = set()
    for person in world.people:
        reach = allowed(operation, person)
        kind = (person.role, person.owner)
        if not isinstance(reach, int) and person.role and not person.lacks and kind not in seen:
            seen.add(kind)
            yield person, reach


def leaks(answer: Answer, reach: Set[str], sent: str = "") -> Problems:
    """Tenants out of reach whose names or texts the answer shows, unless the request named them."""
    shown = answer.content.decode(errors="replace") + str(answer.headers)
    for owner in sorted(TENANTS - reach):
        if LABELS[owner] in shown and LABELS[owner] not in sent:
            yield f"It shows something of {owner}: {answer}."


def _statuses(operation: Operation, world: World) -> Problems:
    """Success for what is reached, 404 or 400 for the rest, and refusals for whom the rule refuses."""
    first = {person.name for person, _ in let_in(operation, world)}
    for person in people(operation, world):
        reach = allowed(operation, person)
        compared = False
        for owner in _asked_about(operation, person, person.name in first):
            answer = good(operation, world.call(person, world.servers[owner]), **_header(person))
            expected = _expected(operation, reach, owner)
            if answer.status != expected:
                yield f"{person.name} about {owner}: {answer} instead of {expected}."
            elif expected >= 400 and not is_envelope(answer):
                yield f"{person.name} about {owner}: no error envelope: {answer}."
            elif expected == 404 and not compared:
                compared = True
                if answer.content != _absent(operation, person, world, owner):
                    yield f"{person.name} about {owner}: {answer} differs from what an unknown id gets."
            for problem in leaks(answer, set() if isinstance(reach, int) else reach):
                yield f"{person.name} about {owner}: {problem}"
            yield from _owner_shown(operation, person, world, owner, answer)


def _asked_about(operation: Operation, person: Person, first: bool) -> list[str]:
    """Whose things the person asks about: everybody's if first of the kind, else its own, for flags add no reach."""
    refers = (rule(operation)["scope"]["via"] or "").startswith(("path:", "body:"))
    if first and refers:
        return sorted(TENANTS)
    return [person.owner if person.owner in TENANTS else "independent"]


def _expected(operation: Operation, reach: int | Set[str], owner: str) -> int:
    if isinstance(reach, int):
        return reach
    via = rule(operation)["scope"]["via"] or ""
    if owner in reach or not via.startswith(("path:", "body:")):
        code: int = success(operation)["code"]
        return code
    return 404 if via.startswith("path:") else 400


def _header(person: Person) -> dict[str, str]:
    return {} if person.token else {"authorization": ""}


def _absent(operation: Operation, person: Person, world: World, owner: str) -> bytes:
    """What the person gets for an id that nobody has, with the owner's id in its place."""
    server = world.servers[owner]
    name = rule(operation)["scope"]["via"].removeprefix("path:")
    path = recipes.path_of(operation, server, **{name: ABSENT})
    answer = good(operation, world.call(person, server), path=path)
    return answer.content.replace(str(ABSENT).encode(), str(ids_in_path(operation, server)[name]).encode())


def _owner_shown(operation: Operation, person: Person, world: World, owner: str, answer: Answer) -> Problems:
    """What is made belongs to the tenant, whoever of its delegates makes it."""
    if operation["method"] != "POST" or answer.status not in (200, 201, 202) or not answer.content:
        return
    if answer.headers.get("content-type") != "application/json":
        return
    user = answer.json.get("user") if isinstance(answer.json, dict) else None
    if isinstance(user, int) and world.owner_with(user) != owner:
        yield f"{person.name} made something of {owner} that belongs to {world.owner_with(user)}: {answer}."


def _order(operation: Operation, world: World) -> Problems:
    """401 before 403 before 404 before 400."""
    names = list(ids_in_path(operation, world.servers["root"]))
    body: Any = [GARBAGE] if "body" in operation else None
    query = {p["name"]: "a\x00b" for p in operation.get("query_params", [])}
    asked = set()
    for person in people(operation, world):
        reach = allowed(operation, person)
        kind = (person.role, person.owner, reach if isinstance(reach, int) else 404)
        if kind in asked or (not names and kind[2] == 404):
            continue
        asked.add(kind)
        call = world.call(person, world.servers["other"])
        nowhere = recipes.path_of(operation, call.server, **dict.fromkeys(names, ABSENT))
        answer = call(operation, path=nowhere, body=body, query=query, **_header(person))
        if answer.status != kind[2]:
            yield f"{person.name} with everything wrong: {answer} instead of {kind[2]}."


def _other_parents(operation: Operation, world: World) -> Problems:
    """With several ids in the path, each is looked up within what is reached and within its parent."""
    for person, reach in let_in(operation, world):
        mine, theirs = _mine_and_theirs(world, person, reach)
        names = ids_in_path(operation, mine)
        for name in names if theirs and len(names) > 1 else ():
            foreign = ids_in_path(operation, theirs)[name]
            path = recipes.path_of(operation, mine, **{name: foreign})
            answer = good(operation, world.call(person, mine), path=path)
            if answer.status != 404:
                yield f"{person.name} with a foreign {name}: {answer} instead of 404."
            yield from leaks(answer, reach)


def _mine_and_theirs(world: World, person: Person, reach: Set[str]) -> tuple[Any, Any]:
    """The server of the person's own tenant, and of one out of reach if there is any."""
    foreign = sorted(TENANTS - reach)
    return world.servers[person.owner], world.servers[foreign[0]] if foreign else None


def _body_references(operation: Operation, world: World) -> Problems:
    """Ids in a body are looked up within what is reached: what is out of reach is a 400, and nothing is made."""
    if "body" not in operation:
        return
    for person, reach in let_in(operation, world):
        mine, theirs = _mine_and_theirs(world, person, reach)
        if theirs is None:
            continue
        body = recipes.body_of(operation, mine)
        for place, wrong in _replaced(body, recipes.body_of(operation, theirs)):
            call = world.call(person, mine, counted=view_of(operation).cls)
            answer = call(operation, body=wrong)
            if answer.status != 400 or not is_envelope(answer):
                yield f"{person.name} with a foreign {place}: {answer} instead of 400."
            if call.made:
                yield f"{person.name} with a foreign {place}: the refused request has made something."
            for problem in leaks(answer, reach):
                yield f"{person.name} with a foreign {place}: {problem}"


def _replaced(mine: Any, theirs: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The body once for each id in it that is another in the other body, with that one id replaced."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in mine.keys() & theirs.keys():
            for place, wrong in _replaced(mine[key], theirs[key], f"{where}.{key}".strip(".")):
                yield place, {**mine, key: wrong}
    elif isinstance(mine, list) and isinstance(theirs, list):
        for index, pair in enumerate(zip(mine, theirs, strict=False)):
            for place, wrong in _replaced(*pair, where):
                yield place, [*mine[:index], wrong, *mine[index + 1 :]]
    elif isinstance(mine, int) and isinstance(theirs, int) and mine != theirs:
        yield where, theirs


def _values_for_some(operation: Operation, world: World) -> Problems:
    """Values of body fields that only some roles may send are a 403 for all others."""
    for field in rule(operation)["field_rules"]:
        if "body" not in operation or "value" not in field:
            continue
        names = {known["name"] for known in schema(operation["body"])}
        if field["field"] not in names:
            yield f"The rule about {field['field']} cannot be checked: the body has no such field."
            continue
        for person, _ in let_in(operation, world):
            server = world.servers[person.owner]
            body = {**recipes.body_of(operation, server), field["field"]: field["value"]}
            answer = world.call(person, server)(operation, body=body)
            if (answer.status == 403) == (person.role in field["roles"]):
                yield f"{person.name} with {field['field']}={field['value']}: {answer}."


def _figures(operation: Operation, world: World) -> Problems:
    """What counts everything in reach counts for each caller the sum of what its tenants count for themselves."""
    if rule(operation)["scope"]["via"] != "all_in_reach" or operation["method"] != "GET":
        return
    query = {name: "2026-01-01" for name in parameters(operation) if name == "start_time"}
    shown: dict[Person, tuple[Set[str], dict[str, int]]] = {}
    for person, reach in let_in(operation, world):
        answer = world.call(person, world.servers[person.owner])(operation, query=query)
        shown[person] = reach, {name: n for name, n in answer.json.items() if isinstance(n, int)}
    alone = {owner: figures for reach, figures in shown.values() if len(reach) == 1 for owner in reach}
    for person, (reach, figures) in shown.items():
        expected = {name: sum(alone[owner][name] for owner in reach) for name in figures}
        if figures != expected or not any(figures.values()):
            yield f"{person.name}: the figures are {figures} instead of {expected}."


def _features(operation: Operation, world: World) -> Problems:
    """Without a feature that the rule names the operation is a 403 for everybody whom it would let in."""
    off = frozenset(rule(operation)["features"])
    for person, _ in let_in(operation, world) if off else ():
        with override_settings(CPM_FEATURES_OFF=off):
            answer = good(operation, world.call(person, world.servers[person.owner]))
        if answer.status != 403 or not is_envelope(answer):
            yield f"{person.name} without the feature: {answer} instead of 403."


def _settings_for_delegates(operation: Operation, world: World) -> Problems:
    """Where the server says so, root's delegates who may change settings reach root's settings, and nobody else does."""
    if not opened_to_delegates(operation):
        return
    for person in world.people:
        if person.role != "root_delegate":
            continue
        with override_settings(CPM_SETTINGS_BY_ROOT_DELEGATES=True):
            answer = good(operation, world.call(person, world.servers["root"]))
        expected = success(operation)["code"] if "allow_settings_changes" in person.flags else 403
        if answer.status != expected:
            yield f"{person.name} with the settings open to delegates: {answer} instead of {expected}."
