"""The half of a runtime that runs tasks: claims them, runs their handlers, and reports the outcomes."""
