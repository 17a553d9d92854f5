"""Permissions for tests of commands."""

from django_cocobase_realtime.permissions import Permission


class IsStaff(Permission):
    """Every row, for members of the staff."""

    def can_subscribe(self, identity, filters):
        return identity.user is not None and identity.user.is_staff
