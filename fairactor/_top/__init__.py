"""The command ``fairactor top``: what a namespace does, live, and the keys to act on it."""
