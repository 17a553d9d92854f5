"""Delivery of changes to subscriptions.

A *topic* has the subscriptions of this process to one collection. Its *tailer* follows the log,
its *table* finds the subscriptions that match a change, and `event_frames` encodes the change for
them. `catchup` sends a new subscription a snapshot, or the changes that the client missed.
"""
