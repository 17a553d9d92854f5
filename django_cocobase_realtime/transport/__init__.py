"""Transport of frames: connections, their writers with bounded queues, and fan-out to many."""
