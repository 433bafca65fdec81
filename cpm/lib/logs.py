"""The log of every process: JSON lines on stderr, secrets masked, with a level that may change while it runs."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

import structlog

from cpm.lib.secrets import scrub_text

# At DEBUG these write signed headers, answers with credentials, or a line for every variable of a page.
KEPT_QUIET = ("botocore", "boto3", "s3transfer", "urllib3", "django.template", "django.utils.autoreload")


class ScrubbedFormatter(logging.Formatter):
    """Lines of libraries, without what looks like a secret."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub_text(super().format(record))


def configure(level: str, processors: Sequence[Any]) -> None:
    """Sets logging up, once in a process. `processors` see every event of ours before it is written."""
    logging.basicConfig(format="%(message)s")
    for handler in logging.getLogger().handlers:
        if type(handler.formatter) is logging.Formatter:
            handler.setFormatter(ScrubbedFormatter("%(message)s"))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *processors,
            structlog.processors.JSONRenderer(),
        ],
        # Not bound to the stderr of this moment: tests and supervisors replace it. Stdout belongs to commands.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    set_level(level)


def set_level(level: str) -> None:
    """From now on this process writes lines of this level and above, ours and those of libraries."""
    number = logging.getLevelNamesMapping()[level]
    for name in KEPT_QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    logging.getLogger().setLevel(number)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
