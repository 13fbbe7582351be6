"""Runs a process of ``fairactor worker``: ``python -m fairactor._worker_command FD TARGET…``."""

if __name__ == "__main__":
    import signal
    import sys

    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the supervisor as well, which decides
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which programs that handlers start would inherit

    from .process import main

    sys.exit(main(int(sys.argv[1])))
