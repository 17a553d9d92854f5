"""Per event loop: wires delivery, rooms, transport and pubsub together."""
