"""What is changed in a module: one small thing for each mutant, by its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_SWAPS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
}
#: What is no behaviour: types, and what a decorator makes of a class.
_LEFT_ALONE = {"annotation", "returns", "decorator_list"}
_NOTHING = "__import__('contextlib').nullcontext()"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change."""

    file: str
    line: int
    column: int
    last_line: int
    operator: str
    old: str
    new: str
    source: bytes

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column} {self.operator}: {self.old:.80}"
        return where if self.operator.startswith("argument") else f"{where} -> {self.new:.80}"


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    changes = [
        (node, operator, new)
        for outer in _walk(ast.parse(source))
        for node, operator, new in _changes(outer)
    ]
    for node, operator, new in sorted(changes, key=lambda change: change[0].lineno):
        end_line = node.end_lineno or node.lineno
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[end_line - 1] + (node.end_col_offset or 0)
        old = " ".join(source[start:end].decode().split())
        mutated = source[:start] + new.encode() + source[end:]
        yield Mutant(file, node.lineno, node.col_offset, end_line, operator, old, new, mutated)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.JoinedStr():  # prose
            return
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
            return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in _LEFT_ALONE:
                yield from _walk(child)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    match node:
        case ast.Compare():
            for at, before in enumerate(node.ops):
                for after in _SWAPS[type(before)]:
                    ops = [*node.ops[:at], after(), *node.ops[at + 1 :]]
                    yield node, "comparison", _text(node, ops=ops)
        case ast.BoolOp() | ast.BinOp() if type(node.op) in _SWAPS:
            yield node, type(node.op).__name__.lower(), _text(node, op=_SWAPS[type(node.op)][0]())
        case ast.BinOp(op=ast.BitOr()):
            yield node, "union", f"({ast.unparse(node.left)})"
            yield node, "union", f"({ast.unparse(node.right)})"
        case ast.UnaryOp(op=ast.Not()):
            yield node, "not", f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield node, "constant", str(not node.value)
        case ast.Constant(value=int() | float() as number):
            yield node, "constant", f"({number + 1})"
        case ast.Constant(value=str() as text) if text and " " not in text:
            yield node, "constant", repr(f"x{text}")
        case ast.Name(id="min" | "max"):
            yield node, "function", {"min": "max", "max": "min"}[node.id]
        case ast.Call():
            for dropped in node.keywords:
                if dropped.arg is not None:
                    kept = [keyword for keyword in node.keywords if keyword is not dropped]
                    yield node, f"argument {dropped.arg}", _text(node, keywords=kept)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Break() | ast.Continue() | ast.Delete():
            yield node, "statement", "pass"
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield node, "statement", "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, "return", "return None"
        case ast.ExceptHandler(type=ast.expr() as caught):
            yield caught, "except", "()"
            for one in caught.elts if isinstance(caught, ast.Tuple) else []:
                kept_types = [other for other in caught.elts if other is not one]  # type: ignore[attr-defined]
                yield caught, "except", _text(caught, elts=kept_types)
        case ast.withitem(optional_vars=None, context_expr=entered):
            yield entered, "with", _NOTHING
    test = getattr(node, "test", None)
    if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.BoolOp | ast.NamedExpr):
        yield test, "condition", f"(not ({ast.unparse(test)}))"


def _text(node: ast.expr, **changed: object) -> str:
    new = copy(node)
    for name, value in changed.items():
        setattr(new, name, value)
    return f"({ast.unparse(new)})"
