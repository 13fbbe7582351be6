"""``python -m fairactor``: the command line.

Worker processes of ``@actor(process=True)`` load this file again, under another name and without its package; that
is why the import is absolute, and below the test.
"""

if __name__ == "__main__":
    import sys

    from .cli import main

    sys.exit(main())
