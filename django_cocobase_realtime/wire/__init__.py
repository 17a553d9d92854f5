"""Frames of the WebSocket protocol, as values and as JSON, and their error and close codes.

These modules use neither Django nor I/O.
"""
