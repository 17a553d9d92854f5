"""WebSocket consumers: they carry out what the protocol decides."""
