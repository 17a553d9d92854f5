"""Probes of a running installation: the command ``realtime_doctor``."""
