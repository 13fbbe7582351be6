"""The half of a runtime that callers use: it sends tasks, follows them, and configures tenants."""
