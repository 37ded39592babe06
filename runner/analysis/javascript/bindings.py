"""What each name of a JavaScript text is assigned, and what the text calls.

One walk over the tree of tree-sitter, without recursion. Names have no scopes here: one that the
text assigns in two places is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Node

FUNCTIONS = frozenset(
    {"function_declaration", "function_expression", "arrow_function", "method_definition",
     "generator_function", "generator_function_declaration"}
)  # fmt: skip


class Store(NamedTuple):
    """One assignment."""

    value: Node | str | None
    """An expression, the full name of what is imported, or None for what is not known."""
    member: str = ""
    """Of the value, the member that is taken: `const {exec} = …`."""


def text_of(node: Node) -> str:
    """The source of a node."""
    return node.text.decode("utf-8", "replace") if node.text is not None else ""


def arguments_of(call: Node) -> list[Node]:
    """The arguments of a call."""
    arguments = call.child_by_field_name("arguments")
    if arguments is None or arguments.type != "arguments":
        return []
    return [each for each in arguments.named_children if each.type != "comment"]


class Bindings:
    """The names of one text."""

    def __init__(self, root: Node) -> None:
        self.calls: list[Node] = []
        self.members: list[Node] = []
        """Every name and member that is read or written."""
        self.imports: list[tuple[str, Node]] = []
        self.stores: dict[str, list[Store]] = {}
        self.aliased: set[int] = set()
        """Expressions that are only given another name."""
        self._collect(root)

    def sure(self, name: str) -> Store | None:
        """What a name is, when it is assigned once; a Store of None when that is not known."""
        stores = self.stores.get(name)
        if stores is None:
            return None
        return stores[0] if len(stores) == 1 else Store(None)

    def _collect(self, root: Node) -> None:
        cursor = root.walk()
        while True:
            node = cursor.node
            if node is not None and node.is_named:
                step = self._COLLECTED.get(node.type)
                if step is not None:
                    step(self, node)
            if cursor.goto_first_child():
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return

    def _member(self, node: Node) -> None:
        self.members.append(node)

    def _call(self, node: Node) -> None:
        self.calls.append(node)
        function = node.child_by_field_name("function")
        if function is not None and function.type == "member_expression":
            self._then(node, function)

    def _then(self, node: Node, function: Node) -> None:
        """`import("fs").then(fs => …)`."""
        method = function.child_by_field_name("property")
        owner = function.child_by_field_name("object")
        callback = next(iter(arguments_of(node)), None)
        if (
            method is None or owner is None or callback is None
            or text_of(method) != "then" or callback.type not in FUNCTIONS
        ):  # fmt: skip
            return
        target = _first_parameter(callback)
        if target is not None:
            self._bind(target, owner)

    def _declared(self, node: Node) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is not None:
            self._bind(name, value)

    def _assigned(self, node: Node) -> None:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if left is not None:
            self._bind(left, right)

    def _changed(self, node: Node) -> None:
        target = node.child_by_field_name("left") or node.child_by_field_name("argument")
        if target is not None and target.type == "identifier":
            self._store(text_of(target), None)

    def _iterated(self, node: Node) -> None:
        left = node.child_by_field_name("left")
        if left is not None:
            self._bind(left, None)

    def _function(self, node: Node) -> None:
        name = node.child_by_field_name("name")
        if name is not None and node.type != "method_definition":
            self._store(text_of(name), None)
        parameters = node.child_by_field_name("parameters")
        single = node.child_by_field_name("parameter")
        if self._is_then(node):
            return
        for each in parameters.named_children if parameters is not None else [single]:
            if each is not None:
                self._bind(each, None)

    def _is_then(self, node: Node) -> bool:
        call = node.parent.parent if node.parent is not None else None
        function = call.child_by_field_name("function") if call is not None else None
        method = function.child_by_field_name("property") if function is not None else None
        return method is not None and text_of(method) == "then"

    def _import(self, node: Node) -> None:
        source = node.child_by_field_name("source")
        if source is None:
            return
        module = text_of(source)[1:-1]
        self.imports.append((module, node))
        for clause in node.named_children:
            if clause.type == "import_clause":
                self._clause(clause, module)

    def _clause(self, clause: Node, module: str) -> None:
        for each in clause.named_children:
            if each.type == "identifier":
                self._store(text_of(each), module)
            elif each.type == "namespace_import":
                self._store(text_of(each.named_children[-1]), module)
            elif each.type == "named_imports":
                for one in each.named_children:
                    name = one.child_by_field_name("name")
                    alias = one.child_by_field_name("alias") or name
                    if name is not None and alias is not None:
                        brought = text_of(name).strip("'\"")
                        full = module if brought == "default" else f"{module}.{brought}"
                        self._store(text_of(alias), full)

    def _bind(self, target: Node, value: Node | None) -> None:
        if target.type == "identifier":
            if value is not None:
                self.aliased.add(value.id)
            self._store(text_of(target), value)
        elif target.type == "object_pattern":
            for each in target.named_children:
                self._bind_property(each, value)
        elif target.type == "array_pattern":
            inner = value if value is not None and value.type == "array" else None
            given = inner.named_children if inner is not None else []
            for index, each in enumerate(target.named_children):
                self._bind(each, given[index] if index < len(given) else None)
        elif target.type in ("assignment_pattern", "rest_pattern"):
            inner_target = target.child_by_field_name("left") or target.named_children[0]
            self._bind(inner_target, None)

    def _bind_property(self, node: Node, value: Node | None) -> None:
        if node.type == "shorthand_property_identifier_pattern":
            self._store_member(text_of(node), text_of(node), value)
        elif node.type == "pair_pattern":
            key, target = node.child_by_field_name("key"), node.child_by_field_name("value")
            if key is not None and target is not None and target.type == "identifier":
                self._store_member(text_of(target), text_of(key).strip("'\""), value)
            elif target is not None:
                self._bind(target, None)
        elif node.type == "object_assignment_pattern":
            left = node.child_by_field_name("left")
            if left is not None:
                self._store_member(text_of(left), text_of(left), value)

    def _store_member(self, name: str, member: str, owner: Node | None) -> None:
        self._store(name, owner, member if owner is not None else "")

    def _store(self, name: str, value: Node | str | None, member: str = "") -> None:
        self.stores.setdefault(name, []).append(Store(value, member))

    _COLLECTED: ClassVar[dict[str, Any]] = {
        "call_expression": _call, "new_expression": _call, "variable_declarator": _declared,
        "assignment_expression": _assigned, "augmented_assignment_expression": _changed,
        "update_expression": _changed, "for_in_statement": _iterated,
        "import_statement": _import, "class_declaration": _function,
        "member_expression": _member, "subscript_expression": _member, "identifier": _member,
        **dict.fromkeys(FUNCTIONS, _function),
    }  # fmt: skip


def _first_parameter(function: Node) -> Node | None:
    single = function.child_by_field_name("parameter")
    parameters = function.child_by_field_name("parameters")
    if single is not None or parameters is None:
        return single
    return parameters.named_children[0] if parameters.named_children else None
