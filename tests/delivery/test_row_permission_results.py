"""Results of row permissions are shared only between subscriptions that must get the same."""

from types import SimpleNamespace

import pytest

from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery.query import authorize_query
from django_cocobase_realtime.delivery.row_permissions import evaluate
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest
from django_cocobase_realtime.events import Change
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.transport.connection import Connection
from django_cocobase_realtime.wire.commands import Subscribe
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)


class StaffOnly(Permission):
    def has_object_permission(self, identity, post):
        return identity.user is not None and identity.user.is_staff


class AskedStatus(Permission):
    """Store the client's filters, and decide by them."""

    def can_subscribe(self, identity, filters):
        self.status = filters.get("status")
        return True

    def has_object_permission(self, identity, post):
        return post.status == self.status


class CountsChecks(Permission):
    checks = 0

    def has_object_permission(self, identity, post):
        type(self).checks += 1
        return True


def declare(settings, permission):
    path = f"{__name__}.{permission.__name__}"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}}
    }
    return registry.get("posts")


def subscribe(collection, identity, **filters):
    connection = Connection("c", SimpleNamespace(), lambda code, retry_after_ms=None: None)
    connection.identity = identity
    command = Subscribe(collection=collection.name, filters=filters)
    grant = collection.grant(identity, filters)
    query = authorize_query(conf.limits, command, grant, identity)
    return Subscription(connection, SubscriptionRequest("posts", "posts"), query)


def change(collection):
    post = Post.objects.create(title="a", status="draft")
    image = collection.codec.image(Post.objects.filter(pk=post.pk).values().get())
    return Change("1", "posts", "created", str(post.pk), "t", "", after=image)


def allowed(collection, event, subscriptions):
    return [subscription for subscription, _ in evaluate(collection, event, subscriptions)]


def test_equal_identities_with_users_read_at_different_times_are_asked_separately(
    settings, django_user_model
):
    collection = declare(settings, StaffOnly)
    user = django_user_model.objects.create_user("ada", is_staff=True)
    before = Identity("session:1", user, user.pk)
    django_user_model.objects.update(is_staff=False)
    after = Identity("session:1", django_user_model.objects.get(pk=user.pk), user.pk)
    assert before == after
    old, new = subscribe(collection, before), subscribe(collection, after)
    event = change(collection)
    for order in ([old, new], [new, old]):
        assert allowed(collection, event, order) == [old]


def test_identity_at_the_address_of_a_former_one_is_asked_itself(settings, django_user_model):
    collection = declare(settings, StaffOnly)
    staff = django_user_model.objects.create_user("ada", is_staff=True)
    subscriptions = [subscribe(collection, Identity("session:1", staff, 1))]
    stranger = subscribe(collection, Identity("key:1"))
    addresses = []

    def give_up_identities():
        # as reauthorization does while the permissions are evaluated in a thread
        (first,) = subscriptions
        yield first
        addresses.append(id(first.connection.identity))
        first.connection.identity = None
        first.query = stranger.query
        others = [Identity(f"key:{number}") for number in range(100)]
        for other in others:
            stranger.connection.identity = other
            if id(other) in addresses:
                break
        yield stranger

    assert allowed(collection, change(collection), give_up_identities()) == subscriptions


def test_permissions_that_keep_the_filters_of_the_client_are_asked_separately(settings):
    collection = declare(settings, AskedStatus)
    identity = Identity("key:1")
    draft = subscribe(collection, identity, status="draft")
    other = subscribe(collection, identity, status__in=["draft", "published"])
    assert allowed(collection, change(collection), [draft, other]) == [draft]
    assert allowed(collection, change(collection), [other, draft]) == [draft]


def test_permissions_without_state_are_asked_once_per_identity(settings):
    collection = declare(settings, CountsChecks)
    one, two = Identity("key:1"), Identity("key:2")
    subscriptions = [
        *(subscribe(collection, one, title_contains="ab"[n % 2]) for n in range(6)),
        *(subscribe(collection, two, views=n) for n in range(3)),
    ]
    CountsChecks.checks = 0
    assert len(allowed(collection, change(collection), subscriptions)) == 4
    assert CountsChecks.checks == 2
