"""Making images. AWS keeps their names unique, and ours name the step: a name that is taken is this step's own image."""

from collections.abc import Callable

from django.conf import settings

from cpm.aws.errors import AlreadyExists
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Wait


def create_or_adopt(context: StepContext, create: Callable[[], str], find: Callable[[], list[str]]) -> str:
    """The id of what `create` makes, or of what an earlier holder of this step made a moment before.

    A worker that stood still may make the call just when its successor does. AWS's lists may not show the image yet:
    raises NotYet once to wait for them, and then AWS's refusal, if the image is still not ours.
    """
    try:
        return create()
    except AlreadyExists:
        if found := find():
            return found[0]
        waited = context.cursor or {}
        if "name_taken" in waited:
            raise
        context.save_cursor({**waited, "name_taken": True})
        seconds = settings.CPM_AWS_LIST_LAG_SECONDS
        raise NotYet(Wait(seconds, message="The image was made a moment ago; looking for it.")) from None
