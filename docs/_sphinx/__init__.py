"""What Sphinx does not do by itself for this site."""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes

NO_LINKS_IN = (
    addnodes.desc,
    addnodes.pending_xref,
    nodes.literal,
    nodes.literal_block,
    nodes.reference,
    nodes.thead,
    nodes.title,
)


def may_link(node: nodes.Node) -> bool:
    """Return whether a part of this node may become a link: it is prose, and is not one already."""
    parent = node.parent
    while parent is not None:
        if isinstance(parent, NO_LINKS_IN):
            return False
        parent = parent.parent
    return True
