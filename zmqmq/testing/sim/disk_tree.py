"""The tree of names of a simulated disk: from paths to nodes, with the errors that a real system raises."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from zmqmq.testing.sim.disk_nodes import DirectoryNode, FileNode, Node

if TYPE_CHECKING:
    from collections.abc import Iterator


def system_error(number: int, path: str) -> OSError:
    """As the system would raise it; Python picks the subclass by the number."""
    return OSError(number, os.strerror(number), path)


def names_of(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


class Tree:
    """Looks names up; changes them only through ``DirectoryNode``. Walks in the order of names."""

    __slots__ = ("root",)

    def __init__(self) -> None:
        self.root = DirectoryNode()

    def node(self, path: str) -> Node:
        """Raises FileNotFoundError, NotADirectoryError."""
        node: Node = self.root
        for name in names_of(path):
            if not isinstance(node, DirectoryNode):
                raise system_error(errno.ENOTDIR, path)
            if name not in node.names:
                raise system_error(errno.ENOENT, path)
            node = node.names[name]
        return node

    def directory(self, path: str) -> DirectoryNode:
        """Raises FileNotFoundError, NotADirectoryError."""
        node = self.node(path)
        if not isinstance(node, DirectoryNode):
            raise system_error(errno.ENOTDIR, path)
        return node

    def parent(self, path: str) -> tuple[DirectoryNode, str]:
        """The directory that holds the last name, and that name. Raises FileNotFoundError, NotADirectoryError."""
        *above, name = names_of(path)
        return self.directory("/".join(above)), name

    def is_at(self, node: FileNode, path: str) -> bool:
        """Whether the name leads to this very file."""
        try:
            return self.node(path) is node
        except (FileNotFoundError, NotADirectoryError):
            return False

    def files(self) -> Iterator[tuple[str, FileNode]]:
        return _files(self.root, "")

    def directories(self) -> Iterator[DirectoryNode]:
        """Every directory, each before those in it; names may change between two steps."""
        waiting = [self.root]
        while waiting:
            directory = waiting.pop()
            yield directory
            inner = [node for _, node in sorted(directory.names.items()) if isinstance(node, DirectoryNode)]
            waiting.extend(reversed(inner))


def _files(directory: DirectoryNode, path: str) -> Iterator[tuple[str, FileNode]]:
    for name, node in sorted(directory.names.items()):
        if isinstance(node, DirectoryNode):
            yield from _files(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", node
