"""The shards of a namespace: every script as a typed call, and what the server publishes."""
