"""Explore sessions in the admin: started from a backup, browsed, downloaded, ended."""

import hashlib
import io
import zipfile
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import reverse

from cpm.lib.states import Role
from cpm.models import AuditRecord, ExploreSession
from tests import factories
from tests.domain import exploring
from tests.domain.exploring import back_up_image, digests
from tests.domain.world import World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def closed_sessions() -> Iterator[None]:
    yield
    exploring.close_all()


def client_of(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def address(session: ExploreSession, action: str) -> str:
    return reverse(f"admin:cpm_exploresession_{action}", args=[session.pk])


def test_an_operator_explores_a_backup_without_the_command_line(world: World) -> None:
    backup, row = back_up_image(world, "fat12")
    client = client_of(world.user)

    client.post(reverse("admin:cpm_backup_explore", args=[backup.pk]))
    world.run()
    session = ExploreSession.objects.get()
    root = client.get(address(session, "browse")).content.decode()
    folder = client.get(address(session, "browse"), {"path": f"/{row.source_id}"}).content.decode()
    found = client.get(address(session, "browse"), {"path": f"/{row.source_id}", "search": "deep"})
    nowhere = client.get(address(session, "browse"), {"path": "/../etc"}).content.decode()
    zipped = client.post(address(session, "browse"), {"paths": [f"/{row.source_id}"]})
    content = b"".join(zipped)
    client.post(address(session, "end"))

    assert f"?path=/{row.source_id}" in root and "deep0/" in folder and "?path=/" in folder
    assert [line["name"] for line in found.context["rows"]] == ["deep0"]
    assert "There is no /../etc in this session." in nowhere
    with zipfile.ZipFile(io.BytesIO(content)) as unpacked:
        files = [each for each in unpacked.infolist() if not each.is_dir()]
        assert {hashlib.sha256(unpacked.read(each)).hexdigest() for each in files} == digests("fat12")
    assert AuditRecord.objects.filter(event_type="explore_session.downloaded").count() == 1
    session.refresh_from_db()
    assert session.status == "P"


def test_sessions_of_others_and_without_the_flag_cannot_be_browsed(world: World) -> None:
    backup, _ = back_up_image(world, "fat12")
    session = factories.explore_session(backup.snapshots.get())
    stranger = factories.user(Role.INDEPENDENT)
    barred = factories.user(Role.INDEPENDENT, allow_file_level_recovery=False)
    own = factories.explore_session(
        factories.snapshot(factories.backup(factories.policy(factories.account(barred))))
    )

    answers = [
        client_of(stranger).get(address(session, "browse")).status_code,
        client_of(stranger).post(address(session, "browse"), {"paths": ["/"]}).status_code,
        client_of(barred).get(address(own, "browse")).status_code,
        client_of(barred).post(address(own, "end")).status_code,
    ]

    assert answers == [403, 403, 403, 403]
    own.refresh_from_db()
    assert own.status == "N"


def test_names_from_a_disk_are_shown_as_text(world: World) -> None:
    _, row = back_up_image(world, "ext2")
    session = factories.explore_session(row, user=world.user)
    client = client_of(world.user)

    page = client.get(address(session, "browse"), {"path": f"/{row.source_id}/<script>alert(1)</script>"})

    assert "<script>alert(1)" not in page.content.decode()
