"""Every small fault that is planted in a module: Cosmic Ray's operators, and a few of our own."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

import parso
from cosmic_ray.ast import ast_nodes, is_number
from cosmic_ray.operators.number_replacer import NumberReplacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.tree import search_ancestor


class Mutant(NamedTuple):
    """A fault by the text of its lines, which outlives that they move; `nth` tells equal ones apart."""

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
            earlier = [name for name in names_in(function) if name.start_pos < node.start_pos]
            return "pass" if node.children[0].value in {name.value for name in earlier} else None
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


def mutants(module: str, source: str) -> dict[Mutant, str]:
    """Return each mutant of a module with its source, in the order of the lines; those that say the same come once."""
    seen = {_meaning(source)}
    found: dict[Mutant, str] = {}
    times: Counter[tuple[str, str]] = Counter()
    for start, end, text in sorted(_edits(source)):
        mutated = source[:start] + text + source[end:]
        try:
            meaning = _meaning(mutated)
        except (SyntaxError, ValueError):
            continue
        if meaning in seen:
            continue
        seen.add(meaning)
        key = _changed_lines(source, mutated)
        times[key] += 1
        found[Mutant(module, *key, times[key])] = mutated
    return found


def names_in(function: Any) -> list[Any]:
    return [node for node in ast_nodes(function) if node.type == "name"]


def _changed_lines(source: str, mutated: str) -> tuple[str, str]:
    before, after = source.splitlines(), mutated.splitlines()
    same = _same(before, after)
    end = _same(before[same:][::-1], after[same:][::-1])
    before, after = before[same : len(before) - end], after[same : len(after) - end]
    return " ".join(" ".join(before).split()), " ".join(" ".join(after).split())


def _same(a: list[str], b: list[str]) -> int:
    """Return how many lines two texts begin with in common."""
    return next((number for number, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _edits(source: str) -> Iterator[tuple[int, int, str]]:
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))

    def at(position: tuple[int, int]) -> int:
        return offsets[position[0] - 1] + position[1]

    for node in ast_nodes(parso.parse(source)):
        if _says_nothing(node):
            continue
        for operator in OPERATORS:
            for index, _ in enumerate(operator.mutation_positions(node)):
                # Cosmic Ray's change what they are given: a copy, but not of the whole tree that a node hangs on.
                given = node
                if not isinstance(operator, _Replace):
                    given = copy.deepcopy(node, {id(node.parent): node.parent})
                changed = operator.mutate(given, index)
                text = "" if changed is None else changed.get_code(include_prefix=False).strip(" ")
                yield at(node.start_pos), at(node.end_pos), text


def _says_nothing(node: Any) -> bool:
    """Tell whether it is for type checkers, or the bare star of a signature, which is no multiplication."""
    if node.type == "if_stmt":
        return "TYPE_CHECKING" in node.children[1].get_code()
    if node.type == "decorator":
        return "overload" in node.get_code()
    return node == "*" and node.parent.type == "parameters"


def _meaning(source: str) -> object:
    """Return what can be told apart at run time, docstrings and annotations left out."""
    return _code(compile(_Bare().visit(ast.parse(source)), "", "exec", dont_inherit=True))


def _code(code: CodeType) -> object:
    constants = (_code(item) if isinstance(item, CodeType) else (type(item), repr(item)) for item in code.co_consts)
    return code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_exceptiontable, tuple(constants)


class _Bare(ast.NodeTransformer):
    def visit_FunctionDef(self, node: Any) -> Any:
        if any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
            return ast.Pass()
        node.returns = None
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: Any) -> Any:
        if any("Protocol" in ast.unparse(base) for base in node.bases):
            return ast.Pass()
        return self._without_docstring(node)

    def visit_arg(self, node: Any) -> Any:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: Any) -> Any:
        if ast.unparse(node.annotation) == "TypeAlias":
            return ast.Pass()
        node.annotation = ast.Constant("")
        return self.generic_visit(node)

    def visit_Assign(self, node: Any) -> Any:
        kinds = ("TypeVar(", "ParamSpec(")
        return ast.Pass() if ast.unparse(node.value).startswith(kinds) else self.generic_visit(node)

    def visit_If(self, node: Any) -> Any:
        return ast.Pass() if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Module(self, node: Any) -> Any:
        return ast.fix_missing_locations(self._without_docstring(node))

    def _without_docstring(self, node: Any) -> Any:
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)
