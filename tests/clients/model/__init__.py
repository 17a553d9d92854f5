"""A model-based test of both clients: random histories against a model of the server.

- ``clock``: an event loop in virtual time.
- ``python_client``, ``javascript_client``, ``driver.mjs``: run a client in virtual time, and report
  what it sends and what it tells its program.
- ``data``: documents and rooms of the server's model, with their past.
- ``server``: the server's model, which answers as the protocol says.
- ``program``: what the program has done, and the promises that the client must keep to it.
- ``history``: random steps of the program, of the server and of the network.
- ``__main__``: runs one history again, by its seed, and shortens it.
"""
