"""Modules that type checkers read, and that nothing imports."""
