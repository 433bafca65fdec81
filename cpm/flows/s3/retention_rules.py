"""Which copies in S3 have outlived their policy's rules, and what becomes of them. Pure: no Django, no clock.

Copies may be kept by generations, by time, or by both; then only what both let go goes. Time counts from the backup's
start, months and years by the calendar. Only good copies are generations, that is those in which all that can be copied
was copied. The newest good copy never goes by a rule, and what is not good goes only with good ones that are newer: a
policy whose copies fail keeps the last one that worked. (DESIGN.md, "Retention in S3".)
"""

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from cpm.lib.states import RetentionUnit

# Days, for comparing two lengths of which no date is known. Twelve months are a year.
DAYS: Mapping[str, Fraction] = {
    RetentionUnit.DAYS: Fraction(1),
    RetentionUnit.WEEKS: Fraction(7),
    RetentionUnit.MONTHS: Fraction(365, 12),
    RetentionUnit.YEARS: Fraction(365),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time as policies have it."""

    count: int
    unit: RetentionUnit

    def after(self, moment: datetime) -> datetime:
        """The moment so much later; a day that the month lacks becomes its last one. Beyond the calendar it is its end."""
        try:
            if self.unit in (RetentionUnit.DAYS, RetentionUnit.WEEKS):
                return moment + timedelta(days=self.count * int(DAYS[self.unit]))
            months = self.count * (12 if self.unit == RetentionUnit.YEARS else 1)
            year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
            day = min(moment.day, calendar.monthrange(year, month + 1)[1])
            return moment.replace(year=year, month=month + 1, day=day)
        except (OverflowError, ValueError):
            return datetime.max.replace(tzinfo=moment.tzinfo)

    @property
    def days(self) -> Fraction:
        return self.count * DAYS[self.unit]


MONTH = Span(1, RetentionUnit.MONTHS)
"""So much longer than copies in S3 archives are kept at least; policies that say otherwise are refused."""
WORTH_MOVING = Span(3, RetentionUnit.WEEKS)
"""An archive that has less than this left is not made. It is less than `MONTH`: February is shorter, and a copy may leave
S3 days after its time because the server was off or the policy busy."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How long copies stay in S3; without a rule they stay for ever."""

    generations: int | None = None
    time: Span | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """The copies of one backup. `held`: something reads or writes them now. `part_archived`: some volumes of it are in
    the archive already."""

    id: int
    start: datetime
    good: bool
    held: bool = False
    part_archived: bool = False


def expired(candidates: Iterable[Candidate], rules: Rules, now: datetime) -> list[Candidate]:
    """What the rules let go of the copies of one policy, oldest first; frozen ones must not be among them.

    Raises ValueError for fewer than one generation: that would delete the only copy.
    """
    if rules.generations is not None and rules.generations < 1:
        raise ValueError("a policy keeps at least one generation")
    oldest_first = sorted(candidates, key=lambda one: (one.start, one.id))
    good = [one for one in oldest_first if one.good]
    if rules == Rules() or len(good) < (rules.generations or 1):
        return []
    boundary = good[-(rules.generations or 1)]
    return [
        one
        for one in oldest_first
        if (one.start, one.id) < (boundary.start, boundary.id)
        and not one.held
        and (rules.time is None or rules.time.after(one.start) <= now)
    ]


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """At most one backup of every period is archived, and kept so long from its start."""

    every: Span
    keep: Span


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of expired copies: `archive` them or `delete` them. The others stay in S3 for now: `late` ones, for which
    the archive is not worth the move any more, until their time in the archive is over, and `waiting` ones until the
    archive of their period, which is only now to be made, is whole."""

    archive: tuple[int, ...] = ()
    delete: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()


def fate(
    due: Iterable[Candidate], rules: ArchiveRules | None, last_archived: datetime | None, now: datetime
) -> Fate:
    """Decide about expired copies. `last_archived` is the start of the latest backup that was archived before.

    What is not good is not archived; of a backup that is archived in part the rest follows.
    """
    oldest_first = sorted(due, key=lambda one: (one.start, one.id))
    if rules is None:
        return Fate(delete=tuple(one.id for one in oldest_first))
    archive: list[int] = []
    delete: list[int] = []
    late: list[int] = []
    waiting: list[int] = []
    chosen, being_made = last_archived, False
    for one in oldest_first:
        ends = rules.keep.after(one.start)
        if ends <= now or not (one.good or one.part_archived):
            delete.append(one.id)
        elif one.part_archived or chosen is None or rules.every.after(chosen) <= one.start:
            in_time = WORTH_MOVING.after(now) <= ends
            (archive if in_time else late).append(one.id)
            chosen = one.start if chosen is None else max(chosen, one.start)
            being_made = in_time and one.good
        else:
            (waiting if being_made else delete).append(one.id)
    return Fate(tuple(archive), tuple(delete), tuple(late), tuple(waiting))


def expires_at_once(rules: Rules, archive: ArchiveRules) -> bool:
    """Whether archives would be deleted within a month of being made, because their time counts from the backup.

    Where copies are kept by generations alone this is not known beforehand; see `Fate.late`.
    """
    return rules.time is not None and archive.keep.days < rules.time.days + MONTH.days


def archive_over(start: datetime, rules: ArchiveRules, now: datetime) -> bool:
    """Whether the time of an archived backup is over."""
    return rules.keep.after(start) <= now
