"""Tests the times of schedules: local time, clock changes, and missed runs."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from fairactor_scheduling._cron import check_cron
from fairactor_scheduling._cron_fields import parse
from fairactor_scheduling._rule import Calendar, Stored, calendar
from fairactor_scheduling._times import Cron, Interval, Once, in_ms, latest, moment
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor.errors import ConfigurationError

MINUTE: Final = 60_000
DAY: Final = 86_400_000

CHANGES: Final = {
    "Europe/Berlin": ["2026-03-29", "2026-10-25"],
    "America/New_York": ["2026-03-08", "2026-11-01"],
    "Australia/Sydney": ["2026-10-04", "2026-04-05"],
    "Australia/Lord_Howe": ["2026-10-04", "2026-04-05"],  # by 30 minutes
    "America/Havana": ["2026-03-08", "2026-11-01"],  # forward at midnight; back from 1 to midnight
    "Asia/Beirut": ["2026-03-29", "2026-10-25"],  # forward at midnight; back from midnight to 23
    "Pacific/Apia": ["2011-12-30", "2012-04-01"],  # skips a day
    "UTC": ["2026-03-29"],
}


def cron(expression: str, zone: str) -> Cron:
    return Cron(expression, ZoneInfo(zone), "s")


def times(expression: str, zone: str, start: str, end: str) -> list[str]:
    """Returns the times of a cron expression between two local times, as local times with offsets."""
    first, last = (in_ms(dt.datetime.fromisoformat(each).replace(tzinfo=ZoneInfo(zone))) for each in (start, end))
    made, found = cron(expression, zone), []
    at = made.after(first - 1)
    while at is not None and at < last:
        found.append(moment(at).astimezone(ZoneInfo(zone)).strftime("%d %H:%M%z"))
        at = made.after(at)
    return found


@pytest.mark.parametrize(
    ("zone", "day", "expression", "found"),
    [
        ("Europe/Berlin", "2026-03-29", "30 2 * * *", ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]),
        ("Europe/Berlin", "2026-10-25", "30 2 * * *", ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]),
        ("America/New_York", "2026-03-08", "15,45 2 * * *", [
            "07 02:15-0500", "07 02:45-0500", "08 03:00-0400", "09 02:15-0400", "09 02:45-0400",
        ]),
        ("America/New_York", "2026-11-01", "15,45 1 * * *", [
            "31 01:15-0400", "31 01:45-0400", "01 01:15-0400", "01 01:45-0400", "02 01:15-0500", "02 01:45-0500",
        ]),
        ("Australia/Sydney", "2026-10-04", "0 2,3 * * *", [
            "03 02:00+1000", "03 03:00+1000", "04 03:00+1100", "05 02:00+1100", "05 03:00+1100",
        ]),
        ("Australia/Lord_Howe", "2026-10-04", "15 2 * * *", ["03 02:15+1030", "04 02:30+1100", "05 02:15+1100"]),
        ("Australia/Lord_Howe", "2026-04-05", "45 1 * * *", ["04 01:45+1100", "05 01:45+1100", "06 01:45+1030"]),
        ("America/Havana", "2026-03-08", "0 0 * * *", ["07 00:00-0500", "08 01:00-0400", "09 00:00-0400"]),
        ("America/Havana", "2026-11-01", "0 0 * * *", ["31 00:00-0400", "01 00:00-0400", "02 00:00-0500"]),
        ("Asia/Beirut", "2026-03-29", "0 0 * * *", ["28 00:00+0200", "29 01:00+0300", "30 00:00+0300"]),
        ("Asia/Beirut", "2026-10-25", "30 23 * * *", ["24 23:30+0300", "25 23:30+0200", "26 23:30+0200"]),
        ("Pacific/Apia", "2011-12-30", "0 9 * * *", ["29 09:00-1000", "31 00:00+1400", "31 09:00+1400"]),
    ],
)  # fmt: skip
def test_where_hours_are_fixed_each_time_of_the_day_comes_once(
    zone: str, day: str, expression: str, found: list[str]
) -> None:
    around = dt.date.fromisoformat(day)
    start, end = around - dt.timedelta(days=1), around + dt.timedelta(days=2)
    assert times(expression, zone, f"{start}T00:00", f"{end}T00:00") == found


@pytest.mark.parametrize(
    ("zone", "start", "end", "expression", "found"),
    [
        ("Europe/Berlin", "2026-03-29T01:00", "2026-03-29T04:00", "0 * * * *", ["29 01:00+0100", "29 03:00+0200"]),
        ("Europe/Berlin", "2026-10-25T01:00", "2026-10-25T04:00", "30 * * * *", [
            "25 01:30+0200", "25 02:30+0200", "25 02:30+0100", "25 03:30+0100",
        ]),
        ("Australia/Lord_Howe", "2026-04-05T01:00", "2026-04-05T03:00", "*/15 */1 * * *", [
            "05 01:00+1100", "05 01:15+1100", "05 01:30+1100", "05 01:45+1100", "05 01:30+1030", "05 01:45+1030",
            "05 02:00+1030", "05 02:15+1030", "05 02:30+1030", "05 02:45+1030",
        ]),
        ("Asia/Beirut", "2026-10-24T23:00", "2026-10-26T00:00", "30 * 24 10 *", ["24 23:30+0300", "24 23:30+0200"]),
        ("Europe/Berlin", "2026-10-25T00:00", "2026-10-25T05:00", "0 */2 * * *", [
            "25 00:00+0200", "25 02:00+0200", "25 02:00+0100", "25 04:00+0100",
        ]),
    ],
)  # fmt: skip
def test_where_any_hour_will_do_real_time_goes_on(
    zone: str, start: str, end: str, expression: str, found: list[str]
) -> None:
    assert times(expression, zone, start, end) == found


def on_the_wall(ms: int, zone: str) -> dt.datetime:
    return moment(ms).astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)


def matches(wall: dt.datetime, minutes: set[int], hours: set[int] | None) -> bool:
    return wall.minute in minutes and (hours is None or wall.hour in hours)


def expected(zone: str, start: int, end: int, minutes: set[int], hours: set[int] | None) -> list[int]:
    """Returns the times at which a cron daemon that checks the local time every minute would run.

    It starts three days early, so that it knows of earlier clock changes.
    """
    found, shown = set(), set()
    previous = None
    for ms in range(start - 3 * DAY, end, MINUTE):
        wall = on_the_wall(ms, zone)
        if hours is None:
            if matches(wall, minutes, hours):
                found.add(ms)
        else:
            skipped = [previous] if previous is not None else []
            while skipped and skipped[-1] < wall - dt.timedelta(minutes=1):
                skipped.append(skipped[-1] + dt.timedelta(minutes=1))
            for each in [*skipped[1:], wall]:
                if each not in shown and matches(each, minutes, hours):
                    found.add(ms)
                shown.add(each)
        previous = wall
    return sorted(ms for ms in found if ms >= start)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_each_time_on_the_wall_comes_as_cron_would_have_it(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(sorted(CHANGES)))
    day = dt.datetime.fromisoformat(data.draw(st.sampled_from(CHANGES[zone]))).replace(tzinfo=dt.UTC)
    start = in_ms(day) - DAY + data.draw(st.integers(-600, 600)) * MINUTE
    end = start + 3 * DAY
    minutes = data.draw(st.sets(st.integers(0, 59), min_size=1, max_size=4))
    hours = data.draw(st.none() | st.sets(st.integers(0, 23), min_size=1, max_size=5))
    fields = [",".join(map(str, minutes)), "*" if hours is None else ",".join(map(str, hours))]
    made, found = cron(f"{' '.join(fields)} * * *", zone), []
    at = made.after(start - 1)
    while at is not None and at < end:
        found.append(at)
        at = made.after(at)
    assert found == expected(zone, start, end, minutes, hours)


EXPRESSIONS: Final = [
    "* * * * *", "*/5 * * * *", "0 9 * * mon-fri", "30 2 * * *", "0 0 l * *", "0 0 29 2 *", "15 10 * * 2#3", "@hourly",
    "@daily", "*/7 1-3 * * *", "0 0 * * * */10", "5 4 1 1 *", "0 */6 13 * 5", "59 23 31 12 *",
    "H H * * *",
]  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    expression=st.sampled_from(EXPRESSIONS), zone=st.sampled_from(sorted(CHANGES)),
    ms=st.integers(1_600_000_000_000, 2_200_000_000_000),
)  # fmt: skip
def test_times_grow_and_whence_one_looks_does_not_matter(expression: str, zone: str, ms: int) -> None:
    made = cron(expression, zone)
    at, found = ms, []
    for _ in range(6):
        following = made.after(at)
        assert following is not None
        assert following > at
        found.append(following)
        at = following
    assert all(made.after(each - 1) == each for each in found)
    assert all(made.after((a + b) // 2) == b for a, b in pairwise(found))


def test_daily_is_at_midnight_and_hashed_times_cover_the_day_but_stay() -> None:
    assert times("@daily", "Europe/Berlin", "2026-05-01T00:00", "2026-05-02T00:00") == ["01 00:00+0200"]
    start = in_ms(dt.datetime(2026, 5, 1, tzinfo=dt.UTC))
    hashed = [Cron("H H * * *", ZoneInfo("UTC"), str(n)).after(start) for n in range(1500)]
    assert hashed[:9] == [Cron("h h * * *", ZoneInfo("UTC"), str(n)).after(start) for n in range(9)]
    assert len(set(hashed)) > 850  # of 1,440; by chance about 930 are expected


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "most"),
    [
        ("H * * * *", 0, 59, 1),
        ("H(10-12) * * * *", 10, 12, 1), ("H/20 * * * *", 0, 59, 3), ("H/90 * * * *", 0, 59, 1),
        ("H(0-29)/10,45 * * * *", 0, 45, 4),
    ],
)  # fmt: skip
def test_hashed_values_stay_within_their_range_and_reach_all_of_it(
    text: str, lowest: int, highest: int, most: int
) -> None:
    found = [parse(text, str(n)).minutes for n in range(900)]
    assert {len(minutes) for minutes in found} == {most}
    assert (min(map(min, found)), max(map(max, found))) == (lowest, highest)


def test_a_hashed_day_comes_in_every_month() -> None:
    assert {day for n in range(900) for day in parse("0 0 H * *", str(n)).days} == set(range(1, 29))
    assert {day for n in range(900) for day in parse("0 0 H(1-31) * *", str(n)).days} == set(range(1, 32))


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 * * * *", "minute '61': '61' is out of range: give 0 to 59$"),
        ("* * *", "has 3 fields: give minute, hour"),
        ("bogus * * * *", "minute 'bogus': 'bogus' is not acceptable"), ("*/0 * * * *", "step after '/' must be"),
        ("R * * * *", "use H"), ("0 r(1-3) * * *", "hour 'r[(]1-3[)]': .* use H"), ("0~30 * * * *", "use H"),
        ("@reboot", "there are @yearly, .*@hourly; for an interval, give seconds"),
        ("0 9 * * mon#6", "day of the week 'mon#6': after '#' stands the week of the month, 1 to 5"),
        ("\x00 * * * *", "is not acceptable"), ("0 9 * * * * * *", "has 8 fields"), ("0 9 * dez *", "jan to dec"),
        ("0 0 9 ? * mon", "month '[?]'.*seconds come sixth"), ("0 9 15w,20 * *", "'w' stands alone"),
        ("0 9 * * 5l", "'l5' as a day of the week is the last Friday"), ("0 9 l-3 * *", "'l' as a day of the month"),
        ("0 9 1 1 * 0 2090-2030", "year '2090-2030': .*write it as '2030-2090'"), ("0 9 1 1 * 0 h", "year 'h'"),
        ("h(30-10) * * * *", "write it as 'H[(]10-30[)]'"), ("0 9 1,,2 * *", "'' is not acceptable"),
        ("0 -9 * * *", "hour '-9'"), ("0 9٣ * * *", "hour"), (f"{'9' * 5000} * * * *", "minute"),
        ("0 9 * * mon-", "day of the week 'mon-'"), ("0 9 32 * *", "give 1 to 31"), ("0 9 0 * *", "out of range"),
        ("0 9 30 2 *", "never run: there is no date with day of the month '30', month '2' and day of the week '[*]'"),
        ("0 9 */31 2 mon#2", "never run"), ("0 9 29 2 * 0 2027,2100", "out of range"),
        ("0 9 29 2 * 0 2027", "year '2027'"),
    ],
)  # fmt: skip
def test_an_expression_that_cannot_be_is_refused_with_the_reason(expression: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        check_cron(expression)
    assert "\n" not in str(refused.value)


def test_an_expression_has_no_times_after_its_last() -> None:
    assert cron("* * * * * * 2026", "UTC").after(in_ms(dt.datetime(2027, 1, 1, tzinfo=dt.UTC))) is None
    assert cron("* * * * *", "UTC").after(5_000_000_000_000) is None
    late = in_ms(dt.datetime(2077, 1, 1, tzinfo=dt.UTC))
    assert cron("0 9 1 1 * 0 2090", "UTC").after(late) == in_ms(dt.datetime(2090, 1, 1, 9, tzinfo=dt.UTC))


def test_intervals_count_from_their_anchor_and_moments_come_once() -> None:
    assert [Interval(1000, 500).after(ms) for ms in (-9999, 499, 500, 501, 1499, 1500)] == [
        500, 500, 1500, 1500, 1500, 2500,
    ]  # fmt: skip
    assert [Once(7).after(ms) for ms in (6, 7)] == [7, None]


@given(every=st.integers(1, 100), since=st.integers(0, 50), length=st.integers(1, 2000), count=st.integers(1, 30))
def test_the_latest_times_are_found(every: int, since: int, length: int, count: int) -> None:
    made = Interval(every, since)
    before = since + length
    assert latest(made, count, since, before) == list(range(since, before, every))[-count:]


# Decisions at one moment


def plan(now: int, at: int = 0, checked: int = 0, most: int = 500, **rule: object) -> tuple[object, ...]:
    made = Calendar(Stored(**{"every": 1000, "grace": 5000} | rule), "s")  # type: ignore[arg-type]
    found = made.plan(at, now, checked, most)
    return found.send, found.missed, found.following


def test_within_the_grace_nothing_is_missed() -> None:
    assert plan(-1) == ([], None, 0)
    assert plan(0) == ([0], None, 1000)
    assert plan(5000) == ([0, 1000, 2000, 3000, 4000, 5000], None, 6000)
    assert plan(5000, most=2) == ([0, 1000], None, 2000)


def test_what_was_missed_is_passed_over_run_once_or_all_up_to_a_limit() -> None:
    assert plan(8500) == ([4000, 5000, 6000, 7000, 8000], 0, 9000)
    assert plan(8500, catch_up="once") == ([4000, 5000, 6000, 7000, 8000], 0, 9000)
    assert plan(3500, catch_up="all") == ([0, 1000, 2000, 3000], None, 4000)
    assert plan(8500, catch_up="all") == (list(range(0, 9000, 1000)), None, 9000)
    assert plan(8500, catch_up="all", limit=2) == ([2000, 3000, 4000, 5000, 6000, 7000, 8000], 0, 9000)
    day = {"every": DAY}
    assert plan(DAY // 2, **day) == ([], 0, DAY)
    assert plan(DAY // 2, catch_up="once", **day) == ([0], None, DAY)
    assert plan(5 * DAY // 2, catch_up="once", **day) == ([2 * DAY], 0, 3 * DAY)
    assert plan(5 * DAY // 2, catch_up="all", limit=2, **day) == ([DAY, 2 * DAY], 0, 3 * DAY)
    assert plan(DAY // 2, every=0, at=7) == ([], 7, None)
    assert plan(DAY // 2, at=7, every=0, catch_up="once") == ([7], None, None)


def test_a_limit_holds_for_all_that_was_missed_and_not_for_each_step() -> None:
    made = Calendar(Stored(every=1000, grace=0, catch_up="all", limit=700), "s")
    first = made.plan(0, 3_600_500)
    assert (first.send[0], len(first.send), first.missed) == (2_901_000, 500, 0)
    second = made.plan(first.following or 0, 3_600_500, first.checked)
    assert (second.send[0], len(second.send), second.missed) == (3_401_000, 200, None)


def test_a_schedule_keeps_within_its_bounds() -> None:
    made = Calendar(Stored(every=1000, anchor=500, start=500, end=2500), "s")
    assert [made.after(ms) for ms in (-5, 500, 2499, 2500)] == [500, 1500, 2500, None]
    assert made.first(10_000) is None
    assert Calendar(Stored(every=1000, anchor=500, start=500, catch_up="all"), "s").first(10_000) == 500
    assert Calendar(Stored(at=5), "s").first(60_005) == 5
    assert Calendar(Stored(at=5), "s").first(60_006) is None
    assert Calendar(Stored(at=5, catch_up="once"), "s").first(DAY) == 5


@given(name=st.text(), jitter=st.integers(1, 5000), every=st.integers(100, 5000), at=st.integers(0, 1000))
def test_jitter_delays_by_no_more_than_that_and_never_past_the_next_time(
    name: str, jitter: int, every: int, at: int
) -> None:
    rule = Stored(every=every, jitter=jitter)
    made, again = Calendar(rule, name), Calendar(rule, name)
    sent = [made.due(at * every + n * every) for n in range(5)]
    assert sent == [again.due(at * every + n * every) for n in range(5)] == sorted(sent)
    assert all(0 <= each - (at + n) * every <= min(jitter, every) for n, each in enumerate(sent))


def test_jitter_ends_with_the_schedule() -> None:
    names = [str(n) for n in range(50)]
    last = [Calendar(Stored(every=1000, end=2500, jitter=9000), name).due(2000) for name in names]
    assert 2300 < max(last) <= 2500
    only = [Calendar(Stored(cron="0 0 1 1 *", end=0, jitter=9000), name).due(0) for name in names]
    assert set(only) == {0}


@given(
    late=st.integers(0, 40_000), every=st.integers(500, 9000), jitter=st.integers(0, 50_000), name=st.text(max_size=3)
)
def test_a_run_is_missed_when_the_grace_has_passed_since_it_was_to_be_sent(
    late: int, every: int, jitter: int, name: str
) -> None:
    made = Calendar(Stored(every=every, jitter=jitter, grace=5000), name)
    due = {at: made.due(at) for at in range(0, late + 1, every)}
    found = made.plan(0, late)
    kept = [at for at in due if due[at] >= late - 5000]
    assert found.send == [at for at in kept if due[at] <= late]
    assert found.missed == (0 if 0 not in kept else None)
    once = Calendar(Stored(every=every, jitter=jitter, grace=5000, catch_up="once"), name).plan(0, late)
    missed = [at for at in due if at not in kept]
    assert once.send == (found.send or missed[-1:])
    every_one = Calendar(Stored(every=every, jitter=jitter, grace=5000, catch_up="all"), name).plan(0, late)
    assert every_one.send == [at for at in due if due[at] <= late]


def test_jitter_differs_from_run_to_run_and_from_schedule_to_schedule() -> None:
    rule = Stored(every=60_000, jitter=30_000)
    assert len({Calendar(rule, "s").due(n * 60_000) % 60_000 for n in range(20)}) > 15
    assert len({Calendar(rule, str(n)).due(0) for n in range(20)}) > 15


def test_a_rule_that_is_not_known_here_is_refused() -> None:
    with pytest.raises(Exception, match="Nowhere"):
        calendar(b'{"cron":"* * * * *","zone":"Nowhere/At_All"}', "s")
