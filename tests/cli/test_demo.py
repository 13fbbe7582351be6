"""The demo: its arithmetic, its drawings, and whole runs in processes of their own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import fairactor
from fairactor.demo.bars import bars
from fairactor.demo.fairness import Service, compared, jain_index, replay_fifo, service_while_all_had_work
from fairactor.demo.layout import choose_rows, seconds, short, span
from fairactor.demo.report import AllFailed, make_report
from fairactor.demo.screen import Screen
from fairactor.demo.sources import NoSources, Source, find_sources
from fairactor.demo.survey import Survey, survey
from fairactor.demo.table import table, verdict
from fairactor.demo.workload import Progress

ROOT = Path(fairactor.__file__).parents[1]
TREE = {"big": 12, "middle": 3, "small": 1}

# Fairness

amounts = st.lists(st.floats(0, 1e12), min_size=1, max_size=50)


@given(amounts)
def test_jain_index_is_between_one_nth_and_one(values: list[float]) -> None:
    assert 1 / len(values) * (1 - 1e-9) <= jain_index(values) <= 1 + 1e-9


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_jain_index_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    assert jain_index([value * unit for value in values]) == pytest.approx(jain_index(values))


@given(st.integers(1, 50), st.floats(1e-9, 1e150))
def test_jain_index_of_equals_and_of_one_who_has_all(n: int, value: float) -> None:
    assert jain_index([value] * n) == pytest.approx(1)
    assert jain_index([value] + [0.0] * (n - 1)) == pytest.approx(1 / n)


def test_jain_index_where_nobody_has_anything() -> None:
    assert jain_index([]) == 1
    assert jain_index([0, 0]) == 1


def test_tenants_with_few_tasks_are_not_compared_unless_all_have_few() -> None:
    assert compared([500, 40, 9, 1]) == 10
    assert compared([500, 4, 1]) == 4
    assert compared([7]) == 7
    assert compared([]) == 10


def test_service_is_counted_until_the_first_tenant_runs_out() -> None:
    turns = ["a", "b", "a", "b", "a", "a"]
    services = [Service(tenant, i, i + 1) for i, tenant in enumerate(turns)]
    assert service_while_all_had_work(services, 2) == {"a": 2, "b": 2}
    assert service_while_all_had_work(services, 3) == {"a": 4}
    assert service_while_all_had_work([], 2) == {}


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Service], int]:
    """A run as it could have been measured: each worker serves one task after the other, with pauses."""
    workers = draw(st.integers(1, 5))
    free = [0.0] * workers
    services = []
    for tenant in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=40)):
        worker = draw(st.integers(0, workers - 1))
        began = free[worker] + draw(st.floats(0, 1))
        free[worker] = began + draw(st.floats(0, 10))
        services.append(Service(tenant, began, free[worker]))
    return services, workers


@given(runs())
def test_a_fifo_serves_the_same_tasks_in_the_order_of_sending(run: tuple[list[Service], int]) -> None:
    services, workers = run
    replayed = replay_fifo(services, workers)
    assert [service.tenant for service in replayed] == [service.tenant for service in services]
    for was, now in zip(services, replayed, strict=True):
        assert now.ended - now.began == pytest.approx(was.ended - was.began, abs=1e-9)
    begins = [service.began for service in replayed]
    assert begins == sorted(begins)
    assert begins[0] == min(service.began for service in services)


@given(runs())
def test_a_fifo_runs_no_more_at_once_than_there_are_workers(run: tuple[list[Service], int]) -> None:
    services, workers = run
    replayed = replay_fifo(services, workers)
    for one in replayed:
        assert sum(other.began <= one.began < other.ended for other in replayed) <= workers


def test_a_fifo_is_as_fast_as_the_run_was() -> None:
    # Two tenants take turns on one worker, which pauses for a second after each task.
    services = [Service("a", 0, 1), Service("a", 4, 5), Service("b", 2, 3), Service("b", 6, 7)]
    replayed = replay_fifo(services, workers=1)
    assert [service.began for service in replayed] == pytest.approx([0, 1.75, 3.5, 5.25])
    assert replay_fifo([], 1) == []


# Tenants and their files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of folders of Python files."""
    for tenant, files in TREE.items():
        for number in range(files):
            file = tmp_path / "tree" / tenant / "inner" / f"m{number}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"class A{number}:\n    def f(self): ...\n")
    (tmp_path / "tree" / "big" / "notes.txt").write_text("no Python")
    (tmp_path / "tree" / ".hidden").mkdir()
    (tmp_path / "tree" / ".hidden" / "m.py").touch()
    (tmp_path / "tree" / "empty").mkdir()
    (tmp_path / "tree" / "loose.py").touch()
    return tmp_path / "tree"


def test_sub_folders_are_tenants_and_the_largest_comes_first(tree: Path) -> None:
    sources = find_sources(tree)
    assert {source.tenant: len(source.files) for source in sources} == TREE
    assert [source.tenant for source in sources] == list(TREE)
    assert all(source.left_out == 0 for source in sources)


def test_a_limit_says_how_much_it_leaves_out(tree: Path) -> None:
    sources = find_sources(tree, limit=2)
    assert [(len(source.files), source.left_out) for source in sources] == [(2, 10), (2, 1), (1, 0)]


def test_where_there_is_no_python_text_files_are_taken(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("a\nb")
    (tmp_path / "docs" / "picture").write_bytes(b"GIF\0\1")
    [source] = find_sources(tmp_path)
    assert source == Source("docs", (str(tmp_path / "docs" / "a.txt"),))
    found = survey.__wrapped__(source.files[0])
    assert (found.lines, found.errors) == (2, 0)


def test_names_without_a_utf_8_form_are_told_apart_or_left_out(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"caf\xe8"):
        folder = os.fsencode(tmp_path) + b"/" + name
        try:
            Path(os.fsdecode(folder)).mkdir()
        except OSError:
            pytest.skip("this file system has no such names")
        Path(os.fsdecode(folder), "m.py").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "m.py").touch()
    assert [(source.tenant, source.left_out) for source in find_sources(tmp_path)] == [("plain", 0)]


def test_a_folder_with_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoSources, match="have no source files"):
        find_sources(tmp_path)
    with pytest.raises(NoSources, match="absent: No such file or directory"):
        find_sources(tmp_path / "absent")


def test_installed_distributions_are_tenants() -> None:
    sources = {source.tenant: source for source in find_sources()}
    assert any(file.endswith("__init__.py") for file in sources["pytest"].files)
    files = [file for source in sources.values() for file in source.files]
    assert len(files) == len(set(files))
    assert all(Path(file).is_file() for file in files)


# The actor


def test_a_survey_counts_what_is_there_at_any_depth(tmp_path: Path) -> None:
    source = b"""
class A:
    async def f(self):
        try:
            def g(): ...
        except ValueError:
            class B: ...
if A:
    match 1:
        case 1:
            def h(): ..."""
    (tmp_path / "m.py").write_bytes(source)
    found = survey.__wrapped__(str(tmp_path / "m.py"))
    assert (found.lines, found.functions, found.classes, found.errors) == (11, 3, 2, 0)
    assert (found.bytes, found.sha256) == (len(source), hashlib.sha256(source).hexdigest())
    assert found.began <= found.ended


@pytest.mark.parametrize("broken", [b"def", b"x = '\0'", b"# coding: martian\n", b"\xff", b"(" * 1000 + b")" * 1000])
def test_what_cannot_be_parsed_is_counted_and_not_a_failure(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(broken)
    found = survey.__wrapped__(str(tmp_path / "m.py"))
    assert (found.errors, found.bytes) == (1, len(broken))


def test_what_cannot_be_read_is_counted_and_not_a_failure(tmp_path: Path) -> None:
    assert survey.__wrapped__(str(tmp_path)).errors == 1


# Report and drawings


def played(sizes: dict[str, int], *, failed: Sequence[int] = ()) -> Progress:
    """A run in which one process served the tenants in turn, a second for each task."""
    progress = Progress(processes=1)
    progress.begin([Source(tenant, tuple(f"{n}.py" for n in range(size)), 5) for tenant, size in sizes.items()])
    progress.queued_at = 100.0
    turn = {number: progress.places[:number].count(place) for number, place in enumerate(progress.places)}
    order = sorted(turn, key=lambda number: (turn[number], progress.places[number]))
    for second, number in enumerate(order):
        if number in failed:
            progress.note_failure(number)
        else:
            progress.note(number, Survey(10, 2, 1, 200, "", 0, 100.0 + second, 101.0 + second))
    return progress


MANY = {f"tenant-{size}-of-a-rather-long-name": size for size in range(60, 0, -1)}


def drawn(what: RenderableType | list[Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for part in what if isinstance(what, list) else [what]:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_report_tells_waits_and_fairness_of_the_run_and_of_a_fifo() -> None:
    report = make_report(played({"big": 20, "small": 2}))
    big, small = report.tenants
    assert (big.fair.first, small.fair.first) == (0, 1)
    assert (big.fifo.first, small.fifo.first) == (0, 20)
    assert small.fair.median == 2
    assert small.fifo.median == 20.5
    assert (small.fair.throughput, small.fifo.throughput) == (0.5, pytest.approx(2 / 22))
    assert (report.compared, report.least) == (2, 2)
    assert report.jain == pytest.approx(1)
    assert report.fifo_jain == pytest.approx(1 / 2)
    assert (report.contents.lines, report.left_out, report.tasks) == (220, 10, 22)


def test_failed_tasks_are_left_out_and_told() -> None:
    report = make_report(played({"a": 3, "b": 1}, failed=[3]))
    assert [tenant.tenant for tenant in report.tenants] == ["a"]
    assert (report.tasks, report.failed) == (3, 1)
    assert any("1 tasks failed" in line for line in drawn(verdict(report), 80))
    with pytest.raises(AllFailed, match="all 2 tasks failed"):
        make_report(played({"a": 2}, failed=[0, 1]))


@given(st.integers(1, 300), st.integers(3, 60))
def test_rows_go_to_the_largest_the_smallest_and_some_between(tenants: int, rows: int) -> None:
    chosen = choose_rows(tenants, rows)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, tenants - 1)
    assert len(chosen) == (tenants if tenants <= rows else rows - 1)
    assert chosen[: rows // 2] == list(range(min(tenants, rows // 2)))


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.integers(1, 40))
def test_a_line_of_time_has_its_width_and_shows_something(a: float, b: float, rest: float, width: int) -> None:
    line = span(a, a + b, a + b + rest, width)
    assert len(line) == width
    assert line.strip()
    assert " " not in line.strip()


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0, 0.004, 9.996, 99.96, 12345.6)] == ["0.00", "0.00", "10.0", "100", "12,346"]
    assert seconds(1.234) == "1.23 s"


@pytest.mark.parametrize("width", [60, 80, 112, 200])
@pytest.mark.parametrize("sizes", [{"one": 1}, {"two": 2, "one": 1}, MANY])
def test_the_table_fits(width: int, sizes: dict[str, int]) -> None:
    report = make_report(played(sizes))
    lines = drawn(table(report, 12, width), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 12 + 6
    if width >= 80:
        assert not any("…" in line[29:] for line in lines), "names may be cut, numbers not"
        assert any("median" in line for line in lines)
        assert any(f"{report.tasks:,}" in line for line in lines)
    assert ("━" in "".join(lines)) == (width > 80)


@pytest.mark.parametrize("width", [80, 120])
def test_the_bars_fit_and_count_those_without_a_row(width: int) -> None:
    progress = played(MANY)
    lines = drawn(bars(progress, rows=10), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 13
    assert any("… and 51 more" in line for line in lines)
    assert any("60/60" in line for line in lines)


def test_the_bars_before_there_is_anything_to_show() -> None:
    progress = Progress(processes=2)
    assert "looking for tenants" in drawn(bars(progress, rows=10), 80)[0]
    progress.begin([Source("a", ("x.py",))])
    assert "1 files of 1 tenants found" in drawn(bars(progress, rows=10), 80)[0]
    progress.queued_at = 0.0
    assert "waits" in drawn(bars(progress, rows=10), 80)[1]


@pytest.mark.anyio
async def test_a_terminal_gets_bars_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    async with anyio.create_task_group() as group:
        group.start_soon(Screen().follow, played(TREE))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    said = capsys.readouterr().out
    assert "12/12" in said
    assert said.rindex("\x1b[?25h") > said.index("\x1b[?25l"), "the cursor is shown again"


def test_the_picture_loads_nothing_from_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True, every_tenant=True)
    screen.finish(make_report(played(MANY)))
    screen.save(tmp_path / "picture.svg")
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert "font-face" not in picture
    assert "url(http" not in picture
    assert "href" not in picture
    assert "Jain" in picture
    assert picture.count("-of-a-rather") == len(MANY) + 1  # the verdict names the smallest
    assert not capsys.readouterr().out


# Whole runs


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, that is empty again at the end; its name is short enough for sockets in it."""
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
    assert small["fair"]["first"] > 0  # how much sooner that is than in a FIFO is the machine's to say
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
    """A folder whose files take far longer than any test waits."""
    first = tmp_path / "long" / "a" / "m0.py"
    first.parent.mkdir(parents=True)
    first.write_text("x = [(1, 2, 3, 'four') for i in range(5)]\n" * 20_000)
    for number in range(1, 500):
        (first.parent / f"m{number}.py").symlink_to(first)
    return tmp_path / "long"


def interrupted(run: subprocess.Popen[str], number: signal.Signals) -> str:
    """Waits until the workers have begun, sends the signal to all processes of the "terminal"; what is then said."""
    assert run.stdout is not None
    assert run.stderr is not None
    assert "500 files of 1 tenants are queued" in run.stdout.readline()
    children = psutil.Process(run.pid).children(recursive=True)
    assert children
    os.killpg(run.pid, number)
    assert run.wait(timeout=10) == 128 + number
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
