"""Combined permissions whose filters contain None, or whose checks return None."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime import Collection
from django_cocobase_realtime.filters import Row
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import And, Not, Or, Permission, owned_by
from tests.app.models import Post

APP = Identity("key:a")
ROWS = [{"owner": owner, "status": status} for owner in (None, "3") for status in ("draft", "x")]


class Draft(Permission):
    def visible_to(self, identity):
        return {"status": "draft"}


class Everyone(Permission):
    pass


class Refuses(Permission):
    def can_subscribe(self, identity, filters):
        return False


class ForgotToReturn(Permission):
    def visible_to(self, identity):  # noqa: RET503
        if identity.user is not None:
            return {"owner": identity.user_id}


class Nothing(Permission):
    def visible_to(self, identity):
        return False


class CheckAllows(Permission):
    def has_object_permission(self, identity, instance):
        return True


class CheckDenies(Permission):
    def has_object_permission(self, identity, instance):
        return False


class CheckForgotToReturn(Permission):
    def has_object_permission(self, identity, instance):
        return None


class CheckOfDraft(Draft):
    def has_object_permission(self, identity, instance):
        return instance.status == "draft"


class OwnAndChecked(Permission):
    def visible_to(self, identity):
        return {"owner": identity.user_id}

    def has_object_permission(self, identity, instance):
        return instance.status != "draft"


Own = owned_by("owner")


def shown(permission):
    """Return the rows that an identity without a user sees; None if it is refused."""

    class Posts(Collection):
        model = Post
        name = "posts"

    collection = Posts()
    collection.permission = permission
    grant = collection.grant(APP, {})
    if grant is None:
        return None
    return [
        row
        for row in ROWS
        if grant.decision.sees(Row(row, grant.schema), Post(status=row["status"]))
    ]


@pytest.mark.parametrize(
    "permission",
    [
        Own,
        ~Own,
        ~~Own,
        ForgotToReturn,
        ~ForgotToReturn,
        CheckForgotToReturn,
        ~CheckForgotToReturn,
        Own & CheckAllows,
        ~(Own & CheckAllows),
        ~(Own | CheckDenies),
        ~(Own | Nothing),
        ~(Own & Everyone),
        ~(~Own & CheckAllows),
        ~Own & Everyone,
        CheckAllows & ~Own,
        ~(ForgotToReturn & CheckAllows),
        Own | ~Own,
    ],
)
def test_permission_with_none_shows_nothing_negated_or_not(permission):
    assert shown(permission) in ([], None)


def test_other_permissions_still_count():
    drafts = [row for row in ROWS if row["status"] == "draft"]
    others = [row for row in ROWS if row["status"] != "draft"]
    assert shown(Own | Draft) == drafts
    assert shown(~Own | Draft) == drafts
    assert shown(~(Own & Draft)) == others
    assert shown(~(Own & CheckDenies)) == ROWS
    assert shown(~OwnAndChecked) == drafts  # the check alone refuses them
    assert shown(~(Own | Draft)) == []
    assert shown(~Nothing) == ROWS
    assert shown(~Refuses) == ROWS
    assert shown(~CheckOfDraft) == others


# which row each permission shows: None if that is unknown; "refused" if it refuses
VALUES = {
    Own: lambda row: None,
    Draft: lambda row: row["status"] == "draft",
    Everyone: lambda row: True,
    Nothing: lambda row: False,
    ForgotToReturn: lambda row: None,
    CheckAllows: lambda row: True,
    CheckDenies: lambda row: False,
    CheckForgotToReturn: lambda row: None,
    CheckOfDraft: lambda row: row["status"] == "draft",
    OwnAndChecked: lambda row: False if row["status"] == "draft" else None,
}
permissions = st.recursive(
    st.sampled_from(list(VALUES)),
    lambda parts: st.one_of(
        st.builds(And, parts, parts), st.builds(Or, parts, parts), st.builds(Not, parts)
    ),
    max_leaves=5,
)


def negated(value):
    return None if value is None else not value


def conjunction(values):
    return False if False in values else None if None in values else True


def evaluate(permission, row):
    match permission:
        case And(parts=parts):
            return conjunction([evaluate(part, row) for part in parts])
        case Or(parts=parts):
            return negated(conjunction([negated(evaluate(part, row)) for part in parts]))
        case Not(part=part):
            return negated(evaluate(part, row))
    return VALUES[permission](row)


@given(permissions)
def test_combinations_agree_with_logic_of_three_values(permission):
    rows = shown(permission)
    expected = [row for row in ROWS if evaluate(permission, row) is True]
    # a permission is refused if the one that it negates shows everything
    assert (rows or []) == expected or (rows is None and _negates_everything(permission))


def _negates_everything(permission):
    """Return whether some part is the negation of a permission that shows all rows."""
    match permission:
        case And(parts=parts) | Or(parts=parts):
            return any(map(_negates_everything, parts))
        case Not(part=part):
            everything = all(evaluate(part, row) is True for row in ROWS)
            return everything or _negates_everything(part)
    return False
