"""Relations: querysets as values of filters, and the changes that change what they return.

A key query (``key_queries``) is a queryset that returns keys. Its tables, columns and conditions
are read off Django's own query (``dependencies``), which is done once for all queries that differ
in their parameters only (``key_shape``). After a change of a row, the queries that it touches are
found by their conditions, or by a statement that follows the relations (``probes``).
"""

from .errors import UnsupportedQuery
from .key_queries import KeyQuery, read_many
from .key_shape import KeyShape
from .probes import KeyQueryIndex, RowChange, find_touched
from .table_reads import TableReads, is_touched

__all__ = [
    "KeyQuery",
    "KeyQueryIndex",
    "KeyShape",
    "RowChange",
    "TableReads",
    "UnsupportedQuery",
    "find_touched",
    "is_touched",
    "read_many",
]
