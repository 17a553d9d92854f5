"""A realtime engine for Django: watched models, rooms, one WebSocket."""

__version__ = "0.1.0"
