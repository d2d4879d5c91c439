"""Statistics of judged benchmarks: one file a number, pure functions of games or scores."""
