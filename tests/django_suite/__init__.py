"""Runs Django's own ORM tests with every model watched, by ``python -m tests.django_suite``."""
