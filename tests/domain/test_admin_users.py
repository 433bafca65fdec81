"""Users in the admin: root makes, changes and deletes them through the services; everybody else sees one."""

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse

from cpm.lib.states import Role
from cpm.models import ApiKey, AuditRecord, User
from tests import factories
from tests.domain.test_admin import client_of

pytestmark = pytest.mark.django_db

PASSWORD = "correct-horse-battery"
LIST = reverse("admin:cpm_user_changelist")


def page_of(user: User, action: str = "change") -> str:
    return reverse(f"admin:cpm_user_{action}", args=[user.pk])


def form_of(client: Client, user: User) -> dict[str, object]:
    """What the page would send if nothing were changed."""
    form = client.get(page_of(user)).context["adminform"].form
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    values = {name: [u.pk for u in v] if isinstance(v, list) else v for name, v in values.items()}
    return {name: value for name, value in values.items() if value not in (None, False)}


def act(client: Client, user: User, action: str, data: dict[str, object] | None = None):
    return client.post(f"{LIST}{user.pk}/{action}/", data or {})


def messages_of(answer) -> str:
    return " ".join(str(message) for message in get_messages(answer.wsgi_request))


def test_an_independent_user_is_changed_and_looks_after_managed_ones():
    client, user = client_of(factories.root()), factories.user(max_accounts=3)
    managed = factories.user(Role.MANAGED)

    answer = client.post(
        page_of(user),
        {
            **form_of(client, user),
            "email": "a@example.org",
            "max_instances": 7,
            "applied_managed_users": [managed.pk],
        },
    )

    assert answer.status_code == 302, answer.context["adminform"].form.errors
    user.refresh_from_db()
    assert (user.email, user.max_accounts, user.max_instances) == ("a@example.org", 3, 7)
    assert list(user.applied_managed_users.all()) == [managed]
    assert AuditRecord.objects.filter(event_type="user.updated", subject_id=user.pk).exists()


def test_what_the_service_refuses_is_shown_in_the_form():
    client, user = client_of(factories.root()), factories.user(Role.MANAGED)
    other = factories.user(Role.MANAGED)

    answer = client.post(page_of(user), {**form_of(client, user), "applied_managed_users": [other.pk]})

    assert answer.status_code == 200
    assert "applied_managed_users" in answer.context["adminform"].form.errors
    assert not user.applied_managed_users.exists()


def test_a_delegate_is_made_and_its_flags_are_changed():
    client, owner = client_of(factories.root()), factories.user()
    made = client.post(
        reverse("admin:cpm_user_add"),
        {
            "username": "deputy", "password": PASSWORD, "role": "delegate", "original_user": owner.pk,
            "allow_recovery": "on", "allow_cost_explorer": "on",
        },
    )  # fmt: skip
    assert made.status_code == 302, made.context["adminform"].form.errors
    deputy = User.objects.get(username="deputy")

    changed = client.post(page_of(deputy), {"allow_backup_changes": "on"})

    assert changed.status_code == 302, changed.context["adminform"].form.errors
    deputy.refresh_from_db()
    assert deputy.original_user == owner
    assert (deputy.allow_backup_changes, deputy.allow_recovery) == (True, False)


def test_root_changes_its_address_and_cannot_be_deleted():
    root = factories.root()
    client = client_of(root)

    assert client.post(page_of(root), {"email": "root@example.org"}).status_code == 302
    assert client.post(page_of(root, "delete"), {"post": "yes"}).status_code == 403

    root.refresh_from_db()
    assert root.email == "root@example.org"


def test_a_user_is_deleted_with_its_things_unless_it_has_delegates():
    client, policy = client_of(factories.root()), factories.policy()
    user = policy.user
    delegate = factories.delegate(user)

    refused = client.post(page_of(user, "delete"), {"post": "yes"})
    assert "has delegates" in messages_of(refused)
    assert client.post(page_of(delegate, "delete"), {"post": "yes"}).status_code == 302
    assert client.post(page_of(user, "delete"), {"post": "yes"}).status_code == 302

    assert not User.objects.filter(pk__in=[user.pk, delegate.pk]).exists()


def test_nobody_else_changes_users_or_sees_others():
    user, other = factories.user(email="mine@example.org"), factories.user()
    client = client_of(user)

    assert client.get(page_of(user)).status_code == 200
    assert client.get(page_of(other)).status_code == 302
    assert client.post(page_of(user), {"email": "new@example.org"}).status_code == 403
    assert client.get(reverse("admin:cpm_user_add")).status_code == 403
    assert client.post(page_of(user, "delete"), {"post": "yes"}).status_code == 403
    for action in ("set-password", "deactivate", "end-tokens"):
        act(client, other, action, {"password": PASSWORD})
    act(client, user, "deactivate")

    other.refresh_from_db()
    user.refresh_from_db()
    assert (user.email, user.is_active, other.is_active) == ("mine@example.org", True, True)
    assert other.tokens_valid_from is None
    assert other.password == "!"


def test_a_user_is_kept_out_and_let_in_again():
    client, user = client_of(factories.root()), factories.user()
    theirs = client_of(user)

    act(client, user, "deactivate")
    user.refresh_from_db()
    assert (user.is_active, user.tokens_valid_from is None) == (False, False)
    assert theirs.get(LIST).status_code == 302
    act(client, user, "activate")

    user.refresh_from_db()
    assert user.is_active


def test_delegates_of_a_user_who_is_kept_out_are_out_too():
    delegate = factories.delegate(factories.user())
    delegate.set_password(PASSWORD)
    delegate.save()
    open_session = client_of(delegate)
    assert open_session.get(LIST).status_code == 200

    act(client_of(factories.root()), delegate.original_user, "deactivate")

    login = Client().post("/admin/login/", {"username": delegate.username, "password": PASSWORD})
    assert open_session.get(LIST).status_code == 302
    assert (login.status_code, "sessionid" in login.cookies) == (200, False)


def test_tokens_are_ended_by_root_and_by_their_user():
    user = factories.user()
    for client in (client_of(factories.root()), client_of(user)):
        User.objects.filter(pk=user.pk).update(tokens_valid_from=None)
        act(client, user, "end-tokens")
        user.refresh_from_db()
        assert user.tokens_valid_from is not None


def test_people_change_their_own_password_and_stay_logged_in():
    user = factories.user()
    user.set_password("the-old-password")
    user.save()
    client = client_of(user)
    address = reverse("admin:password_change")
    given = {"new_password1": PASSWORD, "new_password2": PASSWORD}

    page = client.get(act(client, user, "set-password").url)
    wrong = client.post(address, {**given, "old_password": "wrong"})
    done = client.post(address, {**given, "old_password": "the-old-password"})

    user.refresh_from_db()
    assert (page.status_code, done.status_code) == (200, 302)
    assert wrong.context["form"].errors["old_password"] == ["This is not the current password."]
    assert user.check_password(PASSWORD)
    assert user.tokens_valid_from is not None
    assert client.get(LIST).status_code == 200


def test_guessing_the_old_password_is_counted(settings):
    settings.CPM_LOGIN_ATTEMPTS = 2
    user = factories.user()
    user.set_password("the-old-password")
    user.save()
    client = client_of(user)
    guess = {"old_password": "wrong", "new_password1": PASSWORD, "new_password2": PASSWORD}

    for _ in range(2):
        client.post(reverse("admin:password_change"), guess)
    blocked = client.post(reverse("admin:password_change"), {**guess, "old_password": "the-old-password"})

    assert "too many failed attempts" in str(blocked.context["form"].errors)
    user.refresh_from_db()
    assert user.check_password("the-old-password")


def test_a_key_is_shown_once_with_its_name():
    user = factories.user()
    client = client_of(user)

    shown = client.post(reverse("admin:cpm_apikey_add"), {"user": user.pk, "name": "laptop"})
    listed = client.get(reverse("admin:cpm_apikey_changelist")).content.decode()

    key = ApiKey.objects.get(user=user)
    text = shown.content.decode()
    assert text.count(key.prefix) >= 1
    secret = next(
        word for word in text.replace("<", " ").replace(">", " ").split() if word.startswith("cpm_")
    )
    assert secret not in listed and key.prefix in listed and "laptop" in listed
