"""Whether the Hugging Face Hub answers, asked once and with a limit: its libraries ask again and again for half a
minute, for each file, before they say that it does not."""

import functools
import sys
import threading

from huggingface_hub import constants, get_session

SECONDS = 5.0  # for a connection and for an answer
SECONDS_IN_ALL = 8.0  # looking up the name has no limit of its own


def why_not_asked(name: str, cached: bool) -> str | None:
    """Why the hub id `name` cannot be had, as words after "as"; None where the hub answers or `name` is cached.

    Without an answer, what is cached is taken from the cache from then on, in the whole process, and that is said.
    """
    if constants.is_offline_mode():
        return None if cached else "HF_HUB_OFFLINE is set"
    reason = unreachable(constants.ENDPOINT)
    if reason is None:
        return None
    why = f"{constants.ENDPOINT} cannot be reached ({reason})"
    if not cached:
        return why
    print(f"{why}: {name}, and whatever else is asked for, is taken from the cache", file=sys.stderr, flush=True)
    go_offline()
    return None


def go_offline() -> None:
    """What HF_HUB_OFFLINE does, for a process that has read it already."""
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True


@functools.cache
def unreachable(endpoint: str) -> str | None:
    """Why an address does not answer, in a few words; None where it does, whatever it answers."""
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=SECONDS)
            reasons.append(None)
        except Exception as error:  # the session's library has changed before, and its exceptions with it
            reasons.append((str(error) or type(error).__name__).strip().split("\n")[0])

    asking = threading.Thread(target=ask, daemon=True)  # a lookup that hangs keeps nobody from ending
    asking.start()
    asking.join(SECONDS_IN_ALL)
    return reasons[0] if reasons else f"no answer within {SECONDS_IN_ALL:g} seconds"
