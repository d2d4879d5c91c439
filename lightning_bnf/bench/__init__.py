"""Speed and memory, measured: contestants take turns in one run, each in a process of its own."""
