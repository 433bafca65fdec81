"""What every service needs of scoping: rows are looked up inside what the actor's right reaches, and nowhere else."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet

from cpm import permissions
from cpm.lib.errors import Conflict, NotFound
from cpm.models import Account, Actor, User

Row = TypeVar("Row", bound=models.Model)


def locked(actor: Actor, right: str, row: Row, what: str) -> Row:
    """The row read afresh and locked until the end of the transaction.

    Raises `PermissionDenied` without the right, `NotFound` when the right does not reach the row or it is gone.
    """
    permissions.require(actor, right)
    rows: QuerySet[Row] = type(row)._default_manager.all()
    found = (
        permissions.visible(actor.user, rows, right).select_for_update(of=("self",)).filter(pk=row.pk).first()
    )
    if found is None:
        raise NotFound(what, row.pk)
    return found


def referred(rows: QuerySet[Row], id: int, *, what: str, field: str) -> Row:
    """The row that a field of the input names; the rows are those it may name. Raises `NotFound` for the field."""
    found = rows.filter(pk=id).first()
    if found is None:
        raise NotFound(what, id, field=field)
    return found


def all_referred(rows: QuerySet[Row], ids: Iterable[int], *, what: str, field: str) -> list[Row]:
    """The rows that a list in the input names, each once, in its order. Raises `NotFound` for the first unknown."""
    wanted = list(dict.fromkeys(ids))
    found = rows.in_bulk(wanted)
    for id in wanted:
        if id not in found:
            raise NotFound(what, id, field=field)
    return [found[id] for id in wanted]


def owner(actor: Actor, right: str, id: int, *, field: str = "user") -> User:
    """The user who shall own something new. Raises `NotFound` when the right does not reach that far."""
    permissions.require(actor, right)
    return referred(
        User.objects.filter(pk__in=permissions.owners(actor.user, right)), id, what="user", field=field
    )


def account(actor: Actor, right: str, id: int, *, of: int | None = None) -> Account:
    """The account that something new, or something that moves, shall belong to; it cannot be deleted meanwhile.

    `of` is the user whose account it must be. Raises `PermissionDenied`, and `NotFound` for one out of reach.
    """
    permissions.require(actor, right)
    rows = permissions.visible(actor.user, Account.objects.select_related("user"), right)
    rows = rows if of is None else rows.filter(user=of)
    locked = rows.select_for_update(of=("self",), no_key=True)
    return referred(locked, id, what="account", field="account")


def name_is_unique(what: str, constraint: str) -> AbstractContextManager[None]:
    """Turns a violation of the constraint, and of no other, into a `Conflict` on the field `name`."""
    return is_unique(constraint, field="name", otherwise=f"There is a {what} with this name already.")


@contextmanager
def is_unique(constraint: str, *, field: str, otherwise: str) -> Iterator[None]:
    """Turns a violation of the constraint, and of no other, into a `Conflict` on the field, with these words."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        broken = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
        if broken != constraint:
            raise
        raise Conflict("unique", otherwise, field=field) from error
