"""Rows as they were at a position of their stream: `keys_as_of`, `images_as_of`, `rows_as_of`.

The rows are read as they are now, then the documents that have events after the position
(`touched`). Those are left out, and what they were at the position takes their place if it matches.
A result therefore contains exactly the changes up to the position, whatever is written meanwhile,
and several results for one position agree with each other.

The position must have been reached before the rows are read. A filter is evaluated by the database
on rows, and by Python on images, with the same result, and so is an order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from django.db.models import F, Q, QuerySet
from msgspec.structs import replace

from ..declarations.collection import Collection
from ..declarations.related_values import with_related
from ..declarations.row_documents import make_documents
from ..declarations.serialization import field_encoder, raw_column
from ..events import Change, Image
from ..filters import Filter
from ..filters.nodes import all_of, negate
from ..filters.order import BY_KEY, InvalidOrder, Order
from ..filters.orm import to_q
from ..filters.orm_order import ordering, steps_after
from ..utils.json_text import encode_json
from .cursor import Position
from .row_order import Place, RowOrder
from .touched import CannotUndo, TooManyTouched, read_touched

SPARE_ROWS = 30  # rows that are read beyond a limit, since some may have to be left out
MAX_READS = 3  # of rows, each with more spare ones, if that many are left out
MAX_KEYS = 500  # primary keys in one query


class KeysAsOf(NamedTuple):
    """The primary keys of matching rows, in order."""

    keys: list[Any]
    # bytes of each row, roughly; empty if they were not measured
    sizes: list[int]
    # whether more rows match
    is_cut: bool


class RowsAsOf(NamedTuple):
    """Documents that matched a filter at a position."""

    # in order; each as its creation, with a decoded image, and the data of a serializer
    documents: list[Change]
    # whether more documents match
    is_cut: bool


class Differences(NamedTuple):
    """The documents that are gained and lost if a filter takes the place of another one."""

    # those that the new filter matches, and the old one did not or may have matched otherwise
    entered: list[Change]
    # ids of those that the old filter matched, and the new one does not
    left: list[str]
    # whether either list lacks documents because of the limit
    is_cut: bool


def keys_as_of(
    collection: Collection,
    filter: Filter,
    position: Position | None,
    *,
    limit: int,
    order: Order = BY_KEY,
    after: Sequence[Any] | None = None,
    size: Any = None,
    keys: Sequence[Any] | None = None,
) -> KeysAsOf:
    """Return the primary keys of the first ``limit`` rows that matched a filter at a position.

    Rows that counted as deleted are left out. Without a position, the rows are taken as they are
    now. Only rows behind ``after`` are returned if it is given: `RowOrder.values` of a row, which
    need not exist. ``size`` is an expression for the bytes of a row. Only rows with one of ``keys``
    are returned if they are given. Raises `CannotUndo`, `InvalidOrder` if ``after`` is not of this
    order, and exceptions of the database.
    """
    queries = _matching(collection, filter, order, after, keys)
    columns = [] if size is None else [size]
    if position is None:
        return _first(
            _read(collection, queries, columns, limit + 1), limit, with_sizes=size is not None
        )
    places = _Places(collection, order)
    columns += places.columns
    document_id = collection.codec.document_id
    ids = None if keys is None else {document_id(key) for key in keys}
    spare = SPARE_ROWS
    for _ in range(MAX_READS):
        selected = _read(collection, queries, columns, limit + 1 + spare)
        are_all = len(selected) <= limit + spare
        # after the rows, see `touched`
        touched = read_touched(collection, position, ids=ids)
        if not touched:
            return _first(selected, limit, with_sizes=size is not None)
        selected = [row for row in selected if document_id(row[0]) not in touched]
        if are_all or len(selected) > limit:
            break
        spare += len(touched.images)
    else:
        raise TooManyTouched("Rows change faster than they are read.")
    former = [pair for pair in touched.existing() if matches(collection, filter, pair[1])]
    _insert(collection, places, selected, former, after)
    return _first(selected, limit, with_sizes=size is not None)


def images_as_of(
    collection: Collection, keys: Sequence[Any], position: Position | None
) -> dict[str, Image]:
    """Return the stored images at a position of documents with these keys, by document id.

    Those that did not exist are left out. Without a position, the images are those of now. Raises
    `CannotUndo`, and exceptions of the database.
    """
    codec = collection.codec
    rows: QuerySet[Any] = QuerySet(collection.concrete_model, using=collection.database).order_by()
    by_id: dict[str, Image | None] = {}
    for start in range(0, len(keys), MAX_KEYS):
        part = rows.filter(pk__in=keys[start : start + MAX_KEYS])
        for key, *values in part.values_list("pk", *_image_columns(collection)):
            by_id[codec.document_id(key)] = _image(collection, values)
    ids = [codec.document_id(key) for key in keys]
    if position is not None:
        by_id = {**by_id, **read_touched(collection, position, ids=set(ids)).images}
    images = ((id, by_id.get(id)) for id in ids)
    return {id: image for id, image in images if image is not None}


def rows_as_of(
    collection: Collection,
    filter: Filter,
    position: Position | None,
    *,
    limit: int,
    order: Order = BY_KEY,
    after: Sequence[Any] | None = None,
    keys: Sequence[Any] | None = None,
) -> RowsAsOf:
    """Return the first ``limit`` documents that matched a filter at a position.

    The arguments and exceptions are those of `keys_as_of`. A serializer is given the row as it was
    at the position, and related rows as they are now. Related fields have the values of now.
    """
    unchanged = None
    if keys is None and limit <= MAX_KEYS:
        unchanged = _read_unchanged(collection, filter, position, limit, order, after)
    if unchanged is not None:
        images, is_cut = unchanged
    else:
        selected = keys_as_of(
            collection, filter, position, limit=limit, order=order, after=after, keys=keys
        )
        images, is_cut = images_as_of(collection, selected.keys, position), selected.is_cut
    stored = [creation(collection, id, image) for id, image in images.items()]
    data = make_documents(collection, stored, collection.database)
    documents = [
        replace(collection.decode(change), document=document)
        for change, document in zip(stored, data, strict=True)
    ]
    return RowsAsOf(with_related(collection, documents), is_cut)


def _read_unchanged(
    collection: Collection,
    filter: Filter,
    position: Position | None,
    limit: int,
    order: Order,
    after: Sequence[Any] | None,
) -> tuple[dict[str, Image], bool] | None:
    """Return the first matching images by document id, and whether more match.

    Two statements are enough for that, mostly. Returns None if a document has changed since the
    position.
    """
    queries = _matching(collection, filter, order, after, None)
    rows = _read(collection, queries, _image_columns(collection), limit + 1)
    if position is not None and read_touched(collection, position):
        return None
    document_id = collection.codec.document_id
    images = {document_id(key): _image(collection, values) for key, *values in rows[:limit]}
    return images, len(rows) > limit


def _image_columns(collection: Collection) -> list[Any]:
    """Return the expressions for the columns of an image."""
    codec = collection.codec
    return [
        raw_column(F(str(field.attname)), name in codec.raw_names)
        for name, field in codec.fields.items()
    ]


def _image(collection: Collection, values: Sequence[Any]) -> Image:
    """Return the stored image of a row with the values of `_image_columns`."""
    codec = collection.codec
    return codec.image(dict(zip(codec.attnames, values, strict=True)))


def differences_as_of(
    collection: Collection,
    old: Filter,
    new: Filter,
    position: Position,
    *,
    limit: int,
    since: Position | None = None,
) -> Differences:
    """Return what makes the documents that one filter matched those that another one matches.

    The new filter is evaluated at ``position``, and the old one at ``since``, which is the same or
    an earlier position. All documents with events after ``since`` are returned that the new filter
    matches. At most ``limit`` other documents are returned for each filter. Raises as `keys_as_of`
    does.
    """
    # not ``new & ~old``: what the old filter does not decide, because of a None, it does not match
    only_new = Filter(all_of((new.root, negate(old.root))))
    only_old = Filter(all_of((old.root, negate(new.root))))
    entered = rows_as_of(collection, only_new, position, limit=limit)
    left = keys_as_of(collection, only_old, position, limit=limit)
    document_id = collection.codec.document_id
    documents = {change.document_id: change for change in entered.documents}
    ids = {document_id(key) for key in left.keys}
    if since is not None and since != position:
        touched = read_touched(collection, since)
        keys = [key for id in touched.images if (key := collection.codec.key(id)) is not None]
        changed = rows_as_of(collection, new, position, limit=len(keys), keys=keys).documents
        documents |= {change.document_id: change for change in changed}
        # the old filter may match a document now that it did not match then
        ids -= touched.images.keys()
        former = {id for id, image in touched.existing() if matches(collection, old, image)}
        ids |= former - documents.keys()
    return Differences(list(documents.values()), sorted(ids), entered.is_cut or left.is_cut)


def creation(collection: Collection, id: str, image: Image) -> Change:
    """Return the creation of a document with an image, of which no event exists."""
    return Change("", collection.name, "created", id, "", "", after=image)


def matches(collection: Collection, filter: Filter, image: Image) -> bool:
    """Return whether a stored image matches a filter, and does not count as deleted."""
    decoded = collection.codec.decode(image, collection.database)
    return filter.matches(collection.row(decoded)) and not collection.is_deleted(decoded)


def _matching(
    collection: Collection,
    filter: Filter,
    order: Order,
    after: Sequence[Any] | None,
    keys: Sequence[Any] | None,
) -> list[QuerySet[Any]]:
    """Return queries for the rows that match a filter now, in order, the first ones first."""
    model, using = collection.concrete_model, collection.database
    if collection.deleted_filter is not None:
        filter &= ~collection.deleted_filter
    # managers of the project may replace names of fields, or leave rows out
    rows: QuerySet[Any] = QuerySet(model, using=using).filter(to_q(filter, model, using))
    if keys is not None:
        rows = rows.filter(pk__in=keys)
    steps = [Q()] if after is None else steps_after(model, order, using, after)
    by = ordering(model, order, using)
    return [rows.filter(step).order_by(*by) for step in steps]


def _read(
    collection: Collection, queries: Sequence[QuerySet[Any]], columns: Sequence[Any], limit: int
) -> list[Any]:
    """Return the first rows of queries, each by its own statement: the key, then the columns."""
    # not "pk": if the key has several fields, Django would sort by the wrong columns
    names = [str(field.attname) for field in collection.concrete_model._meta.pk_fields]
    selected: dict[Any, Any] = {}
    for rows in queries:
        if len(selected) >= limit:
            break
        for row in rows.values_list(*names, *columns)[: limit - len(selected)]:
            key = row[0] if len(names) == 1 else row[: len(names)]
            id: Any = len(selected)
            if len(queries) > 1:
                # a row that was changed meanwhile may be read again
                id = collection.codec.document_id(key)
                selected.pop(id, None)
            selected[id] = (key, *row[len(names) :])
    return list(selected.values())


class _Places:
    """The places of rows in an order: of those that a query has returned, and of stored images."""

    def __init__(self, collection: Collection, order: Order) -> None:
        fields = collection.codec.fields
        names, key_fields = order.names, collection.concrete_model._meta.pk_fields
        # names of the columns that follow the others in a query
        self.columns = [str(fields[name].attname) for name in names]
        self._is_composite = len(key_fields) > 1
        self._encoders = [
            *((name, field_encoder(fields[name])) for name in names),
            *((field.name, field_encoder(field)) for field in key_fields),
        ]
        self._row_order: RowOrder | None = None
        with suppress(InvalidOrder):
            self._row_order = RowOrder(collection, order)
        # whether keys are compared as they are, since they are none that a `RowOrder` knows
        self._is_by_key = self._row_order is None and not names

    def of_row(self, row: Sequence[Any]) -> Place:
        """Return the place of a row, which has the key first and the other columns last."""
        key = row[0]
        if self._is_by_key:
            return (key,)
        values = [*row[len(row) - len(self.columns) :], *(key if self._is_composite else (key,))]
        image = {
            name: encode(value)
            for (name, encode), value in zip(self._encoders, values, strict=True)
        }
        return self._known_order.place(image)

    def of_image(self, image: Image, key: Any) -> Place:
        """Return the place of a stored image."""
        return (key,) if self._is_by_key else self._known_order.place(image)

    def of_values(self, values: Sequence[Any]) -> Place:
        """Return the place of `RowOrder.values`."""
        return self._known_order.place_of_values(values)

    @property
    def _known_order(self) -> RowOrder:
        if self._row_order is None:
            raise CannotUndo("The rows are sorted by what only the database knows.")
        return self._row_order


def _insert(
    collection: Collection,
    places: _Places,
    selected: list[Any],
    former: Sequence[tuple[str, Image]],
    after: Sequence[Any] | None,
) -> None:
    """Insert documents into rows that a query has returned, by their stored images."""
    if not former:
        return
    try:
        start = None if after is None else places.of_values(after)
        inserted = []
        for id, image in former:
            key = collection.codec.key(id)
            place = places.of_image(image, key)
            if start is None or place > start:
                inserted.append((place, (key, len(encode_json(image)))))
        inserted.sort(key=lambda pair: pair[0])
        place_at = cache(lambda index: places.of_row(selected[index]))
        rows = range(len(selected))
        indexes = [bisect_left(rows, place, key=place_at) for place, _ in inserted]
    except (TypeError, ValueError) as error:
        raise CannotUndo("The rows cannot be compared.") from error
    for index, (_, row) in zip(reversed(indexes), reversed(inserted), strict=True):
        selected.insert(index, row)


def _first(selected: Sequence[Any], limit: int, *, with_sizes: bool = False) -> KeysAsOf:
    """Return the result for rows that a query has returned: keys, and sizes if they have them."""
    first = selected[:limit]
    sizes = [row[1] for row in first] if with_sizes else []
    return KeysAsOf([row[0] for row in first], sizes, len(selected) > limit)
