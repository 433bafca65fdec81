"""What is said in alerts and daily summaries. Plain text, for mail and for whatever else listens to a topic."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from cpm.lib.states import Severity
from cpm.models import Alert

# SNS Publish: a subject has less than 100 ASCII characters on one line and begins with a letter, digit or punctuation
# mark; message and attributes together have 262,144 bytes.
LONGEST_SUBJECT = 99
LONGEST_BODY = 200_000
LISTED = 20
# Quotation marks and dashes that have a plain form.
PUNCTUATION = str.maketrans("\u201c\u201d\u2018\u2019\u2013\u2014", "\"\"''--")


@dataclass(frozen=True, slots=True)
class Message:
    """A subject that SNS takes, and a body."""

    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How operations ended."""

    good: int = 0
    partial: int = 0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.good} successful, {self.partial} partially successful, {self.failed} failed"


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened from `since` to `until`, and what is wrong at its end.

    `alerts` and `idle` begin lists whose lengths are `alert_count` and `idle_count`. `idle` names the policies that had
    no success in the last 24 hours, with the time of their last one.
    """

    username: str
    since: datetime
    until: datetime
    backups: Tally
    dr: Tally
    recoveries: Tally
    alerts: Sequence[Alert]
    alert_count: int
    idle: Sequence[tuple[str, datetime | None]]
    idle_count: int


def alert_message(alert: Alert, *, advice: str, zone: ZoneInfo, server: str) -> Message:
    """What happened, to what, when, and what to do about it."""
    severity = Severity(alert.severity).label
    policy = alert.policy
    facts = [
        ("Severity", severity),
        ("Policy", policy.name if policy else ""),
        (
            "Account",
            " ".join(filter(None, [policy.account.name, policy.account.account_number])) if policy else "",
        ),
        ("User", alert.user.username),
        ("Time", _moment(alert.alert_time, zone)),
    ]
    parts = [
        alert.title,
        alert.message_body,
        "\n".join(f"{name + ':':<10}{value}" for name, value in facts if value),
        f"What to do: {advice}",
        _signature(server),
    ]
    return Message(subject_of(f"CPM {severity}: {alert.title}"), body_of("\n\n".join(parts)))


def summary_message(summary: Summary, *, zone: ZoneInfo, server: str) -> Message:
    """The daily summary."""
    bad = summary.backups.failed + summary.dr.failed + summary.recoveries.failed
    verdict = f"{bad} failed, {summary.alert_count} alerts" if bad or summary.alert_count else "all is well"
    day = summary.until.astimezone(zone)
    parts = [
        f"Daily summary for {summary.username}\n"
        f"From {_moment(summary.since, zone)}\nto   {_moment(summary.until, zone)}",
        f"Backups:    {summary.backups}\nDR copies:  {summary.dr}\nRecoveries: {summary.recoveries}",
        _listing(
            "Alerts that stand",
            summary.alert_count,
            (
                f"[{Severity(alert.severity).label}] {alert.title} ({alert.user.username})"
                for alert in summary.alerts
            ),
        ),
        _listing(
            "Policies without a success in the last 24 hours",
            summary.idle_count,
            (
                f"{name}, last success {_moment(last, zone) if last else 'never'}"
                for name, last in summary.idle
            ),
        ),
        _signature(server),
    ]
    return Message(subject_of(f"CPM daily summary {day:%Y-%m-%d}: {verdict}"), body_of("\n\n".join(parts)))


def subject_of(text: str) -> str:
    """The text as SNS takes a subject: one line of ASCII, less than 100 characters."""
    plain = unicodedata.normalize("NFKD", text.translate(PUNCTUATION))
    ascii_only = "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c))
    line = " ".join("".join(c if c.isprintable() else " " for c in ascii_only).split())
    return line if len(line) <= LONGEST_SUBJECT else f"{line[: LONGEST_SUBJECT - 3]}..."


def body_of(text: str) -> str:
    """The text, cut to what SNS takes; no character is cut in two."""
    data = text.encode()
    if len(data) <= LONGEST_BODY:
        return text
    return data[:LONGEST_BODY].decode(errors="ignore") + "\n[…]"


def _listing(title: str, count: int, lines: Iterable[str]) -> str:
    if not count:
        return f"{title}: none"
    shown = [f"- {line}" for line in lines]
    more = [f"- and {count - len(shown)} more"] if count > len(shown) else []
    return "\n".join([f"{title}: {count}", *shown, *more])


def _moment(moment: datetime, zone: ZoneInfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def _signature(server: str) -> str:
    return f"Sent by CPM{f' on {server}' if server else ''}."
