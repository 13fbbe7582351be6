"""Tools that do not depend on the rest of fairactor: checks of values, waiting, supervision, tracing."""
