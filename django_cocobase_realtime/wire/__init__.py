"""Frames of the WebSocket as values and as JSON, and the codes in them. No Django, no I/O."""
