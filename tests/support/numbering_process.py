"""A process that numbers and reads a stream: ``python -m tests.support.numbering_process``.

Writes a line for each event that it has read, with its number and id, and a line ``leader`` or
``follower`` when it becomes one. Ends when its standard input ends, after it has read everything.
"""

import asyncio
import random
import sys

import django
import psycopg

STREAM = "posts"
ERRORS = (psycopg.OperationalError, TimeoutError)


async def follow() -> None:
    from django_cocobase_realtime.log import postgres_reader
    from django_cocobase_realtime.log.cursor import Position
    from django_cocobase_realtime.log.log_reader import create_reader

    postgres_reader.CALL_INTERVAL = 0  # so that processes often number at the same time
    reader = create_reader("default")
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    position, was_leader = None, False
    while True:
        is_last = ended.done()
        try:
            await reader.find_behind({STREAM: position or Position("", 0)})
            batch = await reader.fetch_new(STREAM, position)
        except ERRORS as error:
            print("error", type(error).__name__, flush=True)
            continue
        position = position or Position(batch.epoch, batch.head)
        for change in batch.changes:
            assert change.seq == position.seq + 1, (change.seq, position)
            position = Position(batch.epoch, change.seq)
            print(change.seq, change.id)
        if position.seq == 0 and batch.head == 0:
            print("ready")
        is_leader = reader.is_leader(STREAM)
        if is_leader != was_leader:
            print("leader" if is_leader else "follower")
        was_leader = is_leader
        sys.stdout.flush()
        if is_last and not batch.more:
            break
        if not batch.more and random.random() < 0.3:
            await asyncio.sleep(random.random() * 0.01)
    reader.close()


if __name__ == "__main__":
    django.setup()
    asyncio.run(follow())
