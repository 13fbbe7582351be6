"""Tests the lease protocol in `docs/lease.pml`: spin tries every order of its steps and finds deliberate bugs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "docs" / "lease.pml"
SPIN, COMPILER = shutil.which("spin"), shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SPIN is None, reason="needs the model checker spin (Debian: apt-get install spin)"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler, cc or gcc: spin writes a program in C"),
]

RIGHT = [
    "LAPSES=1 LOSSES=1 STRAYS=1 CRASHES=1 ZOMBIES=1",
    "LAPSES=1 LOSSES=1 STRAYS=1 LEAVES=1 CANCELS=1 ZOMBIES=1",
    "LAPSES=2 LOSSES=1 STRAYS=2",
    "LAPSES=1 STRAYS=1 ZOMBIES=1 IDLES=1",
    "LAPSES=1 STRAYS=2 LATE_JOIN TOKEN",
    "ROLLBACKS=1 LAPSES=1",
    "ROLLBACKS=1 LOSSES=1 STRAYS=1",
    "ROLLBACKS=1 STRAYS=2",
    "ROLLBACKS=1 LOSSES=1 ZOMBIES=1",
    "ROLLBACKS=1 LEAVES=1 CANCELS=1",
    "ROLLBACKS=1 CRASHES=1",
    "ROLLBACKS=1 STRAYS=1 IDLES=1",
]

# The pattern that pan prints when it finds a violation of each property.
S1_S3 = r"!\(settled\["
S2 = r"\(sum==1\)"
S4 = r"held_attempt\["
S4_TWICE = r"!\(\(held\["
S5 = r"(outcome|late)_attempt.*==attempt\["
S6 = r"\(incarnation\[r\]\+1\)<"
LIVENESS = r"\(settled\[0\]&&settled\[1\]\)"

BROKEN = [
    ("LAPSES=1 ZOMBIES=1 NO_FENCING", S1_S3),
    ("LAPSES=1 ZOMBIES=1 MARK_ONLY", S5),
    ("LOSSES=1 NO_REPLAY", S4),
    ("STRAYS=1 NO_LATE_CHECK", S6),
    ("ROLLBACKS=1 NO_GAP_CHECK", LIVENESS),
    ("LAPSES=1 STRAYS=1 KEEP_NAME", S4),
    ("LAPSES=1 REAP_LIVE", S4_TWICE),
    ("LAPSES=1 DROP_CLAIMS", S2),
    ("LAPSES=1 STRAYS=2 LATE_JOIN", S5),
    ("ROLLBACKS=1 STRAYS=1 LATE_ROLLBACK", S5),
]

WITHOUT_CYCLES = ["LAPSES=1 LOSSES=1 STRAYS=1 ZOMBIES=1", "ROLLBACKS=1 LOSSES=1"]


def check(switches: str, folder: Path, *, kind: str = "SAFETY", options: tuple[str, ...] = ()) -> str:
    """Returns the output of pan for the model with these switches."""

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert SPIN is not None
    assert COMPILER is not None
    shutil.copy(MODEL, folder)
    run(SPIN, *[f"-D{switch}" for switch in switches.split()], "-a", MODEL.name)
    run(COMPILER, "-O2", "-w", f"-D{kind}", "-DCOLLAPSE", "-DMEMLIM=2000", "-o", "pan", "pan.c")
    said = run(str(folder / "pan"), *options)
    assert "Search not completed" not in said or "errors: 0" not in said, f"not all states were visited: {said}"
    assert "max search depth too small" not in said, said
    return said


@pytest.mark.parametrize("switches", RIGHT)
def test_the_protocol_holds(switches: str, tmp_path: Path) -> None:
    said = check(switches, tmp_path)
    assert "errors: 0" in said, said


@pytest.mark.parametrize(("switches", "broken"), BROKEN, ids=[switches for switches, _ in BROKEN])
def test_a_broken_protocol_is_caught(switches: str, broken: str, tmp_path: Path) -> None:
    said = check(switches, tmp_path)
    assert "errors: 1" in said, said
    assert re.search(f"assertion violated .*{broken}", said), said


@pytest.mark.parametrize("switches", WITHOUT_CYCLES)
def test_nothing_goes_round_in_circles(switches: str, tmp_path: Path) -> None:
    said = check(switches, tmp_path, kind="NP", options=("-l",))
    assert "errors: 0" in said, said


def test_every_switch_is_explained_and_tested() -> None:
    model = MODEL.read_text()
    header, _, code = model.partition("*/")
    switches = set(re.findall(r"^#ifn?def (\w+)|^#if (\w+)", code, re.MULTILINE))
    tested = " ".join([*RIGHT, *(switches for switches, _ in BROKEN)])
    for switch in {first or second for first, second in switches}:
        assert re.search(rf"\b{switch}\b", header), f"{switch} is not explained"
        assert re.search(rf"\b{switch}\b", tested), f"{switch} is not tested"
