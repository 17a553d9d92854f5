"""Run the history of one seed again, shorten it, and print it.

python -m tests.clients.model javascript 7
python -m tests.clients.model python 0 1000     the seeds of a range that fail, by their error
"""

import collections
import re
import sys

from tests.clients.model.history import History, Step, create_steps
from tests.clients.model.javascript_client import JavaScriptClient
from tests.clients.model.program import BrokenPromise
from tests.clients.model.python_client import PythonClient


def broken_promise(client: object, seed: int, steps: list[Step]) -> str | None:
    """Return what the client does wrong in a history, if anything."""
    try:
        History(client, seed).run(steps)
    except BrokenPromise as broken:
        return str(broken)
    return None


def kind(message: str | None) -> str:
    """Return a message without what differs from history to history."""
    return re.sub(r"\d+", "n", (message or "").split(":")[0])[:60]


def shorten(client: object, seed: int, steps: list[Step]) -> list[Step]:
    """Return as few of the steps as possible, with which the client fails in the same way."""
    wanted = kind(broken_promise(client, seed, steps))
    size = len(steps) // 2
    while size:
        first = 0
        while first < len(steps):
            fewer = steps[:first] + steps[first + size :]
            if kind(broken_promise(client, seed, fewer)) == wanted:
                steps = fewer
            else:
                first += size
        size //= 2
    return steps


def main(language: str, first: int, end: int | None = None) -> None:
    client = JavaScriptClient() if language == "javascript" else PythonClient()
    if end is not None:
        failures = collections.defaultdict(list)
        for seed in range(first, end):
            if message := broken_promise(client, seed, create_steps(seed)):
                failures[kind(message)].append(seed)
        for message, seeds in sorted(failures.items(), key=lambda item: -len(item[1])):
            print(f"{len(seeds):5} {message}: {seeds[:8]}")
    else:
        steps = create_steps(first)
        if broken_promise(client, first, steps):
            steps = shorten(client, first, steps)
            history = History(client, first, trace=True)
            try:
                history.run(steps)
            except BrokenPromise as broken:
                print("\n".join(history.lines), f"\n{broken}")
    client.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
