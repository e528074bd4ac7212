"""The small faults that are planted in a module: by operators of Cosmic Ray, and by a few of our own."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, islice
from types import CodeType
from typing import Any, NamedTuple

import parso
from cosmic_ray.ast import ast_nodes, is_number
from cosmic_ray.operators.number_replacer import NumberReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.tree import search_ancestor


class Fault(NamedTuple):
    """A fault by the text of its lines, which stays when they move; `nth` tells equal ones apart."""

    module: str
    before: str
    after: str
    nth: int = 1

    def __str__(self) -> str:
        nth = f"#{self.nth}" if self.nth > 1 else ""
        return f"{self.module}{nth}: {self.before}  =>  {self.after}"


class _Replace(Operator):
    """Replace whole nodes: `replacement` gives the new text of one, or None."""

    def replacement(self, node: Any) -> str | None:
        raise NotImplementedError

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if self.replacement(node) is not None:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse(self.replacement(node))

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DeleteStatement(_Replace):
    """Leave out a call, a `raise`, a `del` or an assignment in a function, unless a name would be without a value."""

    def replacement(self, node: Any) -> str | None:
        function = search_ancestor(node, "funcdef")
        if function is None or node.parent.type != "simple_stmt":
            return None
        if node.type == "expr_stmt" and node.children[0].type == "name":
            earlier = {
                each.value for each in ast_nodes(function) if each.type == "name" and each.start_pos < node.start_pos
            }
            return "pass" if node.children[0].value in earlier else None
        if node.type == "expr_stmt" and "=" not in node.get_code():
            return None  # the declaration of an attribute
        deletable = node.type in {"expr_stmt", "raise_stmt", "del_stmt", "atom_expr"} or node == "raise"
        return "pass" if deletable else None


class ChangeNumber(NumberReplacer):
    """Cosmic Ray's, but that 0 and floats are only made larger."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        positions = super().mutation_positions(node)
        return positions if is_number(node) and node.value.isdigit() and node.value != "0" else islice(positions, 1)


class ReturnNone(_Replace):
    """Return None instead of a value."""

    def replacement(self, node: Any) -> str | None:
        if node.type != "return_stmt" or node.children[1].get_code().strip() in {"None", "False"}:
            return None  # False, turned round by another operator, tells more
        return "return None"


class SwapName(_Replace):
    """Swap what is easily taken for the other."""

    SWAPS = ("min", "max"), ("any", "all"), ("Exception", "BaseException")
    OTHER = dict(SWAPS) | {b: a for a, b in SWAPS}

    def replacement(self, node: Any) -> str | None:
        if node.type != "name" or node.get_next_leaf() == ".":  # the attributes of the two exceptions are the same
            return None
        return self.OTHER.get(node.value)


class SwapIn(_Replace):
    """Turn `in` and `not in` round."""

    def replacement(self, node: Any) -> str | None:
        if node.type != "comparison" or len(node.children) != 3:
            return None
        left, operator, right = (child.get_code().strip() for child in node.children)
        if operator == "in":
            return f"{left} not in {right}"
        return f"{left} in {right}" if operator.split() == ["not", "in"] else None


class DropArgument(_Replace):
    """Leave a keyword argument of a call out."""

    def replacement(self, node: Any) -> str | None:
        if node.type == "argument" and node.children[1] == "=":
            return ""
        return None


OPERATORS: tuple[Operator, ...] = (
    DeleteStatement(),
    ReturnNone(),
    SwapName(),
    SwapIn(),
    DropArgument(),
    ChangeNumber(),
    *(
        get_operator(f"core/{name}")()
        for name in (
            "ReplaceComparisonOperator_Lt_LtE",
            "ReplaceComparisonOperator_LtE_Lt",
            "ReplaceComparisonOperator_Gt_GtE",
            "ReplaceComparisonOperator_GtE_Gt",
            "ReplaceComparisonOperator_Eq_NotEq",
            "ReplaceComparisonOperator_NotEq_Eq",
            "ReplaceComparisonOperator_Is_IsNot",
            "ReplaceComparisonOperator_IsNot_Is",
            "AddNot",
            "ReplaceAndWithOr",
            "ReplaceOrWithAnd",
            "ReplaceTrueWithFalse",
            "ReplaceFalseWithTrue",
            "ReplaceUnaryOperator_Delete_Not",
            "ReplaceUnaryOperator_Delete_USub",
            "ReplaceBinaryOperator_Add_Sub",
            "ReplaceBinaryOperator_Sub_Add",
            "ReplaceBinaryOperator_Mul_Div",
            "ReplaceBinaryOperator_Div_Mul",
            "ReplaceBinaryOperator_FloorDiv_Mul",
            "ReplaceBinaryOperator_Mod_Mul",
            "ReplaceBinaryOperator_Pow_Mul",
            "ReplaceBinaryOperator_BitOr_BitAnd",
            "ReplaceBinaryOperator_BitAnd_BitOr",
            "RemoveDecorator",
            "ReplaceBreakWithContinue",
            "ReplaceContinueWithBreak",
            "ZeroIterationForLoop",
        )
    ),
)


def faults(module: str, source: str) -> dict[Fault, str]:
    """Return each fault of a module with the source that has it, in the order of the lines, equal ones once."""
    seen = {_compiled(source)}
    found: dict[Fault, str] = {}
    times: Counter[tuple[str, str]] = Counter()
    for start, end, text in sorted(_edits(source)):
        faulty = source[:start] + text + source[end:]
        try:
            compiled = _compiled(faulty)
        except (SyntaxError, ValueError):
            continue
        if compiled not in seen:
            seen.add(compiled)
            lines = _changed_lines(source, faulty)
            times[lines] += 1
            found[Fault(module, *lines, times[lines])] = faulty
    return found


def _edits(source: str) -> Iterator[tuple[int, int, str]]:
    offsets = [0, *accumulate(map(len, source.splitlines(keepends=True)))]

    def at(position: tuple[int, int]) -> int:
        return offsets[position[0] - 1] + position[1]

    for node in _what_runs(parso.parse(source)):
        for operator in OPERATORS:
            for index, _ in enumerate(operator.mutation_positions(node)):
                # Cosmic Ray's change what they are given: a copy, but not of the whole tree that a node hangs on.
                given = node
                if not isinstance(operator, _Replace):
                    given = copy.deepcopy(node, {id(node.parent): node.parent})
                changed = operator.mutate(given, index)
                text = "" if changed is None else changed.get_code(include_prefix=False).strip(" ")
                yield at(node.start_pos), at(node.end_pos), text


FOR_TYPE_CHECKERS = {
    "if_stmt": "if TYPE_CHECKING",
    "decorated": "@overload",
    "classdef": "Protocol",
    "expr_stmt": ": TypeAlias",
}


def _what_runs(node: Any) -> Iterator[Any]:
    """Give a node and all below it, but for annotations and what else is for type checkers alone."""
    first_line = node.get_code(include_prefix=False).partition("\n")[0]
    if FOR_TYPE_CHECKERS.get(node.type, "\n") in first_line or "TypeVar(" in first_line or "ParamSpec(" in first_line:
        if node.type != "file_input":
            return
    yield node
    place = {"annassign": 1, "tfpdef": 2}.get(node.type)
    annotation = node.children[place] if place else getattr(node, "annotation", None)
    bare_star = node.type == "parameters" and "*"
    for child in getattr(node, "children", ()):
        if child is not annotation and child != bare_star:
            yield from _what_runs(child)


def _compiled(source: str) -> object:
    """Return what can be told apart at run time; docstrings and assertions are left out."""
    return _parts(compile(source, "", "exec", dont_inherit=True, optimize=2))


def _parts(code: CodeType) -> object:
    constants = (_parts(item) if isinstance(item, CodeType) else (type(item), repr(item)) for item in code.co_consts)
    return code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_exceptiontable, tuple(constants)


def _changed_lines(source: str, faulty: str) -> tuple[str, str]:
    before, after = source.splitlines(), faulty.splitlines()
    same = _same(before, after)
    end = _same(before[same:][::-1], after[same:][::-1])
    before, after = before[same : len(before) - end], after[same : len(after) - end]
    return " ".join(" ".join(before).split()), " ".join(" ".join(after).split())


def _same(a: list[str], b: list[str]) -> int:
    """Return how many lines two texts begin with in common."""
    return next((number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
