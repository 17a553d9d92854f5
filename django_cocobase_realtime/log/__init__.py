"""The change log: events in the project's own database, numbered after commit.

Every event is a row that is written in the transaction of the change (``append``). After the
commit a server process numbers it (``sequencer``), and every process reads it by its number
(``reader``). Old events are deleted (``retention``). A client keeps its position as a cursor
(``cursor``), from which it can resume as long as no event after it was deleted (``recovery``).
"""
