"""Paths to values in related rows: the same rows as those of Django's ORM."""

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.filters import (
    FilterLimits,
    InvalidFilter,
    KeySet,
    Row,
    keys_of,
    parse,
)
from django_cocobase_realtime.filters.orm import field_spec, to_q
from django_cocobase_realtime.filters.paths import ModelPaths
from tests.app.models import Author, Comment, Post, Restaurant, Tag
from tests.filters.test_backends_agree import DATABASE_EXAMPLES, Undo

pytestmark = pytest.mark.django_db


class Collection:
    """Parses filters on a model, with the keys that querysets return at that moment."""

    def __init__(self, model):
        self.model = model
        self.codec = RowCodec(model)
        self.schema = {name: field_spec(field) for name, field in self.codec.fields.items()}

    def key_set(self, field, queryset):
        if queryset._fields is None:
            queryset = queryset.values_list("pk", flat=True)
        kind = self.schema[field].compares_as
        return KeySet("a query", kind, keys_of(kind, queryset))

    def parse(self, filters, **options):
        paths = ModelPaths(self.model)
        return parse(filters, self.schema, key_set=self.key_set, paths=paths, **options)

    def matching(self, filter):
        """Return the primary keys of the rows that match, in Python and in the database."""
        images = [self.codec.image(row) for row in self.model.objects.values(*self.codec.attnames)]
        by_predicate = {int(i["id"]) for i in images if filter.matches(Row(i, self.schema))}
        by_database = self.model.objects.filter(to_q(filter, self.model, "default"))
        assert set(by_database.values_list("pk", flat=True)) == by_predicate
        return by_predicate

    def expected(self, q):
        return set(self.model.objects.filter(q).values_list("pk", flat=True))


POSTS, COMMENTS, AUTHORS = Collection(Post), Collection(Comment), Collection(Author)


@pytest.fixture
def rows():
    users = [User.objects.create(username=f"u{n}") for n in range(2)]
    authors = [Author.objects.create(id=n, name=name) for n, name in enumerate(("ada", "Bob", ""))]
    Author.objects.create(id=3, name="without posts")
    tags = [Tag.objects.create(id=n, name=name) for n, name in enumerate("xy", 1)]
    for number in range(12):
        post = Post.objects.create(
            title=f"t{number % 3}",
            author=[*authors, None][number % 4],
            owner=[*users, None][number % 3],
            rating=[None, 1, 2][number % 3],
            meta={"a": number % 2} if number % 3 else {},
        )
        post.tags.set(tags[: number % 3])
        if number % 5:
            Comment.objects.create(post=post, text="c")


def tagged(name):
    return Q(pk__in=Post.objects.filter(tags__name=name).values("pk"))


@pytest.mark.parametrize(
    ("collection", "filters", "q"),
    [
        (POSTS, {"author.name": "ada"}, Q(author__name="ada")),
        (POSTS, {"author__name": "ada"}, Q(author__name="ada")),
        (POSTS, {"author__name__in": ["ada", "", "?"]}, Q(author__name__in=["ada", ""])),
        (POSTS, {"author.name_contains": "B"}, Q(author__name__icontains="b")),
        (POSTS, {"author.name": {"gte": "a", "lt": "b"}}, Q(author__name="ada")),
        (POSTS, {"author.id": 1}, Q(author=1)),
        (POSTS, {"author.pk__gt": 1}, Q(author__pk__gt=1)),
        (POSTS, {"author.name_isnull": True}, Q(author__name__isnull=True)),
        (POSTS, {"author.name": {"isnull": False}}, Q(author__isnull=False)),
        (POSTS, {"author.name_in": []}, Q(pk__in=[])),
        (POSTS, {"author.name_ne": "ada"}, Q(author__isnull=False) & ~Q(author__name="ada")),
        (
            POSTS,
            {"$not": {"author.name": "ada"}},
            Q(author__isnull=True) | ~Q(author__name="ada"),
        ),
        (
            POSTS,
            {"$or": [{"author.name": "ada"}, {"owner.username": "u1"}]},
            Q(author__name="ada") | Q(owner__username="u1"),
        ),
        (
            POSTS,
            {"author.name__or__owner.username_startswith": "U"},
            Q(author__name__istartswith="u") | Q(owner__username__istartswith="u"),
        ),
        # a path of which some related row matches
        (POSTS, {"tags.name": "x"}, tagged("x")),
        (POSTS, {"tags__name": "y", "tags.name": "x"}, tagged("x") & tagged("y")),
        (POSTS, {"$not": {"tags.name": "y"}}, ~tagged("y")),
        (POSTS, {"tags": 2}, Q(tags=2)),
        (POSTS, {"tags__isnull": True}, Q(tags__isnull=True)),
        (POSTS, {"comment.text": "c"}, Q(comment__text="c")),
        (POSTS, {"comment": {"isnull": False}}, Q(comment__isnull=False)),
        (AUTHORS, {"post.owner.username": "u1"}, Q(post__owner__username="u1")),
        (AUTHORS, {"post__tags__name": "x"}, Q(post__tags__name="x")),
        (AUTHORS, {"post__isnull": True}, Q(post__isnull=True)),
        (COMMENTS, {"post.tags__isnull": True}, Q(post__tags__isnull=True)),
        # several hops
        (COMMENTS, {"post.author.name": "ada"}, Q(post__author__name="ada")),
        (COMMENTS, {"post__author": 1}, Q(post__author=1)),
        (COMMENTS, {"post__author_id": 1}, Q(post__author=1)),
        (COMMENTS, {"post.author__isnull": True}, Q(post__author__isnull=True)),
        (COMMENTS, {"post.author.name__isnull": True}, Q(post__author__name__isnull=True)),
        (COMMENTS, {"post.author.name_ne": "ada"}, Q(post__author__name__in=["Bob", ""])),
        (COMMENTS, {"post.rating_gte": "1.5"}, Q(post__rating__gte=1.5)),
        (COMMENTS, {"post.meta.a": 1}, Q(post__meta__a=1)),
        (COMMENTS, {"post.tags.name_contains": "X"}, Q(post__tags__name="x")),
    ],
)
def test_path_in_trusted_filter(rows, collection, filters, q):
    expected = collection.expected(q)
    assert collection.matching(collection.parse(filters, trusted=True)) == expected
    assert expected != set(collection.model.objects.values_list("pk", flat=True))


@pytest.mark.parametrize(
    ("filters", "q"),
    [
        ({"post.author__in": Author.objects.filter(name="ada")}, Q(post__author__name="ada")),
        ({"post__in": Post.objects.filter(title="t1")}, Q(post__title="t1")),
        (
            {"post.author__notin": Author.objects.filter(name="ada")},
            Q(post__author__name__in=["Bob", ""]),
        ),
        ({"post.tags__in": Tag.objects.filter(name="x")}, Q(post__tags__name="x")),
        (
            {"post.tags__notin": Tag.objects.filter(name="x")},
            Q(post__tags__name="y"),
        ),
    ],
)
def test_queryset_at_the_end_of_a_path(rows, filters, q):
    filter = COMMENTS.parse(filters, trusted=True)
    assert COMMENTS.matching(filter) == COMMENTS.expected(q)


def test_none_at_the_end_of_a_path_is_unknown(rows):
    for filters in ({"author.name": None}, {"author.name_in": ["ada", None]}):
        filter = POSTS.parse(filters, trusted=True)
        expected = POSTS.expected(Q(author__name="ada")) if "author.name_in" in filters else set()
        assert POSTS.matching(filter) == expected
        assert POSTS.matching(~filter) == set()


def test_fields_of_parents_and_of_children():
    restaurants = Collection(Restaurant)
    Restaurant.objects.create(name="a", stars=1)
    Restaurant.objects.create(name="b", stars=2)
    filter = restaurants.parse({"place_ptr.name": "a"}, trusted=True)
    (row,) = Restaurant.objects.filter(to_q(filter, Restaurant, "default"))
    assert row.stars == 1


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"author.nme": "a"}, r"'nme' is neither a field of app.Author, which has \['id', 'name'"),
        ({"author__name__iexact": "a"}, "'name' of app.Author is no relation"),
        ({"post.title": "a"}, "'post.title' cannot be filtered by"),
        ({"title.name": "a"}, "'title.name' cannot be filtered by"),
        ({"author.name": {"like": "a"}}, "'like' is not an operator"),
        ({"author.id": "x"}, "'author.id' must be an integer"),
    ],
)
def test_mistake_in_a_path(filters, message):
    with pytest.raises(InvalidFilter, match=message):
        POSTS.parse(filters, trusted=True)


# clients

ALLOWED = frozenset({"title", "author", "author.name", "author.id"})


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"author__name": "a"}, "cannot be filtered by; allowed are"),
        ({"author.password": "a"}, "cannot be filtered by"),
        ({"owner.username": "a"}, "cannot be filtered by"),
        ({"author.name__iexact": "a"}, "cannot be filtered by"),
        ({"author.name.x": "a"}, "cannot be filtered by"),
        ({"tags.name": "a"}, "cannot be filtered by"),
        ({"author.name": None}, "null equals nothing"),
        ({"author.name": ["a"]}, "'author.name' must be a text"),
        ({"author.id": 2**70}, "64 bits"),
        ({"author.name_isnull": "x"}, "true or false"),
        ({"author.name": Author.objects.all()}, "must be a text"),
    ],
)
def test_clients_cannot_use_other_paths_and_values(filters, message):
    with pytest.raises(InvalidFilter, match=message):
        POSTS.parse(filters, allowed=ALLOWED, limits=FilterLimits())


@pytest.mark.parametrize("path", ["tags.name", "author.post.title"])
def test_declared_path_to_several_rows_is_not_allowed(path):
    with pytest.raises(InvalidFilter, match="cannot be filtered by"):
        POSTS.parse({path: "x"}, allowed={path})


class WithSimilarNames(ModelPaths):
    """Paths to a related row that has the fields ``name`` and ``name_in``."""

    def find(self, name):
        return super().find("author.id" if name == "author.name_in" else name)


def test_longest_name_of_a_related_field_wins():
    def key_set(field, queryset):
        queries.append(str(queryset.query))
        return KeySet("a query", POSTS.schema[field].compares_as)

    queries = []
    paths = WithSimilarNames(Post)
    parse({"author.name_in": "5"}, POSTS.schema, trusted=True, paths=paths, key_set=key_set)
    assert '"id" = 5' in queries[0] or '"id" IN (5)' in queries[0]


NAMES = st.sampled_from(["", "a", "A", "b", "Ab", "%", "ä"])
VIEWS = st.sampled_from([-1, 0, 5])
IDS = st.sampled_from([1, 2, 3])


@st.composite
def conditions(draw):
    """Draw a condition of a client on a path, and the same for Django."""
    paths = [("post.author.name", NAMES), ("post.views", VIEWS), ("post.author", IDS)]
    path, values = draw(st.sampled_from(paths))
    operators = ["eq", "ne", "in", "notin", "isnull", "gt", "gte", "lt", "lte", "between"]
    operator = draw(st.sampled_from(operators))
    lookup = path.replace(".", "__")
    has_value = Q(**{f"{lookup}__isnull": False})
    if operator == "isnull":
        value = draw(st.booleans())
        return {path: {operator: value}}, Q(**{f"{lookup}__isnull": value})
    if operator in ("in", "notin"):
        value = draw(st.lists(values, max_size=3))
        q = Q(**{f"{lookup}__in": value})
        return {path: {operator: value}}, q if operator == "in" else has_value & ~q
    if operator == "between":
        value = [draw(values), draw(values)]
        q = Q(**{f"{lookup}__gte": value[0], f"{lookup}__lte": value[1]})
        return {path: {operator: value}}, q
    value = draw(values)
    if operator == "ne":
        return {path: {operator: value}}, has_value & ~Q(**{lookup: value})
    suffix = "exact" if operator == "eq" else operator
    return {path: {operator: value}}, Q(**{f"{lookup}__{suffix}": value})


@st.composite
def client_filters(draw):
    (first, q), (second, other_q) = draw(conditions()), draw(conditions())
    match draw(st.sampled_from(["and", "or", "not"])):
        case "and":
            return {"$and": [first, second]}, q & other_q
        case "or":
            return {"$or": [first, second]}, q | other_q
    return {"$not": first}, ~Q(pk__in=Comment.objects.filter(q))


@DATABASE_EXAMPLES
@given(
    st.lists(st.tuples(st.none() | NAMES, VIEWS, IDS), max_size=4),
    st.lists(client_filters(), min_size=1, max_size=4),
)
def test_filters_of_clients_equal_those_of_the_orm(db, drawn, filters_and_qs):
    allowed = {"post.author.name", "post.views", "post.author"}
    try:
        with transaction.atomic():
            for name, views, id in drawn:
                author = None
                if name is not None:
                    author, _ = Author.objects.get_or_create(id=id, defaults={"name": name})
                post = Post.objects.create(author=author, views=views)
                Comment.objects.create(post=post, text="")
            for filters, q in filters_and_qs:
                filter = COMMENTS.parse(filters, allowed=allowed)
                assert COMMENTS.matching(filter) == COMMENTS.expected(q), filters
            raise Undo
    except Undo:
        pass
