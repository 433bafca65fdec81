"""Every admin page opens for everybody who may see it, at a bounded cost, and nothing leaks between users."""

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from cpm.jobs import fleet, queue
from cpm.jobs.kinds import StepSpec
from cpm.lib.states import FleetKind, SnapshotKind
from cpm.models import ApiKey, FleetMember, Job, Notification, ServerSettings
from tests import factories

pytestmark = pytest.mark.django_db

MODELS = sorted((m for m in admin.site._registry if m._meta.app_label == "cpm"), key=lambda m: m.__name__)
NAMES = [model.__name__ for model in MODELS]
MOST_QUERIES = 50
ROOT_ONLY = {
    "AuditRecord", "EmailIdentity", "FileLevelRecoverySettings", "FleetMember", "ProxySettings", "ServerSettings",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet(settings, monkeypatch):
    settings.CPM_JOBS_WAKE = "cpm.jobs.queue.no_wake"
    queue._wake.cache_clear()
    monkeypatch.setattr(fleet, "_last", {})
    yield
    queue._wake.cache_clear()


def client_of(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def populate(user, count=3) -> None:
    """Some of everything that this user owns."""
    account = factories.account(user)
    Notification.objects.get_or_create(user=user, defaults={"authentication": "R", "region": "us-east-1"})
    for _ in range(count):
        schedule = factories.schedule(user)
        factories.disable_time(schedule)
        policy = factories.policy(account, schedules=(schedule,))
        factories.target(policy)
        backup = factories.backup(policy)
        instance = factories.snapshot(backup, SnapshotKind.INSTANCE)
        snapshot = factories.snapshot(backup, parent=instance)
        factories.recovery(snapshot)
        factories.alert(user, policy=policy)
        factories.audit_record(user)
        factories.log_line("backup", backup.pk)
        factories.api_key(user)
        factories.s3_copy(snapshot, repository=factories.s3_repository(account))
        factories.explore_session(snapshot)
        factories.s3_operation(backup)
        factories.worker_tag(account)
        factories.worker_test(factories.worker_configuration(factories.account(user)))
        spec = queue.JobSpec("backup", "backup", backup.pk, [StepSpec("one")], user_id=user.pk)
        queue.create_jobs([spec], engine_queues={"one": "backup"})
    fleet.seen("worker", FleetKind.WORKER, ["backup"], 2)
    ServerSettings.objects.get_or_create(id=1)


def list_of(model) -> str:
    return reverse(f"admin:cpm_{model._meta.model_name}_changelist")


def page_of(row) -> str:
    return reverse(f"admin:cpm_{row._meta.model_name}_change", args=[row.pk])


def one_of(model, user):
    return admin.site._registry[model].get_queryset(_request(user)).first()


def _request(user):
    request = type("Request", (), {})()
    request.user, request.META = user, {}
    return request


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_list_opens_at_a_cost_that_does_not_depend_on_its_rows(model, django_assert_max_num_queries):
    root = factories.root()
    populate(root, count=12)
    client = client_of(root)

    with django_assert_max_num_queries(MOST_QUERIES) as taken:
        answer = client.get(list_of(model))
    few = len(taken.captured_queries)
    populate(factories.root(), count=12)
    with django_assert_max_num_queries(few + 2):
        client.get(list_of(model))

    assert answer.status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_list_can_be_searched(model):
    root = factories.root()
    populate(root)

    assert client_of(root).get(list_of(model), {"q": "12"}).status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_row_opens_at_a_bounded_cost(model, django_assert_max_num_queries):
    root = factories.root()
    populate(root, count=8)

    with django_assert_max_num_queries(MOST_QUERIES):
        answer = client_of(root).get(page_of(one_of(model, root)))

    assert answer.status_code == 200


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_add_page_opens_or_is_refused(model):
    root = factories.root()
    may_add = admin.site._registry[model].has_add_permission(_request(root))

    answer = client_of(root).get(reverse(f"admin:cpm_{model._meta.model_name}_add"))

    assert answer.status_code == (200 if may_add else 403)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_other_users_open_their_own_pages_and_no_others(model):
    theirs, mine = factories.user(), factories.user()
    populate(theirs)
    populate(mine)
    client = client_of(mine)
    if model.__name__ in ROOT_ONLY:
        assert client.get(list_of(model)).status_code == 403
        return

    listed = client.get(list_of(model))
    own = client.get(page_of(one_of(model, mine)))
    foreign = client.get(page_of(one_of(model, theirs)))

    assert (listed.status_code, own.status_code) == (200, 200)
    assert foreign.status_code == 302 and foreign.url == reverse("admin:index")


def test_root_sees_its_managed_users_but_not_independent_ones():
    root, managed, independent = factories.root(), factories.user("managed"), factories.user()
    root.applied_managed_users.add(managed)
    hers, theirs = (
        factories.policy(factories.account(managed)),
        factories.policy(factories.account(independent)),
    )

    body = client_of(root).get(reverse("admin:cpm_policy_changelist")).content.decode()

    assert hers.name in body and theirs.name not in body


def test_the_first_page_shows_how_things_stand(django_assert_max_num_queries):
    root = factories.root()
    populate(root)

    with django_assert_max_num_queries(MOST_QUERIES):
        body = client_of(root).get(reverse("admin:index")).content.decode()

    for title in ("Policies protected", "DR copies", "Alerts", "Backlog"):
        assert title in body


def test_the_first_page_of_others_has_no_backlog():
    populate(factories.root())

    body = client_of(factories.user()).get(reverse("admin:index")).content.decode()

    assert "Policies protected" in body and "Backlog" not in body


def test_nobody_sees_anything_without_logging_in():
    for model in MODELS:
        assert Client().get(list_of(model)).status_code == 302
    assert not Job.objects.exists() and not FleetMember.objects.exists()


def test_a_delegate_without_flags_may_look_and_not_change():
    owner = factories.user()
    populate(owner)
    client = client_of(factories.delegate(owner))

    listed = client.get(reverse("admin:cpm_policy_changelist"))
    added = client.get(reverse("admin:cpm_policy_add"))

    assert (listed.status_code, added.status_code) == (200, 403)


def test_a_minted_key_is_shown_once_and_never_again():
    root = factories.root()
    client = client_of(root)

    made = client.post(reverse("admin:cpm_apikey_add"), {"user": root.pk, "name": "laptop"})

    key = made.context["key"]
    row = ApiKey.objects.get(user=root, name="laptop")
    assert key.startswith(row.prefix) and "no-store" in made["Cache-Control"]
    for address in (reverse("admin:cpm_apikey_changelist"), page_of(row)):
        body = client.get(address).content.decode()
        assert key not in body and row.key_hash not in body


def test_others_mint_keys_for_themselves_only():
    somebody, root = factories.user(), factories.root()

    answer = client_of(somebody).post(reverse("admin:cpm_apikey_add"), {"user": root.pk, "name": "x"})

    assert answer.status_code == 200 and answer.context["adminform"].form.errors
    assert not ApiKey.objects.exists()
