"""How values become JSON and come back, by their annotations."""
