"""Judged benchmarks: from answers to a judge's verdicts, and from verdicts to the numbers."""
