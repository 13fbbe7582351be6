"""Actors, the messages that call them, and the handles and tasks that come of these."""
