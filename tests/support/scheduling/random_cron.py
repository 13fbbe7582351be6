"""Random cron expressions of every kind."""

from __future__ import annotations

from random import Random

_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def random_expression(random: Random) -> str:
    """Returns a cron expression that is not ambiguous. A date may not exist for it."""
    fields = [_field(random, n) for n in range(5)]
    if random.random() < 0.15:
        fields.append(_field(random, 0))
        if random.random() < 0.4:
            fields.append(
                random.choice(["*", f"{random.randint(1970, 2040)}-{random.randint(2041, 2099)}/3", "2090,2071"])
            )
    text = " ".join(fields)
    return text.upper() if random.random() < 0.1 else text


def _field(random: Random, n: int) -> str:
    if random.random() < 0.25:
        return "*" if n not in (2, 4) else random.choice("*?")
    special = random.random() < 0.25
    if n == 2 and special:
        return random.choice(
            ["l", "l,15", f"{random.randint(1, 31)}-l", f"{random.randint(1, 31)}w", f"w{random.randint(1, 31)}"]
        )
    parts = [_part(random, n) for _ in range(random.choice([1, 1, 1, 2, 3]))]
    if n == 4 and special:
        parts = [_nth(random, part) for part in parts]
    return ",".join(parts)


def _nth(random: Random, part: str) -> str:
    if random.random() < 0.3:
        return f"l{random.randint(0, 7)}"
    return part if part.startswith("*") or random.random() < 0.3 else f"{part}#{random.randint(1, 5)}"


def _part(random: Random, n: int) -> str:
    _, high = _FIELDS[n]
    kind = random.random()
    step = f"/{random.randint(1, high + 3)}"
    if kind < 0.15:
        return f"*{step}"
    first, last = _value(random, n), _value(random, n)
    if kind < 0.5:
        return first
    if kind < 0.6:
        return f"{first}{step}"
    if kind < 0.65:
        last = first
    return f"{first}-{last}{step if random.random() < 0.4 else ''}"


def _value(random: Random, n: int) -> str:
    low, high = _FIELDS[n]
    if n == 3 and random.random() < 0.4:
        return random.choice(_MONTHS)
    if n == 4 and random.random() < 0.4:
        return random.choice(_WEEKDAYS)
    return str(random.randint(low, high)).zfill(random.choice([1, 2]))
