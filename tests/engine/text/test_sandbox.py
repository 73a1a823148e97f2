"""A template is a stranger's program: it ends, stays small, and reaches nothing."""

import contextlib
import threading
from datetime import date

import pytest
from jinja2.exceptions import SecurityError, TemplateError

from anyclaude.engine.text.sandbox import OutOfBounds, Sandbox, formatted_date, within

TOO_LARGE = {
    "product": "{{ 'ab' * 10 ** 9 }}",
    "list": "{{ [1] * 10 ** 9 }}",
    "number": "{{ 9 ** 9 ** 9 }}",
    "numbers": "{% set n = namespace(a=7) %}{% for i in range(9999) %}{% set n.a = n.a * n.a %}{% endfor %}",
    "sum": "{% set n = namespace(a='abcdefgh') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}{% endfor %}",
    "tilde": "{% set n = namespace(a='abcdefgh') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "replace": "{% set n = namespace(a='aaaa') %}{% for i in range(9) %}{% set n.a=n.a.replace('a',n.a) %}{% endfor %}",
    "filter": "{% set n = namespace(a='aaaa') %}{% for i in range(9) %}{% set n.a=n.a|replace('a', n.a) %}{% endfor %}",
    "join": "{% set x = 'ab' * 9999 %}{{ range(99999) | join(x) }}",
    "join method": "{% set x = 'ab' * 9999 %}{{ x.join(range(99999) | map('string')) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "percent star": "{{ '%*d' % (999999999, 1) }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 999999999) }}",
    "indent": "{{ 'a\n' | indent(999999999) }}",
    "tojson": "{{ [[1]] | tojson(indent=999999999) }}",
}
ESCAPES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ ('a'|map('attr', '__class__')|list)[0].mro() }}",
)


def run(source: str, **variables: object) -> str:
    sandbox = Sandbox()
    return within(5, lambda: sandbox.from_string(source).render(messages=[], **variables))


@pytest.mark.parametrize("way", TOO_LARGE)
def test_nothing_grows_without_bound(way: str) -> None:
    with pytest.raises(OutOfBounds):
        run(TOO_LARGE[way])


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_of_python_is_reached(source: str) -> None:
    with contextlib.suppress(SecurityError):
        assert run(source) == ""  # Jinja's own answer where nothing more is asked of what is forbidden


def test_a_template_that_does_not_end_is_stopped_and_leaves_nothing_behind() -> None:
    n_threads = threading.active_count()
    sandbox = Sandbox()
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(OutOfBounds, match=r"longer than 0.1 s"):
        within(0.1, lambda: sandbox.from_string(endless).render())
    assert sum(range(300_000)) > 0
    assert threading.active_count() <= n_threads + 1


def test_what_ends_in_time_is_not_interrupted() -> None:
    for _ in range(300):
        assert within(5, lambda: 5) == 5


def test_what_templates_need_is_there() -> None:
    source = (
        "{% set n = namespace(a='x') %}{% set n.a = n.a ~ 1 + '2' if false else n.a ~ 1 %}{{ n.a }}"
        "{% generation %}-{{ {'b': '<é>'} | tojson }}-{% endgeneration %}"
        "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
        "{{ 'a-b'.replace('-', '+') }}{{ ', '.join(['p', 'q']) }}{{ '%s!' % 'r' }}{{ 'a\nb' | indent(1) }}"
    )
    assert run(source) == 'x1-{"b": "<é>"}-1a+bp, qr!a\n b'


def test_signs_of_the_shield_stay_when_json_is_written_in_ascii() -> None:
    assert run("{{ x | tojson(ensure_ascii=true) }}", x="é\U000f0001") == '"\\u00e9\U000f0001"'


def test_a_template_can_say_why_it_refuses() -> None:
    with pytest.raises(TemplateError, match="only users"):
        run("{{ raise_exception('only users') }}")


def test_a_date_is_written_as_asked_and_never_wider() -> None:
    assert formatted_date(date(2026, 3, 1), "%d %b %Y") == "01 Mar 2026"
    for pattern in ("%999999999d", "%_9999d", "%d" * 1_000, 5):
        with pytest.raises(OutOfBounds):
            formatted_date(date(2026, 3, 1), pattern)
