"""Where chat templates run: Jinja's immutable sandbox, with bounds on time and on how large any text can grow.

A template is part of a downloaded folder. It gets what transformers gives it and nothing more; what takes too long or
grows too large raises OutOfBounds.
"""

import ctypes
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, NoReturn, TypeVar, cast

from jinja2 import nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension
from jinja2.filters import do_indent, do_replace, sync_do_join
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

Value = TypeVar("Value")

MAX_CHARS = 64 << 20
_MAX_NUMBER = 1 << 256
_MAX_INDENT = 16
_SOON = 100_000  # steps of the interpreter, which looks for an interruption now and then
_WIDE = re.compile(r"\d{4}|\{[^{}]*\{|%[^a-zA-Z%]*\*")
_NOT_ASCII = re.compile("[\u0080-\U000effff]")  # what shields are made of stays
_UNBOUNDED_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill", "translate"})
_UNBOUNDED_FILTERS = ("batch", "center", "format", "pprint", "random", "slice", "urlize", "wordwrap", "xmlattr")


class Said(TemplateError):
    """The template called `raise_exception`."""


class OutOfBounds(Exception):
    """The template takes too long, or makes something too large."""


class _Interrupted(BaseException):
    """Thrown into the thread that renders; nothing in a template can catch it."""


def within(seconds: float, work: Callable[[], Value]) -> Value:
    """Raises OutOfBounds when `work` takes longer. Nothing of the interruption is left behind.

    An interruption that is on its way is waited for, not called off: CPython 3.11 would go on looking for it, for ever
    where a tracer runs.
    """
    lock, thread = threading.Lock(), threading.get_ident()
    is_done = is_thrown = False

    def interrupt() -> None:
        nonlocal is_thrown
        with lock:
            if not is_done:
                is_thrown = True
                _throw(thread, _Interrupted)

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    try:
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()
            with lock:
                is_done = True
            if is_thrown and not isinstance(sys.exception(), _Interrupted):
                for _ in range(_SOON):
                    pass
    except _Interrupted:
        raise OutOfBounds(f"takes longer than {seconds:g} s") from None


def _throw(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


class _BoundedCode(CodeGenerator):
    """`~` is the one operator that a sandbox cannot intercept."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 (Jinja's name)
        self.write("environment.concatenated((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _BoundedCode
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation])
        for name in _UNBOUNDED_FILTERS:
            del self.filters[name]
        self.filters |= {"indent": _indent, "replace": _replace, "join": _join, "tojson": _tojson}
        self.globals.pop("lipsum")
        self.globals |= {"raise_exception": _raise_exception, "dict": dict, "namespace": _Names}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            _check_power(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "+" and _length(left) + _length(right) > MAX_CHARS:
            raise OutOfBounds("makes a text that is too long")
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        return super().call_binop(context, operator, left, right)

    def concatenated(self, parts: Iterable[Any]) -> str:
        texts = [str(part) for part in parts]
        if sum(map(len, texts)) > MAX_CHARS:
            raise OutOfBounds("makes a text that is too long")
        return "".join(texts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _UNBOUNDED_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and args and (name := getattr(obj, "__name__", "")) in ("replace", "join"):
            args = (list(args[0]), *args[1:]) if name == "join" else args
            _check_growth(owner, name, *args[:2])
        return super().call(context, obj, *args, **kwargs)


class _Generation(Extension):
    """`{% generation %}` marks what training looks at; here it is what stands in it."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's name and type)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Names(Namespace):
    """No name in it may lead to Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # pyright: ignore[reportSelfClsParameterName]
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _check_name(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def formatted_date(day: date, pattern: object) -> str:
    """`strftime_now`. A width in the pattern would let it write a text of any length."""
    if not isinstance(pattern, str) or len(pattern) > 200 or re.search(r"%[^a-zA-Z%]*\d", pattern):
        raise OutOfBounds("asks for a date in a way that is not allowed")
    return day.strftime(pattern)


def _raise_exception(message: object = "") -> NoReturn:
    raise Said(str(message)[:300])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    width = None if indent is None else _narrow(indent)
    text = json.dumps(value, ensure_ascii=False, indent=width, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], text) if ensure_ascii else text


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    return do_indent(s, _narrow(width), first, blank)


@pass_eval_context
def _replace(eval_ctx: nodes.EvalContext, s: str, old: str, new: str, count: int | None = None) -> str:
    _check_growth(str(s), "replace", old, new)
    return do_replace(eval_ctx, s, old, new, count)


@pass_eval_context
def _join(eval_ctx: nodes.EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    items = list(value)
    _check_growth(str(d), "join", items)
    return sync_do_join(eval_ctx, items, d, attribute)


def _narrow(width: object) -> Any:
    if (isinstance(width, int) and width > _MAX_INDENT) or (isinstance(width, str) and len(width) > _MAX_INDENT):
        raise OutOfBounds("indents too far")
    return width


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace takes no name that begins with an underscore")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and right > 0 and left.bit_length() * right > 256:
        raise OutOfBounds("makes a number that is too large")


def _check_product(left: Any, right: Any) -> None:
    for times, other in ((left, right), (right, left)):
        if isinstance(times, int) and max(times, 0) * _length(other) > MAX_CHARS:
            raise OutOfBounds("makes a text that is too long")
    if isinstance(left, int) and isinstance(right, int) and abs(left * right) > _MAX_NUMBER:
        raise OutOfBounds("makes a number that is too large")


def _check_format(pattern: str) -> None:
    if _WIDE.search(pattern):
        raise OutOfBounds("writes a text of any width")


def _check_growth(owner: str, method: str, first: Any, second: Any = None) -> None:
    size = 0
    if method == "replace" and isinstance(first, str):
        size = len(owner) + owner.count(first) * _length(second)
    elif method == "join":
        size = sum(_length(item) + len(owner) for item in cast("Iterable[object]", first))
    if size > MAX_CHARS:
        raise OutOfBounds("makes a text that is too long")


def _length(value: Any) -> int:
    """In characters; an entry of a list counts as some."""
    if isinstance(value, list | tuple):
        return 8 * len(cast("list[object]", value))
    return len(value) if isinstance(value, str | bytes) else 0
