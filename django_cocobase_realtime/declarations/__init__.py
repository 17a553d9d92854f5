"""Declarations of a project: its collections and rooms, and who may see and do what in them."""
