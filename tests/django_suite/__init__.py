"""Runs Django's own ORM tests with every model watched; see ``README.md`` in this folder."""
