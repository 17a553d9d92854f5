"""API keys in the admin."""

import pytest

from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.models import ApiKey

pytestmark = pytest.mark.django_db


def test_admin_creates_renames_and_revokes_api_key(admin_client):
    url = "/admin/cocobase_realtime/apikey/"
    page = admin_client.post(url + "add/", {"name": "app", "project": "default"}, follow=True)
    key = ApiKey.objects.get()
    text = page.content.decode()
    plain = text[text.index("crk_") :].split("<")[0].split()[0]
    assert authenticate(plain, {}).credential == f"key:{key.prefix}"
    change = admin_client.get(f"{url}{key.pk}/change/").content.decode()
    assert key.hashed_secret not in text + change
    data = {"name": "renamed", "project": "default"}
    assert admin_client.post(f"{url}{key.pk}/change/", data).status_code == 302
    assert authenticate(plain, {}) is not None
    data = {"action": "revoke", "_selected_action": [key.pk]}
    assert admin_client.post(url, data, follow=True).status_code == 200
    assert authenticate(plain, {}) is None
