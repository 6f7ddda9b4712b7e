"""JobWorker beside the other job queues on Redis. See docs/benchmarks.md, "Beside the field"."""
