"""The documents of a list, as the frames of a subscription have them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from .frozen import freeze
from .interfaces import Frame
from .messages import Document


def create_documents(frames: Iterable[Frame]) -> dict[str, Document]:
    """Return the documents in a snapshot by id, in order."""
    return {frame["id"]: create_document(frame) for frame in frames}


def create_document(frame: Frame) -> Document:
    """Return a document that cannot be changed."""
    document = Document.from_frame(frame)
    return dataclasses.replace(document, data=freeze(dict(document.data)))


def splice(documents: Iterable[Document], parts: Sequence[Frame]) -> dict[str, Document]:
    """Return documents after a change of a window, by id, in order.

    The parts of its frame remove all documents (``reset``) or some of them by id, and then insert
    others, in order, each at its index.
    """
    result: list[Document] = []
    if not parts[0].get("reset"):
        removed = frozenset(id for part in parts for id in part["remove"])
        result = [document for document in documents if document.id not in removed]
    for part in parts:
        for index, frame in part["insert"]:
            result.insert(index, create_document(frame))
    return {document.id: document for document in result}
