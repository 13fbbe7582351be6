"""The shards of a namespace: a typed method for each script, and the messages that the server publishes."""
