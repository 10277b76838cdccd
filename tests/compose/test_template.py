"""Templates do what the documentation of Handlebars says, escape what goes into HTML, and cannot run away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.compose.template import Template, TemplateLimits, compile_template
from smarthost.compose.template_tokens import TemplateFault

LIMITS = TemplateLimits()
PEOPLE = {"people": [{"name": "Ann"}, {"name": "Bob"}, {"name": "Cy"}], "team": "red"}


def rendered(source: str, variables: dict[str, Any], escape: bool = True) -> str:
    """Render a template that has no fault."""
    template = compile_template(source, escape, LIMITS)
    assert isinstance(template, Template), template
    text = template.render(variables)
    assert isinstance(text, str), text
    return text


def fault_of(source: str) -> TemplateFault:
    """Give the fault of a template that cannot be read."""
    fault = compile_template(source, True, LIMITS)
    assert isinstance(fault, TemplateFault)
    return fault


@pytest.mark.parametrize(
    ("source", "variables", "text"),
    [
        ("Hello {{name}}!", {"name": "Ann"}, "Hello Ann!"),
        ("{{ name }}", {"name": "Ann"}, "Ann"),
        ("{{a.b.c}} {{a/b/c}}", {"a": {"b": {"c": 1}}}, "1 1"),
        ("{{a.missing.c}}|{{missing}}|{{nothing}}", {"a": {}, "nothing": None}, "||"),
        ("{{foo-bar}} {{[foo bar]}} {{a.[b c].d}}", {"foo-bar": 1, "foo bar": 2, "a": {"b c": {"d": 3}}}, "1 2 3"),
        ("{{list.0}} {{list.[1]}} {{list.length}} {{word.length}}", {"list": [7, 8], "word": "abc"}, "7 8 2 3"),
        (
            "{{n}} {{f}} {{g}} {{yes}} {{no}} {{zero}}",
            {"n": 42, "f": 1.0, "g": 1.5, "yes": True, "no": False, "zero": 0},
            "42 1 1.5 true false 0",
        ),
        ("{{list}} {{thing}}", {"list": [1, None, "a"], "thing": {}}, "1,,a [object Object]"),
        ("{{this.name}} {{./name}}", {"name": "Ann"}, "Ann Ann"),
        ("{{lookup names key}}", {"names": {"a": "Ann"}, "key": "a"}, "Ann"),
        ("\\{{name}} \\\\{{name}}", {"name": "Ann"}, "{{name}} \\Ann"),
        ("a\\b {name} }} {", {}, "a\\b {name} }} {"),
        ("{{! a comment }}x{{!-- one with {{braces}} --}}y", {}, "xy"),
        ("{{@root.team}}", {"team": "red"}, "red"),
        ("", {}, ""),
    ],
)
def test_values_are_filled_in(source: str, variables: dict[str, Any], text: str) -> None:
    """Variables, dotted paths, members of lists, comments and escaped braces."""
    assert rendered(source, variables) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{v}}", "&amp;&lt;&gt;&quot;&#x27;&#x60;&#x3D;"),
        ("{{{v}}}", "&<>\"'`="),
        ("{{&v}}", "&<>\"'`="),
        ("{{{ v }}}", "&<>\"'`="),
    ],
)
def test_html_is_escaped(source: str, text: str) -> None:
    """The seven characters that Handlebars escapes, unless the template says that the value is HTML."""
    assert rendered(source, {"v": "&<>\"'`="}) == text
    assert rendered("{{v}}", {"v": "&<>\"'`="}, escape=False) == "&<>\"'`="
    assert rendered("{{#each v}}{{@key}}{{this}}{{/each}}", {"v": {"<b>": "<i>"}}) == "&lt;b&gt;&lt;i&gt;"


@pytest.mark.parametrize("value", [False, None, "", 0, [], "missing"])
def test_what_is_false_for_if(value: object) -> None:
    """false, null, "", 0 and an empty list, and what is not there."""
    variables = {} if value == "missing" else {"v": value}
    assert rendered("{{#if v}}yes{{else}}no{{/if}}{{#unless v}}!{{/unless}}", variables) == "no!"


@pytest.mark.parametrize("value", [True, 1, -1, "0", "x", [0], {}, {"a": 1}, 0.5])
def test_what_is_true_for_if(value: object) -> None:
    """Everything else, an empty object too."""
    assert rendered("{{#if v}}yes{{else}}no{{/if}}{{#unless v}}!{{/unless}}", {"v": value}) == "yes"


@pytest.mark.parametrize(
    ("source", "variables", "text"),
    [
        ("{{#if a}}A{{else if b}}B{{else if c}}C{{else}}D{{/if}}", {"b": 1}, "B"),
        ("{{#if a}}A{{else if b}}B{{else if c}}C{{else}}D{{/if}}", {"c": 1}, "C"),
        ("{{#if a}}A{{else if b}}B{{else if c}}C{{else}}D{{/if}}", {}, "D"),
        ("{{#if a}}A{{else unless b}}B{{/if}}!", {}, "B!"),
        ("{{#if a}}A{{^}}B{{/if}}", {}, "B"),
        ("{{^if a}}A{{else}}B{{/if}}{{^a}}C{{/a}}", {}, "AC"),
        ("{{#if zero includeZero=true}}A{{else}}B{{/if}}", {"zero": 0}, "A"),
        ("{{#if true}}A{{/if}}{{#if 0}}B{{/if}}{{#if 'x'}}C{{/if}}", {}, "AC"),
        ("{{#if a}}{{#if b}}AB{{else}}A{{/if}}{{/if}}", {"a": 1}, "A"),
    ],
)
def test_conditions(source: str, variables: dict[str, Any], text: str) -> None:
    """If, unless, else, chains of them, and nesting."""
    assert rendered(source, variables) == text


@pytest.mark.parametrize(
    ("source", "variables", "text"),
    [
        ("{{#each people}}{{@index}}{{name}} {{/each}}", PEOPLE, "0Ann 1Bob 2Cy "),
        (
            "{{#each people}}{{#if @first}}<{{/if}}{{name}}{{#if @last}}>{{else}},{{/if}}{{/each}}",
            PEOPLE,
            "<Ann,Bob,Cy>",
        ),
        ("{{#each people}}{{../team}}{{/each}}", PEOPLE, "redredred"),
        ("{{#each people}}{{#if name}}{{../team}}{{/if}}{{/each}}", PEOPLE, "redredred"),
        ("{{#each o}}{{@key}}={{this}};{{/each}}", {"o": {"a": 1, "b": 2}}, "a=1;b=2;"),
        ("{{#each l}}{{this}}{{.}}{{/each}}", {"l": ["a", "b"]}, "aabb"),
        ("{{#each l}}x{{else}}none{{/each}}", {"l": []}, "none"),
        ("{{#each l}}x{{else}}none{{/each}}", {}, "none"),
        ("{{#each l}}x{{else}}none{{/each}}", {"l": "text"}, "none"),
        (
            "{{#each l}}{{#each this}}{{@../index}}{{@index}} {{/each}}{{/each}}",
            {"l": [["a", "b"], ["c"]]},
            "00 01 10 ",
        ),
        (
            "{{#each a}}{{#each b}}{{../../c}}{{../n}}{{this}} {{/each}}{{/each}}",
            {"c": "C", "a": [{"n": "N", "b": [1, 2]}]},
            "CN1 CN2 ",
        ),
        ("{{#each people}}{{@root.team}}{{/each}}", PEOPLE, "redredred"),
        (
            "{{#with a}}{{b}}{{../c}}{{else}}none{{/with}}{{#with x}}{{else}}none{{/with}}",
            {"a": {"b": 1}, "c": 2},
            "12none",
        ),
        ("{{#people}}{{name}} {{/people}}{{^nobody}}nobody{{/nobody}}", PEOPLE, "Ann Bob Cy nobody"),
        ("{{#a}}{{b}}{{/a}}{{#yes}}{{a.b}}{{/yes}}{{#no}}!{{/no}}", {"a": {"b": 1}, "yes": True, "no": False}, "11"),
    ],
)
def test_loops_and_contexts(source: str, variables: dict[str, Any], text: str) -> None:
    """Each over lists and objects, its data, the contexts around it, with, and sections as Mustache has them."""
    assert rendered(source, variables) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (" {{~foo~}} ", "bar&lt;"),
        (" {{~foo}} ", "bar&lt; "),
        (" {{foo~}} ", " bar&lt;"),
        (" {{~&foo~}} ", "bar<"),
        (" {{~{foo}~}} ", "bar<"),
        (" \n {{~foo~}} \n ", "bar&lt;"),
        (" {{~#if foo~}} bar {{~/if~}} ", "bar"),
        (" {{#if foo~}} bar {{/if~}} ", " bar "),
        (" {{~#if foo}} bar {{~/if}} ", " bar "),
        (" {{#if foo}} bar {{/if}} ", "  bar  "),
        ("{{#if foo~}} bar {{~^~}} baz {{~/if}}", "bar"),
        ("{{#if foo}} bar {{^~}} baz {{/if}}", " bar "),
        ("{{#if not~}} bar {{~else~}} baz {{~/if}}", "baz"),
        (" {{~foo~}} {{foo}} {{foo}} ", "bar&lt;bar&lt; bar&lt; "),
        ("a {{~! c ~}} b {{~!-- d --~}} c", "abc"),
    ],
)
def test_tildes_take_white_space_away(source: str, text: str) -> None:
    """On the side where they stand, up to the next tag or other character, once."""
    assert rendered(source, {"foo": "bar<"}) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a\n{{#if yes}}\nb\n{{/if}}\nc\n", "a\nb\nc\n"),
        ("a\n  {{#if yes}}  \n  b\n  {{else}}\n  d\n  {{/if}}\nc", "a\n  b\nc"),
        ("{{#each list}}\r\n- {{this}}\r\n{{/each}}\r\nend", "- 1\r\n- 2\r\nend"),
        ("a\n{{! comment }}\nb", "a\nb"),
        ("{{#if no}}\na\n{{else if yes}}\nb\n{{/if}}\n", "b\n"),
        ("a {{#if yes}}\nb\n{{/if}} c", "a \nb\n c"),
        ("{{yes}}\n{{yes}}\n", "true\ntrue\n"),
        ("{{#if yes}}\n{{#if yes}}\na\n{{/if}}\n{{/if}}", "a\n"),
    ],
)
def test_lines_of_block_tags_alone_leave_nothing(source: str, text: str) -> None:
    """A line with nothing but a block tag or a comment is not in what is written."""
    assert rendered(source, {"yes": True, "list": [1, 2]}) == text


@pytest.mark.parametrize(
    ("source", "line", "column", "says"),
    [
        ("a\n b{{#if x}}", 2, 3, '"if" is not closed'),
        ("{{#if x}}{{/each}}", 1, 10, '"each" is closed where "if" is open'),
        ("{{/if}}", 1, 1, "was not open"),
        ("{{else}}", 1, 1, "no block"),
        ("{{#if x}}{{else}}{{else}}{{/if}}", 1, 18, "already"),
        ("{{name", 1, 1, "not closed"),
        ("{{! a", 1, 1, "comment is not closed"),
        ("{{}}", 1, 1, "empty"),
        ("{{{a}}", 1, 1, "}}}"),
        ("{{a}}}", 1, 4, "}}}"),
        ("{{#if}}{{/if}}", 1, 1, "one argument"),
        ("{{#each a b}}{{/each}}", 1, 1, "one argument"),
        ("{{upper name}}", 1, 3, 'no function "upper"'),
        ("{{#list a}}{{/list}}", 1, 1, 'no block "list"'),
        ("{{> header}}", 1, 1, "partials"),
        ("{{#if (eq a b)}}{{/if}}", 1, 7, "subexpressions"),
        ("{{#each a as |b|}}{{/each}}", 1, 14, "block parameters"),
        ("{{{{raw}}}}", 1, 1, "raw blocks"),
        ("{{a/../b}}", 1, 3, "not a path"),
        ("{{a.this}}", 1, 3, "not a path"),
        ("{{a..b}}", 1, 3, "not a path"),
        ("{{@wrong}}", 1, 3, "@index"),
        ("{{#if a b=}}{{/if}}", 1, 11, "no value"),
        ("{{#if 'a}}{{/if}}", 1, 7, "not expected"),
        ("{{#if a}}" * 60, 1, 451, "deeper than 50"),
    ],
)
def test_a_fault_of_syntax_has_its_place(source: str, line: int, column: int, says: str) -> None:
    """Line and column count from 1, and say where a person has to look."""
    fault = fault_of(source)
    assert (fault.line, fault.column) == (line, column)
    assert says in fault.message


def test_a_template_cannot_run_away() -> None:
    """Loops in loops, and lists that are written again and again, end with a fault instead of the relay's memory."""
    nested = compile_template("{{#each a}}{{#each ../a}}{{#each ../../a}}{{/each}}{{/each}}{{/each}}", True, LIMITS)
    assert isinstance(nested, Template)
    assert "too many steps" in str(nested.render({"a": list(range(1000))}))
    long = compile_template("{{#each a}}{{../a}}{{/each}}", True, LIMITS)
    assert isinstance(long, Template)
    assert "too long" in str(long.render({"a": list(range(10000))}))
    large = compile_template("x" * (LIMITS.source + 1), True, LIMITS)
    assert isinstance(large, TemplateFault) and "are allowed" in large.message


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["{{", "{{a ", "{{!", "{{{", "{{[", '{{a "', "\\{{", "\n \t", "{{~", "{{a=", "{{#if a}} {{/if}}"]
)
def test_a_template_made_to_be_slow_is_not(piece: str) -> None:
    """Whatever is opened and never closed, reading takes time in proportion to the length."""
    compile_template(piece * (200_000 // len(piece)), True, TemplateLimits(depth=10**9))


@given(st.text(alphabet="{}~#/^!&ab .[]=\"'\\\n@else", max_size=60))
def test_no_text_breaks_the_reader(source: str) -> None:
    """Any text is a template or a fault with its place, and renders within its limits."""
    template = compile_template(source, True, LIMITS)
    if isinstance(template, Template):
        assert isinstance(template.render({"a": [1], "b": {"a": "x"}}), str)
    else:
        assert template.line >= 1 and template.column >= 1


@given(st.text(max_size=40))
def test_no_value_gets_out_of_its_element(value: str) -> None:
    """What a recipient's variable says is never a tag, an entity or the end of an attribute."""
    text = rendered('<a href="{{v}}">', {"v": value})
    assert not set(text[9:-2]) & set("<>\"'`=")


def test_python_is_out_of_reach() -> None:
    """Names are looked up in objects, lists and texts as JSON has them, never as attributes."""
    assert rendered("{{a.__class__}}{{__class__}}{{a.append}}{{s.upper}}", {"a": [], "s": "x"}) == ""
