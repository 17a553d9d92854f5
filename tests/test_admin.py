"""API keys in the admin."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission

from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.identity import AccessScope
from django_cocobase_realtime.models import ApiKey

pytestmark = pytest.mark.django_db
URL = "/admin/cocobase_realtime/apikey/"


def test_admin_creates_renames_and_revokes_api_key(admin_client):
    page = admin_client.post(URL + "add/", {"name": "app", "project": "default"}, follow=True)
    key = ApiKey.objects.get()
    text = page.content.decode()
    plain = text[text.index("crk_") :].split("<")[0].split()[0]
    assert authenticate(plain, {}).credential == f"key:{key.prefix}"
    change = admin_client.get(f"{URL}{key.pk}/change/").content.decode()
    assert key.hashed_secret not in text + change
    data = {"name": "renamed", "project": "default"}
    assert admin_client.post(f"{URL}{key.pk}/change/", data).status_code == 302
    assert authenticate(plain, {}) is not None
    data = {"action": "revoke", "_selected_action": [key.pk]}
    assert admin_client.post(URL, data, follow=True).status_code == 200
    assert authenticate(plain, {}) is None


def test_admin_sets_and_checks_the_scope_of_a_key(admin_client, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post", "messages": "app.Message"},
        "ROOMS": {"lobby-*": {}},
    }
    form = {"name": "app", "project": "default", "read_only": "on"}
    lines = {"collections": " posts \n\nmessages\n", "rooms": "lobby-*\nhall"}
    for mistake in (
        {"collections": "posts\nnothing"},
        {"can_publish": "on"},
        {"rooms": "lobby-*", "no_rooms": "on"},
    ):
        assert admin_client.post(URL + "add/", form | mistake).status_code == 200
    page = admin_client.post(URL + "add/", form | lines, follow=True).content.decode()
    assert "No declared room has a name that [&#x27;hall&#x27;] match." in page
    assert "collections: messages, posts; rooms: hall, lobby-*; read-only" in page
    key = ApiKey.objects.get()
    assert key.scope == AccessScope(frozenset({"posts", "messages"}), ("lobby-*", "hall"), True)
    change = f"{URL}{key.pk}/change/"
    assert "lobby-*\nhall</textarea>" in admin_client.get(change).content.decode()
    # the collection may be removed from the project before the key is renamed
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}}
    for data, scope in (
        (lines, key.scope),
        ({"no_collections": "on", "no_rooms": "on"}, AccessScope(frozenset(), (), True)),
        ({}, AccessScope(read_only=True)),
    ):
        assert admin_client.post(change, form | data).status_code == 302
        assert ApiKey.objects.get().scope == scope
    ApiKey.objects.update(rooms=[])
    # so that saving the form does not open all rooms to the key
    boxes = admin_client.get(change).context["adminform"].form
    assert (boxes["no_rooms"].initial, boxes["no_collections"].initial) == (True, False)


DAMAGED = [[""], [" "], "", {}, "*", [1], ["lobby "], ["", "lobby"], ["a\nb"]]


@pytest.mark.parametrize("stored", [*DAMAGED, [], None, ["lobby"]], ids=repr)
@pytest.mark.parametrize("name", ["rooms", "collections"])
def test_form_does_not_change_a_scope_that_it_was_not_asked_to_change(admin_client, name, stored):
    key, _ = ApiKey.objects.create_key("app")
    ApiKey.objects.update(**{name: stored})
    before = ApiKey.objects.get().scope
    change = f"{URL}{key.pk}/change/"
    form = admin_client.get(change).context["adminform"].form
    # what a browser sends
    values = {field: form[field].value() for field in form.fields}
    values = {field: value for field, value in values.items() if value not in (None, False)}
    for field in ("rooms", "collections"):
        values[field] = "\r\n".join(form.initial[field])
    assert admin_client.post(change, values | {"name": "renamed"}).status_code == 302
    key.refresh_from_db()
    assert (key.name, key.scope, getattr(key, name)) == ("renamed", before, stored)
    # it removes the restriction if it is asked to
    values.pop(f"no_{name}", None)
    assert admin_client.post(change, values | {name: ""}).status_code == 302
    assert ApiKey.objects.get().scope == AccessScope()


@pytest.fixture
def staff(client, django_user_model):
    """Log in as a member of the staff with the named permissions."""

    def login(*actions):
        user = django_user_model.objects.create_user("staff", password="x", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(codename__in=[f"{action}_apikey" for action in actions])
        )
        client.force_login(user)
        return client

    return login


def test_staff_with_view_permission_alone_can_change_nothing(staff):
    key, plain = ApiKey.objects.create_key("app")
    client = staff("view")
    page = client.get(URL)
    assert page.status_code == 200
    assert "Revoke selected" not in page.content.decode()
    for action in ("revoke", "delete_selected"):
        data = {"action": action, "_selected_action": [key.pk], "post": "yes"}
        client.post(URL, data, follow=True)
        assert authenticate(plain, {}) is not None, action
    data = {"name": "other", "project": "other", "can_publish": "on"}
    assert client.post(f"{URL}{key.pk}/change/", data).status_code == 403
    assert client.post(f"{URL}{key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert client.post(f"{URL}add/", data).status_code == 403
    response = client.get(f"{URL}{key.pk}/change/")
    assert response.status_code == 200
    assert key.hashed_secret not in response.content.decode()
    assert ApiKey.objects.get().name == "app"


@pytest.mark.parametrize(
    ("action", "may"), [("add", "create"), ("change", "revoke"), ("delete", "delete")]
)
def test_each_permission_allows_its_own_action_only(staff, action, may):
    key, plain = ApiKey.objects.create_key("app")
    client = staff("view", action)
    client.post(f"{URL}add/", {"name": "new", "project": "default"})
    assert ApiKey.objects.filter(name="new").exists() is (may == "create")
    client.post(URL, {"action": "revoke", "_selected_action": [key.pk]}, follow=True)
    assert (authenticate(plain, {}) is None) is (may == "revoke")
    client.post(f"{URL}{key.pk}/delete/", {"post": "yes"})
    assert ApiKey.objects.filter(pk=key.pk).exists() is (may != "delete")


def test_action_checks_the_permission_for_each_key(staff, monkeypatch):
    """A project may restrict the admin to some keys."""
    keys = [ApiKey.objects.create_key(name) for name in ("mine", "other")]
    model_admin = admin.site.get_model_admin(ApiKey)
    monkeypatch.setattr(
        model_admin,
        "has_change_permission",
        lambda request, key=None: key is None or key.name == "mine",
    )
    client = staff("view", "change")
    data = {"action": "revoke", "_selected_action": [key.pk for key, _ in keys]}
    assert client.post(URL, data).status_code == 403
    assert all(authenticate(plain, {}) for _, plain in keys)
    data["_selected_action"] = [keys[0][0].pk]
    client.post(URL, data)
    assert [authenticate(plain, {}) is None for _, plain in keys] == [True, False]


def test_list_of_keys_takes_the_same_number_of_queries_for_more_keys(
    admin_client, django_assert_max_num_queries, django_user_model
):
    for n in range(20):
        user = django_user_model.objects.create_user(f"u{n}")
        ApiKey.objects.create_key(f"k{n}", user=user)
    with django_assert_max_num_queries(8):
        assert admin_client.get(URL).status_code == 200
