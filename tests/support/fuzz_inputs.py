"""Hypothesis strategies for malformed and nearly valid frames, first frames and HTTP bodies."""

from urllib.parse import quote

from hypothesis import strategies as st

UNREADABLE = "rating"
COLLECTIONS = ["posts", "mine", "checked", "short", "staff", "everything"]
ROOMS = ["kept-1", "durable-1", "blind-1", "closed-1", "open", "*"]
HUGE = [2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**30, 1e308, -1e308, 5e-324, 0.5]
WORDS = [
    *("", " ", "\0", "a\0b", "\ud800", "\uffff", "é", "\U0001f600", "'", '"', "%s", "\\", "../"),
    *("-1", "0", "1", "99999999999999999999", "1e999", "nan", "NaN", "null", "true", "[]", "{}"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59", "10000-01-01", "x" * 200, "y" * 5000),
    *("posts", "mine", "checked", "short", "staff", "everything", "nothing", "kept-1", "closed-1"),
    *("durable-1", "blind-1", "open", "*", "title", "-title", UNREADABLE, f"-{UNREADABLE}", "body"),
    *("author", "meta", "meta.a", "status", "owner", "project", "pk", "id", "anonymous"),
]
words = st.sampled_from(WORDS)
scalars = st.one_of(words, st.sampled_from(HUGE), st.booleans(), st.none(), st.integers(-5, 5))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = [
    *("title", "status", "meta", "meta.a", "owner", "owner_id", "id", "pk", "views", UNREADABLE),
    *("body", "project", "author", "author__password", "tags", "big", "moment", "date", "decimal"),
    *(
        "float",
        "integer",
        "ip",
        "json",
        "json.a",
        "small",
        "text",
        "time",
        "uuid",
        "boolean",
        "char",
    ),
]
operators = st.sampled_from(
    ["", "_eq", "_ne", "_gt", "_lte", "_contains", "_in", "_notin", "_isnull", "_between"]
)
keys = st.builds(
    lambda prefix, before, field, operator: prefix + before + field + operator,
    st.sampled_from(["", "", "[or]", "[or:x]", "$"]),
    st.sampled_from(["", "", "title__or__", f"{UNREADABLE}__or__"]),
    st.sampled_from(FIELDS),
    operators,
)
conditions = st.one_of(
    anything,
    st.dictionaries(operators.map(lambda o: o[1:]), anything, max_size=2),
    st.lists(scalars, max_size=3),
)
filters = st.recursive(
    st.dictionaries(keys, conditions, max_size=2),
    lambda inner: st.one_of(
        st.builds(lambda f: {"$not": f}, inner),
        st.builds(lambda fs: {"$or": fs}, st.lists(inner, max_size=3)),
    ),
    max_leaves=3,
)
names = st.one_of(words, words, anything)
rooms = st.one_of(st.sampled_from(ROOMS), names)
collections = st.one_of(st.sampled_from(COLLECTIONS), names)
cursors = st.sampled_from(["CURSOR-posts", "CURSOR-kept-1", "CURSOR-durable-1", *WORDS])


def frame(kind, **optional):
    some = {name: st.one_of(good, anything) for name, good in optional.items()}
    return st.fixed_dictionaries({"type": st.just(kind)}, optional={"id": scalars, **some})


snapshots = st.one_of(
    st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "limit": st.one_of(st.integers(-1, 9), anything),
            "order": st.sampled_from(FIELDS).flatmap(lambda f: st.sampled_from([f, f"-{f}"])),
        },
    ),
)
fields = st.lists(st.sampled_from(FIELDS), max_size=3)
subscribes = st.builds(
    lambda must, may: {**must, **may},
    st.fixed_dictionaries({"type": st.just("subscribe"), "collection": collections}),
    st.fixed_dictionaries(
        {},
        optional={
            "filters": st.one_of(filters, anything),
            "document": scalars,
            "fields": fields,
            "changed": fields,
            "events": st.lists(st.sampled_from(["created", "updated", "deleted"]), max_size=3),
            "transitions": st.booleans(),
            "since": cursors,
            "scope": words,
            "snapshot": snapshots,
            "subscription": words,
        },
    ),
)
sound = st.fixed_dictionaries(
    {"type": st.just("subscribe"), "collection": st.sampled_from(COLLECTIONS)},
    optional={
        "transitions": st.just(True),
        "snapshot": st.just(True),
        "since": st.just("CURSOR-posts"),
        "subscription": st.sampled_from(["a", "b"]),
    },
)
frames = st.one_of(
    sound,
    sound,
    subscribes,
    subscribes,
    st.fixed_dictionaries({"type": st.just("join"), "room": st.sampled_from(ROOMS)}),
    frame("auth", token=st.sampled_from(["OTHER-KEY", "OTHER-USER", "crk_x_y", "a.b.c", "\0"])),
    frame("unsubscribe", collection=collections, subscription=words),
    frame("join", room=rooms, history=st.integers(0, 9), since=cursors, state=st.just({"a": 1})),
    frame("leave", room=rooms),
    frame("state", room=rooms, state=st.dictionaries(words, anything, max_size=2)),
    frame("broadcast", room=rooms, message=anything, idempotency_key=words, echo=st.booleans()),
    frame("ack", cursor=cursors),
    st.builds(lambda kind, more: {**more, "type": kind}, names, st.dictionaries(words, anything)),
    anything,
)
RAW = [
    *(
        "",
        "ping",
        "{",
        "[]",
        "nul",
        '"',
        "\ufeff{}",
        '{"type":"ping"}{}',
        '{"type":"ping","id":NaN}',
    ),
    *('{"type":"ping","type":"ping"}', '{"type":"ping","id":1e400}', "[" * 5000, '{"a":' * 5000),
    *('{"type":"ping","id":' + "9" * 5000 + "}", '{"type":"ping","x":"\\u0000"}', "x" * 70_000),
    *('{"type":"ping","x":"\\ud800"}', "{" + ",".join(f'"k{n}":1' for n in range(600)) + "}"),
]
raw = st.one_of(
    st.sampled_from(RAW),
    st.text(max_size=20).map(lambda t: t.encode("utf-8", "replace").decode()),
    st.binary(max_size=9),
)
talk = st.lists(st.one_of(frames, frames, frames, raw), max_size=8)

firsts = st.one_of(st.just({}), st.just({"action": "create"})) | st.fixed_dictionaries(
    {},
    optional={
        "filters": st.one_of(filters, anything),
        "action": st.sampled_from(["create", "join", "x"]),
        "user_id": st.one_of(words, anything),
        "user_name": st.one_of(words, anything),
        "room_title": st.one_of(words, anything),
    },
)
paths = st.one_of(
    st.just("/broadcast"),
    st.sampled_from(COLLECTIONS).map("/collections/{}".format),
    st.sampled_from(ROOMS).map("/rooms/{}".format),
    st.builds(
        lambda kind, name: f"/{kind}/{quote(name.encode('utf-8', 'surrogatepass'), safe='')}",
        st.sampled_from(["rooms", "collections"]),
        words.filter(lambda name: name not in ("", "../")),
    ),
)
sdk_frame_lists = st.lists(
    st.one_of(
        st.builds(lambda m: {"type": "message", "content": m, "data": m}, anything), anything, raw
    ),
    max_size=4,
)


bodies = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(RAW).map(str.encode),
    anything,
    st.fixed_dictionaries(
        {"room": rooms, "message": anything}, optional={"idempotency_key": names}
    ),
    st.builds(lambda ms: {"messages": ms}, st.lists(anything, max_size=3)),
)
