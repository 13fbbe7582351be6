"""The half of a runtime that callers use: sends messages, follows tasks, and configures tenants."""
