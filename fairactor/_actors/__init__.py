"""Actors, the messages that call them, and the tasks and handles that result from sending these."""
