"""The hub, which connects delivery, rooms, transport and pubsub in one event loop."""
