"""The half of a runtime that runs tasks: it claims them, runs their handlers, and reports the outcomes."""
