"""The tally is what counting would say, whatever happens to backups, in one transaction or several at once."""

import random
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F

from cpm.models import Backup
from cpm.models.tally import BackupTally
from cpm.services import backup_tally
from tests import factories

DAY = timedelta(days=1)


def counted(users: list[int], accounts: list[int] | None) -> int:
    found = Backup.objects.filter(user__in=users)
    return (found if accounts is None else found.filter(account__in=accounts)).count()


def agree(users: list[int], accounts: list[int]) -> bool:
    return backup_tally.count(users=users) == counted(users, None) and all(
        backup_tally.count(users=users, accounts=[account]) == counted(users, [account])
        for account in accounts
    )


def change(random_: random.Random, policies: list) -> None:
    """One random change of one or many backups."""
    some = list(Backup.objects.order_by("?").values_list("pk", flat=True)[: random_.randint(1, 4)])
    chosen = Backup.objects.filter(pk__in=some)
    kind = random_.choice(["insert", "insert", "many", "delete", "move", "later", "status", "orphan"])
    if kind == "insert":
        factories.backup(random_.choice(policies), start_time=factories.NOW + DAY * random_.randint(0, 5))
    elif kind == "many":
        of = random_.choice(policies)
        Backup.objects.bulk_create(
            Backup(user=of.user, account=of.account, start_time=factories.NOW + DAY * n) for n in range(3)
        )
    elif kind == "delete":
        chosen.delete()
    elif kind == "move":
        of = random_.choice(policies)
        chosen.update(account=of.account, user=of.user)
    elif kind == "later":
        chosen.update(start_time=F("start_time") + timedelta(hours=random_.randint(1, 48)))
    elif kind == "status":
        chosen.update(status="F", outcome="x")
    else:
        chosen.update(account=None)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(8))
def test_the_tally_equals_counting_after_random_changes(seed: int):
    random_ = random.Random(seed)
    policies = [factories.policy() for _ in range(3)]
    users, accounts = [p.user_id for p in policies], [p.account_id for p in policies]

    for _ in range(25):
        change(random_, policies)
        if random_.random() < 0.2:
            backup_tally.fold()

        assert agree(users, accounts)
        assert agree(users[:1], accounts)


@pytest.mark.django_db(transaction=True)
def test_the_tally_equals_counting_while_others_write_and_fold():
    policies = [factories.policy() for _ in range(3)]
    users, accounts = [p.user_id for p in policies], [p.account_id for p in policies]
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        random_ = random.Random(seed)
        try:
            for _ in range(15):
                with transaction.atomic():
                    for _ in range(random_.randint(1, 3)):
                        factories.backup(
                            random_.choice(policies), start_time=factories.NOW + DAY * random_.randint(0, 3)
                        )
                    if random_.random() < 0.2:
                        transaction.set_rollback(True)
                backup_tally.fold()
                with transaction.atomic(), connection.cursor() as cursor:
                    # One snapshot for both sides of the comparison.
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    assert agree(users, accounts)
        except BaseException as error:  # noqa: BLE001  # the thread's failure is the test's
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not failures
    assert agree(users, accounts)


@pytest.mark.django_db
def test_folding_leaves_one_row_for_each_day_and_scope():
    policy = factories.policy()
    for n in range(6):
        factories.backup(policy, start_time=factories.NOW + DAY * (n % 2))
    Backup.objects.filter(start_time__gt=factories.NOW).delete()

    saved = backup_tally.fold()

    assert saved > 0
    assert sorted(BackupTally.objects.values_list("whole_user", "n")) == [(False, 3), (True, 3)]
    assert backup_tally.fold() == 0


@pytest.mark.django_db
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_place_is_where_counting_would_find_it(newest_first: bool):
    policy = factories.policy()
    for n in range(12):
        factories.backup(policy, start_time=factories.NOW + DAY * (n % 4) + timedelta(minutes=n))
    sign = "-" if newest_first else ""
    in_order = list(Backup.objects.order_by(f"{sign}start_time", f"{sign}id"))

    for offset, expected in enumerate(in_order):
        place = backup_tally.locate(users=[policy.user_id], offset=offset, newest_first=newest_first)

        assert place is not None
        bound = {"start_time__lt": place.end} if newest_first else {"start_time__gte": place.start}
        assert place.total == 12
        assert (
            Backup.objects.filter(**bound).order_by(f"{sign}start_time", f"{sign}id")[place.skip] == expected
        )
    assert backup_tally.locate(users=[policy.user_id], offset=12, newest_first=newest_first) is None
