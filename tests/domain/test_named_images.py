"""Two holders of one step make the same image at the same moment."""

import pytest

from cpm.aws.errors import AlreadyExists
from cpm.flows.named_images import create_or_adopt
from cpm.jobs.kinds import Done, StepSpec
from cpm.models import Step
from tests.domain.engine import engine, kind, run_to_end, start

pytestmark = pytest.mark.django_db(transaction=True)


class Cloud:
    """Refuses a name that is taken; `shown` says how many looks it takes until lists show what is there."""

    def __init__(self, shown_after: int | None) -> None:
        self.looks, self.shown_after, self.refusals = 0, shown_after, 0

    def create(self) -> str:
        self.refusals += 1
        raise AlreadyExists(code="InvalidAMIName.Duplicate", message="in use", action="RegisterImage", service="ec2", region="us-east-1")

    def find(self) -> list[str]:
        self.looks += 1
        return ["ami-1"] if self.shown_after is not None and self.looks > self.shown_after else []

    def step(self, context):
        context.once(create=lambda: create_or_adopt(context, self.create, self.find), find=self.find)
        return Done()


@pytest.mark.parametrize("shown_after", [0, 1], ids=["shown at once", "shown after the lag of the lists"])
def test_the_image_of_the_other_holder_is_adopted(settings, shown_after: int) -> None:
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    cloud = Cloud(shown_after)
    built = engine(kind("image", cloud.step))
    job = start(built, [StepSpec("image")])

    assert run_to_end(built, job).state == "succeeded"
    assert (Step.objects.get(job=job).token, cloud.refusals) == ("ami-1", 1)


def test_a_name_that_somebody_else_has_taken_fails_the_step(settings) -> None:
    settings.CPM_AWS_LIST_LAG_SECONDS = 0
    cloud = Cloud(None)
    built = engine(kind("image", cloud.step))
    job = start(built, [StepSpec("image")])

    assert run_to_end(built, job).state == "failed"
    assert cloud.refusals == 2
