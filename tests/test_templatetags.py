"""The template tag ``{% realtime %}``: hashed files, script prefixes, nonces, tokens."""

import re
from types import SimpleNamespace

import pytest
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.management import call_command
from django.template import Context, Template
from django.urls import set_script_prefix


def render(tag="{% realtime %}", **context):
    return Template("{% load realtime %}" + tag).render(Context(context))


def attributes(html):
    element = re.fullmatch(r'<script type="module"((?: [\w-]+="[^"]*")*)></script>', html)
    assert element, html
    return dict(re.findall(r' ([\w-]+)="([^"]*)"', element[1]))


def test_tag_renders_script_element():
    assert attributes(render()) == {
        "src": "/static/django_cocobase_realtime/realtime.js",
        "data-realtime-url": "/realtime/",
    }


@pytest.fixture
def hashed_static_files(settings, tmp_path):
    backend = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    settings.STATIC_ROOT = str(tmp_path)
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    staticfiles_storage._setup()
    call_command("collectstatic", "--noinput", "-v0")
    yield
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    staticfiles_storage._setup()


def test_source_is_the_hashed_file(hashed_static_files):
    source = attributes(render())["src"]
    assert re.fullmatch(r"/static/django_cocobase_realtime/realtime\.[0-9a-f]{12}\.js", source)


@pytest.fixture
def script_name():
    set_script_prefix("/app/")
    yield
    set_script_prefix("/")


def test_url_is_prefixed_with_script_name(script_name):
    # as set for each request by FORCE_SCRIPT_NAME or by a server with a prefix
    assert attributes(render())["data-realtime-url"] == "/app/realtime/"
    assert attributes(render('{% realtime "ws/live" %}'))["data-realtime-url"] == "/app/ws/live/"
    assert attributes(render('{% realtime "/ws" %}'))["data-realtime-url"] == "/ws"
    url = "wss://live.example.com/realtime"
    assert attributes(render(f'{{% realtime "{url}" %}}'))["data-realtime-url"] == url


class LazyNonce:
    """A nonce like Django 6's, which is false until it has been used."""

    def __bool__(self):
        return False

    def __str__(self):
        return "made"


def test_nonce_is_taken_from_context_request_or_argument():
    assert attributes(render(csp_nonce=LazyNonce()))["nonce"] == "made"
    request = SimpleNamespace(csp_nonce="django-csp")
    assert attributes(render(request=request))["nonce"] == "django-csp"
    assert attributes(render('{% realtime nonce="own" %}', csp_nonce="x"))["nonce"] == "own"


def test_token_is_escaped():
    html = render("{% realtime token=token %}", token='"><script>alert(1)</script>')
    assert html.count("<script") == 1
    assert "alert(1)&lt;" in attributes(html)["data-realtime-token"]
