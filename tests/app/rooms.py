"""Room permissions for the servers that tests start."""


class MembersForWatchers:
    """Show the members to identities whose name starts with "watcher"."""

    def can_see_members(self, identity, room):
        return str(identity.name or identity.user_id).startswith("watcher")
