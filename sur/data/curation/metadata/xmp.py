"""The texts of an XMP packet (RDF in XML), which may stand in any kind of picture."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from PIL import Image

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# Local names of the properties that tools use, and the names under which `texts_in_picture` has them.
PROPERTIES = {
    "UserComment": "UserComment",
    "parameters": "parameters",
    "prompt": "prompt",
    "workflow": "workflow",
    "description": "XMP description",
}


def xmp_texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """The texts of a picture's XMP packet by name; nothing where it is not XML, or declares entities of its own."""
    packet = image.info.get("xmp", image.info.get("XML:com.adobe.xmp"))
    if isinstance(packet, bytes):
        packet = packet.decode("utf-8", "replace")
    if not isinstance(packet, str) or "<!" in packet:  # a document type: its entities could stand for gigabytes
        return
    begin = packet.find("<")
    end = packet.rfind(">") + 1
    try:
        root = ElementTree.fromstring(packet[max(begin, 0) : end])
    except (ElementTree.ParseError, ValueError):
        return
    for element in root.iter():
        if name := PROPERTIES.get(_local(element.tag)):
            items = [item.text or "" for item in element.iter(f"{_RDF}li")]
            if text := next(filter(str.strip, [*items, element.text or ""]), ""):
                yield name, text
        for attribute, text in element.attrib.items():
            if (name := PROPERTIES.get(_local(attribute))) and text.strip():
                yield name, text


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
