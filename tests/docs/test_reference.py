"""The reference documents all settings, frames, codes, checks and commands of the code."""

import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from django.core.management import get_commands, load_command_class

from django_cocobase_realtime.declarations.collection import OPTIONS as COLLECTION_OPTIONS
from django_cocobase_realtime.declarations.collection import Collection
from django_cocobase_realtime.declarations.room import OPTIONS as ROOM_OPTIONS
from django_cocobase_realtime.declarations.room import Room
from django_cocobase_realtime.filters.operators import OPERATORS
from django_cocobase_realtime.log.resume import REASONS
from django_cocobase_realtime.options import JWT_KEYS, LIMIT_KEYS, LOG_KEYS, OPTIONS, PRESENCE_KEYS
from django_cocobase_realtime.protocol.auth_commands import CLIENT_LIMITS
from django_cocobase_realtime.wire import frames, result_frames
from django_cocobase_realtime.wire.codes import CloseCode, ErrorCode, ResyncReason
from django_cocobase_realtime.wire.commands import COMMAND_TYPES, Aggregate, Window

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]


def section(page, title):
    """Return the text under a heading of level 2 or 3; with None, the text before the first."""
    text = (DOCS / "reference" / page).read_text()
    if title is None:
        return text.split("\n## ")[0]
    heading = re.search(rf"^(##+) {re.escape(title)}\n", text, re.M)
    same_or_higher = rf"^#{{2,{len(heading[1])}}} "
    return re.split(same_or_higher, text[heading.end() :], maxsplit=1, flags=re.M)[0]


def rows(page, title, header=None):
    """Return the cells of each row of a section's table, without backquotes.

    ``header`` is what its header begins with, for sections with several tables.
    """
    tables = re.findall(r"(?:^\|.*\n)+", section(page, title), re.M)
    if header is not None:
        tables = [table for table in tables if table.startswith(header)]
    (table,) = tables
    lines = table.splitlines()[2:]
    return [[cell.strip("`") for cell in line.strip("| ").split(" | ")] for line in lines]


def table(page, title, header=None):
    """Return the first two cells of each row of a section's table."""
    return {row[0]: row[1] for row in rows(page, title, header)}


def test_settings_are_documented_with_defaults():
    documented = table("settings.md", None)
    assert set(documented) == set(OPTIONS)
    for name, option in OPTIONS.items():
        if name != "AUTHENTICATORS":
            assert documented[name].replace('"', "'") == repr(option.default)


def test_collection_options_are_documented_with_defaults():
    documented = table("settings.md", "Options of collections")
    assert set(documented) == set(COLLECTION_OPTIONS)
    for name in (
        "durable",
        "track",
        "project_field",
        "created_field",
        "updated_field",
        "serializer",
        "soft_delete",
        "not_secret",
        "permission_fields",
        "exclude",
        "aliases",
        "orders",
        "order_fields",
        "aggregates",
    ):
        assert documented[name] == repr(getattr(Collection, name))


def test_room_options_are_documented_with_defaults():
    documented = table("settings.md", "Options of rooms")
    assert documented == {name: repr(getattr(Room, name)) for name in ROOM_OPTIONS}


def test_presence_options_are_documented_with_defaults():
    documented = table("settings.md", "Presence")
    assert documented == {key: repr(field.default) for key, field in PRESENCE_KEYS.items()}


def test_jwt_options_are_documented_with_defaults():
    documented = table("settings.md", "JWT")
    assert set(documented) == set(JWT_KEYS)
    for key, field in JWT_KEYS.items():
        assert documented[key].replace('"', "'") == repr(field.default)


def test_log_options_are_documented_with_defaults():
    documented = table("settings.md", "Log")
    assert documented == {key: repr(field.default) for key, field in LOG_KEYS.items()}


def test_limits_are_documented_with_defaults():
    documented = table("settings.md", "Limits")
    assert documented == {key: repr(field.default) for key, field in LIMIT_KEYS.items()}


def test_error_and_close_codes_are_documented():
    assert set(table("protocol.md", "Error codes")) == {code.value for code in ErrorCode}
    codes = table("protocol.md", "Close codes", "| code |")
    assert set(codes) == {str(int(code)) for code in CloseCode}


def test_resync_reasons_are_documented():
    assert set(table("protocol.md", "Reasons for a resync")) == {*REASONS, *ResyncReason}


def test_requests_are_documented():
    requests = table("protocol.md", "Requests", "| request |")
    assert [re.match(r"\[`(\w+)`\]", cell)[1] for cell in requests] == list(COMMAND_TYPES)


@pytest.mark.parametrize("type", COMMAND_TYPES)
def test_keys_of_requests_are_documented(type):
    fields = msgspec.structs.fields(COMMAND_TYPES[type])
    required = {field.name: field.required for field in fields if field.name != "id"}
    documented = rows("protocol.md", type, "| key | type | default |") if required else []
    assert {row[0]: row[2] == "required" for row in documented} == required


@pytest.mark.parametrize(
    ("title", "key", "type"),
    [("Windows", "window", Window), ("Aggregates", "aggregate", Aggregate)],
)
def test_keys_of_live_queries_are_documented(title, key, type):
    documented = table("protocol.md", title, f"| key of `{key}` |")
    assert list(documented) == [field.name for field in msgspec.structs.fields(type)]


def make_frames():
    """Return the section that describes each frame, and the frame with all its keys."""
    document, at = {"id": "1", "data": {}}, "2026-01-31T12:00:00+00:00"
    change = {"collection": "posts", "event": "updated", "document": document, "transaction": "t"}
    change |= {"subscriptions": ["posts"], "changed": []}
    end = result_frames.ResultEnd("1", scope="s")
    user = {"connection": "c", "user": None, "project": "default", "expires_at": None}
    broadcast = frames.broadcast(
        room="r", message={}, sender=None, at=at, cursor="1", replayed=True
    )
    return {
        "auth": frames.authenticated(None, **user, heartbeat=25, limits={}, now=at),
        "Changes of documents": {
            **frames.change(**change, at=at, cursor="1", replayed=True),
            "truncated": True,
        },
        "Broadcasts and messages": broadcast | frames.direct(message={}, at=at),
        "Presence": frames.presence(room="r", event="joined", member={}, participants=1),
        "Snapshot": {**frames.snapshot("posts", [], "1", more=False), "truncated": True},
        "Cursor": frames.cursor("posts", "1"),
        "Window": {
            **result_frames.window("posts", remove=[], insert=[], reset=True),
            **result_frames.window("posts", remove=[], insert=[], next="p", end=end),
        },
        "Aggregate": {
            **result_frames.aggregate("posts", [], reset=True),
            **result_frames.aggregate("posts", [], end=end),
        },
        "Moved": frames.move_part("posts", entered=[], left=[], cursor="1", scope="s"),
        "Resync": frames.resync("posts", ResyncReason.SCOPE_CHANGED, scope="s", cursor="1"),
        "Errors": frames.error(ErrorCode.BAD_REQUEST, "", 1, 1, subscription="s", room="r"),
        "Close codes": frames.closing(CloseCode.INTERNAL_ERROR),
    }


@pytest.mark.parametrize("title", make_frames())
def test_keys_of_frames_are_documented(title):
    documented = table("protocol.md", title, "| key | type | meaning |")
    assert {"type", *documented} == set(make_frames()[title])


def test_limits_of_a_connection_are_documented():
    assert set(table("protocol.md", "Limits of a connection")) == set(CLIENT_LIMITS)


def test_filter_operators_are_documented():
    assert set(table("filters.md", "Operators")) == set(OPERATORS)


def test_system_checks_are_documented_and_tested():
    package = ROOT / "django_cocobase_realtime" / "checks"
    source = "".join(path.read_text() for path in package.glob("*.py"))
    known = {f"E{int(n):03}" for n in re.findall(r"\berror\(\s*(\d+),", source)}
    known |= {f"W{int(n):03}" for n in re.findall(r"\bwarning\(\s*(\d+),", source)}
    known |= {f"I{int(n):03}" for n in re.findall(r"\binfo\(\s*(\d+),", source)}
    documented = list(table("checks.md", None))
    assert set(documented) == known
    assert documented == sorted(known, key=lambda name: int(name[1:]))
    tests = (
        ROOT / "tests" / "checks" / "test_settings.py",
        ROOT / "tests" / "capture" / "test_triggers.py",
        ROOT / "tests" / "checks" / "test_databases.py",
        ROOT / "tests" / "checks" / "test_dependencies.py",
        ROOT / "tests" / "checks" / "test_related_fields.py",
        ROOT / "tests" / "checks" / "test_deployment.py",
        ROOT / "tests" / "checks" / "test_permissions.py",
        ROOT / "tests" / "checks" / "test_visitors.py",
        ROOT / "tests" / "checks" / "test_rooms.py",
        ROOT / "tests" / "checks" / "test_live_options.py",
        ROOT / "tests" / "checks" / "test_indexes.py",
        ROOT / "tests" / "checks" / "test_handlers.py",
    )
    tested = "".join(path.read_text() for path in tests)
    assert {id for id in known if id not in tested} == set()


def test_commands_are_documented_with_options():
    own = {name for name, app in get_commands().items() if app == "django_cocobase_realtime"}
    text = (DOCS / "reference" / "commands.md").read_text()
    assert set(re.findall(r"^## (\w+)", text, re.M)) == own
    for name in own:
        part = section("commands.md", name)
        parser = load_command_class("django_cocobase_realtime", name).create_parser("", name)
        subparsers = [a for a in parser._actions if hasattr(a, "choices") and a.dest == "action"]
        for action, sub in subparsers[0].choices.items() if subparsers else []:
            assert f"{name} {action}" in part
            for option in sub._actions:
                for flag in option.option_strings:
                    assert flag in ("-h", "--help") or f"`{flag}`" in part, flag


def test_places_named_in_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    cells = re.findall(r"^\| .+ \| (.+) \|$", text, re.M)
    places = re.findall(r"`([\w/]+(?:/|\.py))`|`(tests/[\w/]+)`", "\n".join(cells))
    package = ROOT / "django_cocobase_realtime"
    assert len(places) > 20
    for inside, outside in places:
        assert (package / inside if inside else ROOT / outside).exists(), inside or outside


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_no_file_contains_a_path_of_a_developers_machine():
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    own = re.compile(r"/(?:home|root|work)/|\.\./shared")
    kinds = {".py", ".md", ".toml", ".js", ".html", ".css", ".mjs", ""}
    for name in names:
        path = ROOT / name
        if path.suffix in kinds and path.is_file() and path.name != Path(__file__).name:
            assert not own.search(path.read_text()), name
