"""Benchmarks of fairactor. ``python -m benchmarks`` lists them; docs/performance.md describes them."""
