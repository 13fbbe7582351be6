"""Values that Python can hardly write, compare or convert: one clear, short error for each, wherever they are given."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import pytest
from fairactor_xcom import xcom

from fairactor import Runtime, actor, current_task
from fairactor._actors.options import TaskOptions
from fairactor._client.envelope import encode_message
from fairactor._util.checks import CENTURY, check_seconds, shown
from fairactor.errors import ConfigurationError, FairactorError, NotSerializable, PayloadTooLarge, TaskFailed
from fairactor.settings import Settings
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

LONGEST = 700  # characters of a message


class Stubborn:
    """It cannot be shown, compared or hashed, as some arrays cannot."""

    def _refuse(self, *_: object) -> Any:
        raise ValueError("ambiguous")

    __repr__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = _refuse
    __hash__ = None  # type: ignore[assignment]  # on purpose


class OddInt(int):
    __repr__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __float__ = Stubborn._refuse  # type: ignore[assignment]
    __hash__ = int.__hash__


class OddZone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None, /) -> dt.timedelta:
        raise OverflowError("beyond the end of time")


UTC = dt.UTC
VALUES: dict[str, Any] = {
    "a float's limit": 10**400,
    "long": 10**5000,
    "long and negative": -(10**5000),
    "nan": math.nan,
    "infinite": math.inf,
    "true": True,
    "decimal": Decimal(1),
    "fraction": Fraction(1, 3),
    "complex": 1j,
    "stubborn": Stubborn(),
    "odd int": OddInt(-5),
    "long text": "x" * 1_000_000,
    "long bytes": b"x" * 1_000_000,
    "long list": [10**5000] * 1000,
    "nested": {"key": [10**5000]},
    "longest": dt.timedelta.max,
    "shortest": dt.timedelta.min,
    "naive": dt.datetime.max,  # noqa: DTZ901 - it is to be refused
    "last": dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))),
    "first": dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
    "odd zone": dt.datetime(2030, 1, 1, tzinfo=OddZone()),
    "surrogates": "\ud800" * 1000,
    "class": Stubborn,
}
odd = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())


@actor
async def echo(value: Any) -> Any:
    return value


@actor
async def whole(value: int) -> int:
    return value


@actor
async def huge() -> int:
    return 10**5000


def check_short(error: Exception) -> None:
    assert len(str(error)) < LONGEST, str(error)


def attempt(call: Callable[[], object]) -> None:
    try:
        call()
    except FairactorError as error:
        check_short(error)


@odd
def test_a_setting(value: Any) -> None:
    for setting in (field.name for field in attrs.fields(Settings)):
        attempt(lambda setting=setting: Settings(**{setting: value}))  # type: ignore[misc]  # mypy knows no defaults here
    attempt(lambda: Runtime(plugins=value))
    attempt(lambda: Runtime(actors=value))
    attempt(lambda: Runtime(actors=[value]))


@odd
def test_an_option(value: Any) -> None:
    for option in [
        *TaskOptions.__annotations__,
        "priority",
        "delay",
        "eta",
        "max_retries",
        "backoff",
        "key",
        "expires",
    ]:
        attempt(lambda option=option: echo(1).options(**{option: value}))  # type: ignore[misc]


@odd
def test_an_argument(value: Any) -> None:
    for message in (echo(value), whole(value), echo([{"deep": value}])):
        attempt(
            lambda message=message: encode_message("t", message, watch=False, max_payload=1 << 20)  # type: ignore[misc]
        )


@odd
async def test_a_call(make_runtime: Make, value: Any) -> None:
    async def call(*_: object) -> None:
        for make in (
            lambda: runtime.send("t", value),
            lambda: runtime.send(value, echo(1)),
            lambda: runtime.send("t", echo(1), eta=value),
            lambda: runtime.handle(value).result(timeout=value),
            lambda: runtime.tenant("t").purge(canceled_ttl=value),
            *(lambda name=name: runtime.tenant("t").configure(**{name: value}) for name in ("weight", "concurrency")),
            *(
                lambda name=name: runtime.tenant("t").configure(**{name: value})
                for name in ("rate", "backlog", "group")
            ),
            lambda: runtime.tenant("t").configure(rate="5/s", burst=value),
            lambda: runtime.assign(value),
            lambda: runtime.assign(["a"], value),
        ):
            try:
                await make()
            except FairactorError as error:
                check_short(error)

    async with make_runtime(echo, connect_timeout=1) as runtime:
        await call()


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), 10**5000, math.nan, OddInt(5), OddInt(10**400), CENTURY + 1],
    ids=["large", "negative", "long", "nan", "odd", "odd and large", "century"],
)
def test_seconds_that_are_none(value: float) -> None:
    for setting in ("lease", "grace", "connect_timeout", "result_ttl"):
        with pytest.raises(ConfigurationError, match=f"{setting}=.*: give a .*number of seconds"):
            Settings(**{setting: value})
    with pytest.raises(ConfigurationError, match=r"timeout=.*: give a .*number of seconds"):
        echo(1).options(timeout=value)


def test_minus_zero_is_zero() -> None:
    assert math.copysign(1, check_seconds("delay", -0.0)) == 1


@pytest.mark.parametrize(
    ("setting", "bound"),
    [
        ("workers", "from 0 to 1000000"), ("shards", "from 1 to 16384"), ("max_payload", "from 1 to 536870912"),
        ("replicas", "from 1 to 1000"), ("max_deliveries", "from 1 to 255"),
    ],
)  # fmt: skip
def test_a_number_that_is_too_large(setting: str, bound: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting}=<a number of 16610 bits>: give a whole number {bound}"):
        Settings(**{setting: 10**5000})


@pytest.mark.parametrize("value", [10**5000, {"n": 10**5000}, [10**5000]], ids=["number", "dict", "list"])
async def test_a_number_that_has_no_json_form(make_runtime: Make, value: Any) -> None:
    async with make_runtime(echo, whole, huge) as runtime:
        for message in (echo(value), whole(value)):
            with pytest.raises(NotSerializable, match=r"\(\): value.*has no JSON form|whole\(\): value: expected int"):
                await runtime.send("t", message)
        with pytest.raises(TaskFailed, match=r"huge\(\) result: <a number of 16610 bits> is a int"):
            await runtime.ask("t", huge(), timeout=PATIENCE)


def test_values_are_shown_briefly_whatever_they_do() -> None:
    assert [shown(value) for value in (5, "five", [5], {"five": 5}, None)] == [
        "5",
        "'five'",
        "[5]",
        "{'five': 5}",
        "None",
    ]
    assert all(0 < len(shown(value)) <= 100 for value in VALUES.values())
    assert shown(10**5000) == "<a number of 16610 bits>"


def test_a_call_whose_options_are_too_long_says_which() -> None:
    message = echo(1).options(depends_on=[f"task-{n}" for n in range(40_000)])
    with pytest.raises(PayloadTooLarge, match=r"its option depends_on= takes most of them"):
        encode_message("t", message, watch=False, max_payload=100_000)


@odd
async def test_what_a_handler_says(make_runtime: Make, value: Any) -> None:
    @actor
    async def say() -> int:
        task, refused = current_task(), 0
        for call in (
            lambda: xcom.push("key", value),
            lambda: xcom.push("key", 1, ttl=value),
            lambda: xcom.push(value, 1),
            lambda: xcom.pull(value),
            lambda: xcom.pull("key", from_task=value),
            lambda: xcom.delete(value),
            lambda: task.progress(value),
            lambda: task.progress(0.5, value),
        ):
            try:
                await call()
            except (FairactorError, KeyError) as error:
                check_short(error)
                refused += 1
        return refused

    async with make_runtime(say) as runtime:
        assert await runtime.ask("t", say(), timeout=PATIENCE) > 0


async def test_a_number_too_long_for_the_protocol_is_refused(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=r"<a number of 16610 bits> is not a string or a number"):
            await runtime.host.call("fairactor_xcom/list", "t", "t", 10**5000)
