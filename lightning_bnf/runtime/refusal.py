"""The one exception that refuses an input."""


class Refusal(ValueError):
    """An input that is refused; the message says which argument, or file and line, its value, and what is accepted:
    `beta must be > 0, got -1`. The command line prints it without a traceback; any other ValueError is a bug.
    """
