"""Calls of the project's handlers, which `on_change` registers, with the changes in the log.

A process of the command ``realtime_handlers`` (``worker``) has a thread for each handler. Of
several processes, the one that has the lease of a handler calls it (``leases``). It reads the log
from the handler's position, calls the function, and then stores the position of the change
(``runner``). If the process is killed in between, the function is called with this change again.
"""
