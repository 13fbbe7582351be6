"""Programs that measure fairactor: ``python -m benchmarks`` lists them. See docs/performance.md."""
