"""The admin's page that explains deliveries is for staff who may see connections and the rows."""

import pytest
from django.contrib.auth.models import Permission

from tests.app.models import Post

pytestmark = pytest.mark.django_db
URL = "/admin/cocobase_realtime/connection/explain/"
ASK = {"client": "user", "name": "ada", "collection": "posts"}


@pytest.fixture
def staff(django_user_model, client):
    """Return a function that logs a member of the staff in with permissions."""

    def log_in(*permissions, is_staff=True):
        user = django_user_model.objects.create_user("-".join(permissions), is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def post(django_user_model):
    django_user_model.objects.create_user("ada")
    return Post.objects.create(title="<b>bold</b>", status="draft")


def test_page_prints_the_reason(staff, post):
    client = staff("view_connections", "view_post")
    assert "Explain" in client.get(URL).content.decode()
    ask = {**ASK, "document": post.pk, "filters": '{"title": "x"}'}
    response = client.post(URL, ask)
    page = response.content.decode()
    assert response.context["explanation"].is_delivered is False
    assert "Not delivered: filter of the client: the row does not match" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    page = client.post(URL, {**ASK, "document": post.pk}).content.decode()
    assert "Delivered: the client gets &#x27;updated&#x27;" in page


def test_mistakes_in_form_are_shown(staff, post):
    client = staff("view_connections", "view_post")
    page = client.post(URL, {**ASK, "name": "", "filters": "[1]"}).content.decode()
    for message in ("Name a user or a key", "Name a document", "must be a JSON object"):
        assert message in page


@pytest.mark.parametrize("permissions", [("view_post",), ("view_connections",)])
def test_page_needs_both_permissions(staff, post, permissions):
    client = staff(*permissions)
    assert client.post(URL, {**ASK, "document": post.pk}).status_code == 403


def test_page_is_for_staff(staff, post):
    client = staff("view_connections", "view_post", is_staff=False)
    assert "/login/" in client.post(URL, {**ASK, "document": post.pk}).url
