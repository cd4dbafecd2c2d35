"""The figures of docs/performance.md: ``python -m benchmarks``, one script for each."""
