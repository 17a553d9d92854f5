"""Permissions of rooms, for servers that tests start."""


class Watched:
    """Only those whose name begins with "watcher" see who is there."""

    def can_see_members(self, identity, room):
        return str(identity.name or identity.user_id).startswith("watcher")
