"""Tests that no import in fairactor goes up, across or in a cycle, and that others import public names only."""

from pathlib import Path

import pytest

from tests.support.layers import Tree

ROOT = Path(__file__).parents[1]

CLEAN = {
    "fairactor/__init__.py": "from .runtime import Runtime\n__all__ = ['Runtime']\n",
    "fairactor/runtime.py": "from ._store.shard import Shard\nclass Runtime: ...\n",
    "fairactor/_store/__init__.py": "",
    "fairactor/_store/shard.py": "from fairactor.errors import Failed\nfrom .calls import call\nclass Shard: ...\n",
    "fairactor/_store/calls.py": "from fairactor._model import keys\ndef call(): ...\n",
    "fairactor/_worker/__init__.py": "",
    "fairactor/_worker/pool.py": "import fairactor._store.shard\n",
    "fairactor/_client/__init__.py": "",
    "fairactor/_model/__init__.py": "",
    "fairactor/_model/keys.py": "",
    "fairactor/errors.py": "from typing import Any\nclass Failed(Exception): ...\n",
    "plugins/fairactor_a/__init__.py": "from ._one import one\n__all__ = ['one']\n",
    "plugins/fairactor_a/_one.py": "from fairactor import Runtime\nfrom fairactor.errors import Failed\none = 1\n",
    "plugins/fairactor_b/__init__.py": "from fairactor_a import one\n",
    "examples/hello.py": "import fairactor\nfrom fairactor.errors import Failed\n",
    "docs/page.md": "# Page\n\n```python\nfrom fairactor import Runtime\n```\n",
}


def violations(root: Path, **changed: str) -> list[str]:
    for name, text in (CLEAN | changed).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root).violations()


def test_the_repository_keeps_the_rule() -> None:
    assert Tree(ROOT).violations() == []


def test_a_clean_tree_keeps_the_rule(tmp_path: Path) -> None:
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        (
            "fairactor/_store/calls.py",
            "\nfrom fairactor._worker.pool import Pool\n",
            "fairactor/_store/calls.py:2 imports fairactor._worker.pool.Pool: _store may not import _worker",
        ),
        (
            "fairactor/_client/sender.py",
            "from fairactor._worker import pool\n",
            "fairactor/_client/sender.py:1 imports fairactor._worker.pool: _client may not import _worker",
        ),
        (
            "fairactor/errors.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._model import keys\nclass Failed: ...\n",
            "fairactor/errors.py:3 imports fairactor._model.keys: errors may not import _model",
        ),
        (
            "fairactor/_model/keys.py",
            "def late():\n    from fairactor import Runtime\n",
            "fairactor/_model/keys.py:2 imports fairactor.Runtime: _model may not import fairactor",
        ),
        ("fairactor/web.py", "", "fairactor/web.py is in no layer: give web a place in LAYERS"),
        (
            "fairactor/_store/calls.py",
            "def call():\n    from .shard import Shard\n",
            (
                "a circle: fairactor/_store/calls.py:2 imports fairactor._store.shard.Shard; "
                "fairactor/_store/shard.py:2 imports fairactor._store.calls.call"
            ),
        ),
        (
            "plugins/fairactor_a/_one.py",
            "from . import one\n",
            (
                "a circle: plugins/fairactor_a/__init__.py:1 imports fairactor_a._one.one; "
                "plugins/fairactor_a/_one.py:1 imports fairactor_a.one"
            ),
        ),
        (
            "plugins/fairactor_b/_two.py",
            "from fairactor._store.shard import Shard\n",
            "plugins/fairactor_b/_two.py:1 imports fairactor._store.shard.Shard, which is internal",
        ),
        (
            "plugins/fairactor_b/_two.py",
            "from fairactor_a._one import one\n",
            "plugins/fairactor_b/_two.py:1 imports fairactor_a._one.one, which is internal",
        ),
        (
            "plugins/fairactor_b/_two.py",
            "from fairactor.errors import Any\n",
            "plugins/fairactor_b/_two.py:1 imports fairactor.errors.Any, which is no public name of fairactor.errors",
        ),
        (
            "plugins/fairactor_b/_two.py",
            "from fairactor.errors import _hidden\n",
            "plugins/fairactor_b/_two.py:1 imports fairactor.errors._hidden, which is internal",
        ),
        (
            "examples/hello.py",
            "import fairactor._store.shard\n",
            "examples/hello.py:1 imports fairactor._store.shard, which is internal",
        ),
        (
            "docs/page.md",
            "# Page\n\n```python\n\nfrom fairactor._store import shard\n```\n",
            "docs/page.md:5 imports fairactor._store.shard, which is internal",
        ),
    ],
)
def test_what_breaks_the_rule_is_named(file: str, text: str, found: str, tmp_path: Path) -> None:
    assert found in violations(tmp_path, **{file: text})
