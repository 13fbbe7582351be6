"""Configuration files: reading, checking and applying them. `fairactor.config` is the public side."""
