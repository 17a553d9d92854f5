"""Capture: notice writes to watched tables and record them as changes.

`signals`, `saves`, `deletes` and `relations` use Django's signals, `bulk` serves
``RealtimeManager``, and `triggers` has PostgreSQL write the log. `record` turns rows into changes.
"""
