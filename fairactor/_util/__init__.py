"""Tools that know nothing of tasks: checks of values, waiting, supervision, tracing."""
