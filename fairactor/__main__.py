"""Runs the command line: ``python -m fairactor``.

Worker processes of ``@actor(process=True)`` load this file again, under another name. The import stands below the
test so that they do not import the command line.
"""

if __name__ == "__main__":
    import sys

    from .cli import main

    sys.exit(main())
