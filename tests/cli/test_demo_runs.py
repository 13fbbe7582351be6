"""Tests whole runs of the demo in separate processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

import fairactor

from .conftest import TREE

ROOT = Path(fairactor.__file__).parents[1]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yields a temporary folder and checks that it is empty afterwards. Its path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        yield Path(folder)
        assert not list(Path(folder).iterdir())


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "fairactor", "demo", "--workers", "1", *options]  # each process takes a second


def environment(temporary: Path, **more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS", "LINES")}
    return plain | {"TMPDIR": str(temporary)} | more


def demo(temporary: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options),
        cwd=ROOT,
        env=environment(temporary, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_json_needs_no_rich_and_is_all_there_is(tree: Path, tmp_path: Path, temporary: Path) -> None:
    (tree / "small" / "broken.py").write_text("def")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "rich.py").write_text("raise ModuleNotFoundError('No module named rich', name='rich')")
    done = demo(temporary, "--path", str(tree), "--json", PYTHONPATH=str(tmp_path / "path"))
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert {tenant["tenant"]: tenant["tasks"] for tenant in document["tenants"]} == TREE | {"small": 2}
    overall = document["overall"]
    size = sum(file.stat().st_size for file in tree.glob("[!.]*/**/*.py"))
    assert overall["contents"] == {"lines": 33, "functions": 16, "classes": 16, "bytes": size, "errors": 1}
    assert (overall["tasks"], overall["failed"], overall["left_out"]) == (17, 0, 0)
    assert overall["jain"] > overall["fifo_jain"]
    small = document["tenants"][-1]
    assert small["fair"]["first"] > 0  # the gain over a FIFO queue depends on the machine
    assert small["fifo"]["first"] > 0


def test_the_table_and_its_picture(tree: Path, tmp_path: Path, temporary: Path) -> None:
    done = demo(temporary, "--path", str(tree), "--limit", "5", "--svg", str(tmp_path / "demo.svg"))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("9 files of 3 tenants are queued")
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[4:8]] == ["big", "middle", "small", "all"]
    assert lines[-1] == "7 more files were left out; --limit 0 takes all."
    picture = (tmp_path / "demo.svg").read_text(encoding="utf-8")
    assert "middle" in picture
    assert str(tree) not in picture


def test_a_folder_without_tenants_is_refused(tree: Path, temporary: Path) -> None:
    done = demo(temporary, "--path", str(tree / "absent"))
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("fairactor demo: ")
    assert "absent" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_is_not_there(tree: Path, temporary: Path) -> None:
    done = demo(temporary, "--path", str(tree), "--url", "nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("fairactor demo: url=")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """Makes a folder whose files take far longer to process than any test waits."""
    first = tmp_path / "long" / "a" / "m0.py"
    first.parent.mkdir(parents=True)
    first.write_text("x = [(1, 2, 3, 'four') for i in range(5)]\n" * 20_000)
    for number in range(1, 500):
        (first.parent / f"m{number}.py").symlink_to(first)
    return tmp_path / "long"


def interrupted(run: subprocess.Popen[str], number: signal.Signals) -> str:
    """Waits until the workers run, signals all processes of the "terminal", and returns their further output."""
    assert run.stdout is not None
    assert run.stderr is not None
    assert "500 files of 1 tenants are queued" in run.stdout.readline()
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(run.pid).children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children
    os.killpg(run.pid, number)
    try:
        assert run.wait(timeout=10) == 128 + number
    finally:
        run.kill()  # otherwise a demo that goes on would be waited for without end
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not run.stdout.read()
    return run.stderr.read()


def test_ctrl_c_leaves_no_process_and_no_folder(long_run: Path, temporary: Path) -> None:
    options = command("--path", str(long_run), "--workers", "2")
    with subprocess.Popen(
        options,
        cwd=ROOT,
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        said = interrupted(run, signal.SIGINT)
    assert said.startswith("fairactor demo: stopped by SIGINT after ")
    assert said.count("\n") == 1


def test_sigterm_leaves_nothing_queued_on_the_users_server(
    long_run: Path, temporary: Path, url: str, db: redis.Redis
) -> None:
    with subprocess.Popen(
        command("--path", str(long_run)),
        cwd=ROOT,
        env=environment(temporary, FAIRACTOR_URL=url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        said = interrupted(run, signal.SIGTERM)
    assert said.startswith("fairactor demo: stopped by SIGTERM after ")
    assert not list(db.scan_iter("*:queue:*"))
    assert all(db.ttl(key) > 0 for key in db.scan_iter("*:task:*"))


def test_a_reader_that_goes_away_gets_no_traceback(tree: Path, temporary: Path) -> None:
    with subprocess.Popen(
        command("--path", str(tree)),
        cwd=ROOT,
        env=environment(temporary),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert run.wait(timeout=30) == 1
        assert not run.stderr.read()
