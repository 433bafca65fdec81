"""The fleet takes up a changed log mode: workers with their report and their tasks, beat with what it sends."""

from celery.signals import beat_init, before_task_publish, task_prerun

from cpm.services import log_mode


@task_prerun.connect
def _follow(**_: object) -> None:
    log_mode.follow()


@beat_init.connect
def _follow_in_beat(**_: object) -> None:
    # Everybody sends messages; only beat has no other moment to look.
    before_task_publish.connect(_follow)
