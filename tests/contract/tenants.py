"""A server with four tenants that have something of everything, and callers of every role and flag."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db.models import AutoField, Max, Model
from django.utils import timezone

from api import authentication
from cpm.lib.secrets import hash_api_key
from cpm.lib.states import Role
from cpm.models import ApiKey, User
from tests import factories as make
from tests.contract.asking import Caller
from tests.contract.populated import Server, populate
from tests.simulated_aws import SimulatedAws

FLAGS = ("allow_account_changes", "allow_backup_changes", "allow_recovery", "allow_settings_changes")
# A word in the names and texts of each tenant's things, which no answer contains by chance.
LABELS = {"root": "zinnia-", "managed": "yarrow-", "independent": "wisteria-", "other": "vetch-"}
ROLES = {
    "root": Role.ROOT, "managed": Role.MANAGED, "independent": Role.INDEPENDENT, "other": Role.INDEPENDENT,
}  # fmt: skip


@dataclass(frozen=True)
class Person:
    """One caller. `role` is the contract's word, none for those without a valid token; `owner` a tenant's name."""

    name: str
    role: str | None
    owner: str
    token: str
    flags: frozenset[str] = frozenset()
    # What a user's own profile takes away.
    lacks: frozenset[str] = frozenset()

    @property
    def is_delegate(self) -> bool:
        return self.role in ("root_delegate", "delegate")


@dataclass
class World:
    servers: dict[str, Server] = field(default_factory=dict)
    people: list[Person] = field(default_factory=list)
    made: dict[type[Model], list[tuple[int, int, str]]] = field(default_factory=dict)

    def owner_of(self, model: type[Model], pk: Any) -> str | None:
        """Whose world a row was made in."""
        spans = self.made.get(model, [])
        return next(
            (owner for first, last, owner in spans if isinstance(pk, int) and first < pk <= last), None
        )

    def owner_with(self, user: Any) -> str | None:
        """The tenant whose user has that id, as a number or a text."""
        return next(
            (name for name, server in self.servers.items() if str(server.owner.pk) == str(user)), None
        )

    def call(self, person: Person, server: Server, counted: Any = None) -> "As":
        """Requests of the person about a tenant's things. What is made of a view's model is counted."""
        return As(server, person.token, getattr(counted, "model", None))


class As(Caller):
    """A client with that token. `made` says how many rows of the model the last request left, before it was undone."""

    def __init__(self, server: Server, token: str, model: type[Model] | None) -> None:
        self.server, self.token, self.model = server, token, model
        self.made = 0
        self.count = self._rows()

    def before_undoing(self) -> None:
        self.made = self._rows() - self.count

    def _rows(self) -> int:
        return self.model._default_manager.count() if self.model else 0


def build(aws: SimulatedAws) -> World:
    world = World()
    for owner, role in ROLES.items():
        with make.labelled(LABELS[owner]), _all_belongs_to(owner, world):
            user = make.root() if role == Role.ROOT else make.user(role)
            world.servers[owner] = populate(aws, user)
            world.people += _people(owner, user)
    with _all_belongs_to("independent", world):
        barred = make.user(allow_file_level_recovery=False, allow_cost_explorer=False)
    world.people += [
        Person("independent without flags of its profile", "independent", "barred", _token(barred),
               lacks=frozenset({"allow_file_level_recovery", "allow_cost_explorer"})),
        Person("nobody", None, "root", ""),
        Person("a revoked key", None, "root", _revoked(world.servers["root"].owner)),
    ]  # fmt: skip
    return world


def _people(owner: str, user: User) -> Iterator[Person]:
    yield Person(owner, ROLES[owner].value, owner, _token(user))
    if owner == "other":
        return
    role = "root_delegate" if owner == "root" else "delegate"
    chosen: dict[str, tuple[str, ...]] = {"without flags": (), "with all flags": FLAGS}
    if owner != "managed":
        chosen |= {f"with {flag}": (flag,) for flag in FLAGS}
    for words, flags in chosen.items():
        # The same password as the tenant's, whose recipes name it.
        delegate = make.delegate(user, password=user.password, **dict.fromkeys(flags, True))
        yield Person(f"delegate of {owner} {words}", role, owner, _token(delegate), frozenset(flags))


def _token(user: User) -> str:
    return str(authentication.obtain(make.api_key(user)).access_token)


def _revoked(user: User) -> str:
    key = make.api_key(user)
    token = str(authentication.obtain(key).access_token)
    ApiKey.objects.filter(key_hash=hash_api_key(key)).update(revoked_at=timezone.now())
    return token


@contextmanager
def _all_belongs_to(owner: str, world: World) -> Iterator[None]:
    """Every row of any model that is made inside is the owner's, whatever the row says."""
    models = [m for m in apps.get_app_config("cpm").get_models() if isinstance(m._meta.pk, AutoField)]
    before = {model: _last(model) for model in models}
    yield
    for model in models:
        world.made.setdefault(model, []).append((before[model], _last(model), owner))


def _last(model: type[Model]) -> int:
    last: int | None = model._default_manager.aggregate(last=Max("pk"))["last"]
    return last or 0
