"""The change log: a table in the project's database, whose events are numbered after the commit.

An event is a row that is inserted in the transaction of the change (``append``). After the commit,
a server process assigns its number (``sequencer``), and all processes read it by this number
(``reader``). Old events are deleted (``retention``). A client keeps its position as a cursor
(``cursor``), and can resume from it as long as the events after it were not deleted
(``recovery``).
"""
