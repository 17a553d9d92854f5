"""A model-based test of both clients: random histories against a model of the server.

- ``clock``: an event loop in virtual time.
- ``python_client``, ``javascript_client``, ``driver.mjs``: run a client in virtual time, and report
  what it sends and what its program receives.
- ``data``: documents and rooms of the server's model, with their past.
- ``links``, ``network``: connections between them, which may be slow, or lose what is sent.
- ``server``: the server's model, which answers as the protocol says.
- ``rights``: what users may see changes, and subscriptions follow it.
- ``program``, ``promises``: the program's calls, and the promises that the client must keep.
- ``actions``, ``history``: random steps of the program, of the server and of the network.
- ``__main__``: runs one history again, by its seed, and shortens it.
"""
