"""Help on flags: a paragraph each, in the sections that the dataclass of a recipe names."""

import dataclasses
from typing import Any, ClassVar

from keras_taskrobust.plain_text import one_line


class _Section:
    """What tyro takes for a structure of some of a recipe's fields."""

    fields: ClassVar[tuple]


def add_help(registry: Any) -> None:
    """Has tyro show the fields of dataclasses, of those with `SECTIONS` in a box for each.

    Args:
        registry: `tyro.constructors.ConstructorRegistry`.
    """
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    @registry.struct_rule
    def settings(info):
        if not dataclasses.is_dataclass(info.type) or _Section in info.markers:
            return None
        marked = dataclasses.replace(info, markers=(*info.markers, _Section))
        spec: Any = ConstructorRegistry.get_struct_spec(marked)
        fields = {field.name: _in_a_paragraph(field) for field in spec.fields}
        if not hasattr(info.type, "SECTIONS"):
            return StructConstructorSpec(spec.instantiate, tuple(fields.values()))
        sections = [
            type(title, (_Section,), {"fields": tuple(fields[name] for name in names)})
            for title, names in sections_of(info.type).items()
        ]

        def instantiate(**parts):
            return spec.instantiate(**{k: v for part in parts.values() for k, v in part.items()})

        shown = [StructFieldSpec(one.__name__, one, default=one()) for one in sections]
        return StructConstructorSpec(instantiate, tuple(shown))

    @registry.struct_rule
    def section(info):
        if not (isinstance(info.type, type) and issubclass(info.type, _Section)):
            return None
        return StructConstructorSpec(dict, info.type.fields)


def sections_of(kind: Any) -> dict[str, list[str]]:
    """The names of a dataclass's fields by section.

    Its `SECTIONS`, and those of the classes that it is made of, give the first field of each. A
    section that begins again goes on.

    Args:
        kind: a dataclass.

    Returns:
        dict of titles to names of fields.
    """
    begins: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        begins |= vars(one).get("SECTIONS", {})
    sections: dict[str, list[str]] = {}
    title = ""
    for field in dataclasses.fields(kind):
        title = begins.get(field.name, title)
        sections.setdefault(title, []).append(field.name)
    return sections


def _in_a_paragraph(field):
    """The same, with its docstring's lines in one: tyro keeps the ends of indented ones."""

    def text():
        found = field.helptext() if callable(field.helptext) else field.helptext
        return None if found is None else one_line(found)

    return dataclasses.replace(field, helptext=text)
