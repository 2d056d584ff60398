"""Every function of every expression library, the errors of invalid expressions, and the cost limits."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from cumulet.kube.cel import (
    Budget,
    CelError,
    CompileError,
    CostLimitError,
    Environment,
    OutOfBudgetError,
    library,
    types,
)
from cumulet.kube.cel.functions import Library
from cumulet.kube.cel.library.authorizer import Authorizer
from cumulet.kube.cel.values import Value

#: Expressions that are true. Together they call every overload of every function.
HOLDS = """
1 + 2 == 3 && 1u + 2u == 3u && 1.5 + 1.0 == 2.5 && 'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && [1] + [2] == [1, 2]
duration('1h') + duration('1m') == duration('61m') && duration('1h') - duration('1m') == duration('59m')
timestamp('2020-01-01T00:00:00Z') + duration('1h') == timestamp('2020-01-01T01:00:00Z')
duration('1h') + timestamp('2020-01-01T00:00:00Z') == timestamp('2020-01-01T01:00:00Z')
timestamp('2020-01-01T01:00:00Z') - duration('1h') == timestamp('2020-01-01T00:00:00Z')
timestamp('2020-01-01T01:00:00Z') - timestamp('2020-01-01T00:00:00Z') == duration('1h')
3 - 1 == 2 && 3u - 1u == 2u && 3.0 - 1.5 == 1.5 && -(1) == 0 - 1 && -(1.5) == 0.0 - 1.5 && !false
2 * 3 == 6 && 2u * 3u == 6u && 2.0 * 3.0 == 6.0 && -7 / 2 == -3 && 7u / 2u == 3u && 1.0 / 2.0 == 0.5
-7 % 2 == -1 && 7u % 2u == 1u && 1 != 2 && (true ? 1 : 2) == 1
1 < 2 && 1u < 2u && 1.0 < 2.0 && 'a' < 'b' && b'a' < b'b' && false < true && duration('1s') < duration('2s')
1 <= 2 && 1u <= 2u && 1.0 <= 2.0 && 'a' <= 'b' && b'a' <= b'b' && false <= true && duration('1s') <= duration('2s')
2 > 1 && 2u > 1u && 2.0 > 1.0 && 'b' > 'a' && b'b' > b'a' && true > false && duration('2s') > duration('1s')
2 >= 1 && 2u >= 1u && 2.0 >= 1.0 && 'b' >= 'a' && b'b' >= b'a' && true >= false && duration('2s') >= duration('1s')
timestamp(1) < timestamp(2) && timestamp(1) <= timestamp(2) && timestamp(2) > timestamp(1) && timestamp(2) >= timestamp(1)
1 < 2u && 1 < 2.0 && 1u < 2 && 1u < 2.0 && 1.0 < 2 && 1.0 < 2u && 1 <= 2u && 1 <= 2.0 && 1u <= 2 && 1u <= 2.0 && 1.0 <= 2
1.0 <= 2u && 2 > 1u && 2 > 1.0 && 2u > 1 && 2u > 1.0 && 2.0 > 1 && 2.0 > 1u && 2 >= 1u && 2 >= 1.0 && 2u >= 1 && 2u >= 1.0
2.0 >= 1 && 2.0 >= 1u && [1, 2][1] == 2 && {'a': 1}['a'] == 1 && 1 in [1] && 'a' in {'a': 1} && !('b' in {'a': 1})
size('ab') == 2 && size(b'ab') == 2 && size([1]) == 1 && size({'a': 1}) == 1
'ab'.size() == 2 && b'ab'.size() == 2 && [1].size() == 1 && {'a': 1}.size() == 1
bool(true) && bool('true') && !bool('f') && bytes(b'a') == b'a' && bytes('a') == b'a' && dyn(1) == 1 && type(1) == int
double(1.5) == 1.5 && double(1) == 1.0 && double(1u) == 1.0 && double('1.5') == 1.5 && duration(duration('1s')) == duration('1s')
int(1) == 1 && int(1.9) == 1 && int(duration('1s')) == 1000000000 && int('-1') == -1 && int(1u) == 1
int(timestamp('2020-01-01T00:00:00Z')) == 1577836800
uint(1u) == 1u && uint(1.9) == 1u && uint(1) == 1u && uint('1') == 1u
string('a') == 'a' && string(true) == 'true' && string(b'a') == 'a' && string(1.5) == '1.5' && string(duration('90s')) == '90s'
string(1) == '1' && string(1u) == '1' && string(timestamp(0)) == '1970-01-01T00:00:00Z'
timestamp(timestamp(0)) == timestamp(0) && type(timestamp(0)) == google.protobuf.Timestamp
'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.matches('^a') && matches('abc', 'c$')
timestamp('2020-02-03T04:05:06.007Z').getFullYear() == 2020 && timestamp('2020-02-03T04:05:06Z').getMonth() == 1
timestamp('2020-02-03T04:05:06Z').getDayOfYear() == 33 && timestamp('2020-02-03T04:05:06Z').getDayOfMonth() == 2
timestamp('2020-02-03T04:05:06Z').getDate() == 3 && timestamp('2020-02-03T04:05:06Z').getDayOfWeek() == 1
timestamp('2020-02-03T04:05:06Z').getHours() == 4 && timestamp('2020-02-03T04:05:06Z').getMinutes() == 5
timestamp('2020-02-03T04:05:06.007Z').getSeconds() == 6 && timestamp('2020-02-03T04:05:06.007Z').getMilliseconds() == 7
timestamp('2020-12-31T23:00:00Z').getFullYear('02:00') == 2021 && timestamp('2020-01-31T23:00:00Z').getMonth('02:00') == 1
timestamp('2020-01-01T23:00:00Z').getDayOfYear('02:00') == 1 && timestamp('2020-01-01T23:00:00Z').getDayOfMonth('02:00') == 1
timestamp('2020-01-01T23:00:00Z').getDate('02:00') == 2 && timestamp('2020-01-01T23:00:00Z').getDayOfWeek('02:00') == 4
timestamp('2020-01-01T23:00:00Z').getHours('02:00') == 1 && timestamp('2020-01-01T23:00:00Z').getMinutes('00:30') == 30
timestamp('2020-01-01T23:00:01Z').getSeconds('UTC') == 1 && timestamp('2020-01-01T23:00:01Z').getMilliseconds('UTC') == 0
duration('1h30m').getHours() == 1 && duration('1h30m').getMinutes() == 90 && duration('2m').getSeconds() == 120
duration('1.5s').getMilliseconds() == 1500
optional.of(1).value() == 1 && optional.of(1).hasValue() && !optional.none().hasValue() && !optional.ofNonZeroValue(0).hasValue()
optional.none().or(optional.of(2)).value() == 2 && optional.none().orValue(3) == 3 && {'a': 1}.?a.orValue(0) == 1
{'a': {'b': 1}}.?a.?c.orValue(5) == 5 && [1][?3].orValue(7) == 7 && {'a': 1}[?'a'].value() == 1 && optional.of([1])[0].value() == 1
optional.of({'a': 1})['a'].value() == 1 && optional.of([1])[?0].value() == 1 && optional.of({'a': 1})[?'b'].orValue(9) == 9
optional.of(2).optMap(v, v * 2).value() == 4 && optional.of(2).optFlatMap(v, optional.of(v)).value() == 2
[1, ?optional.none()] == [1] && {'a': 1, ?'b': optional.none()} == {'a': 1}
optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(1)].unwrapOpt() == [1]
[1, 2].first().value() == 1 && [1, 2].last().value() == 2
'abc'.charAt(1) == 'b' && 'abcb'.indexOf('b') == 1 && 'abcb'.indexOf('b', 2) == 3 && 'abcb'.lastIndexOf('b') == 3
'abcb'.lastIndexOf('b', 2) == 1 && 'AbÀ'.lowerAscii() == 'abÀ' && 'Abà'.upperAscii() == 'ABà'
'a-a'.replace('a', 'b') == 'b-b' && 'a-a'.replace('a', 'b', 1) == 'b-a' && 'a,b,c'.split(',') == ['a', 'b', 'c']
'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.substring(1) == 'bc' && 'abc'.substring(0, 2) == 'ab' && ' a '.trim() == 'a'
'%s %d %.1f %x %X %b %o %e'.format(['a', 1, 2.5, 255, 'z', 5, 8, 1500.0]) == 'a 1 2.5 ff 7A 101 10 1.500000×10⁰³'
'%s'.format([[1, 'a']]) == '[1, "a"]' && strings.quote('a"b') == '"a\\\\"b"'
['a', 'b'].join() == 'ab' && ['a', 'b'].join('-') == 'a-b' && 'a1b22'.find('[0-9]+') == '1'
'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']
[1, 2].isSorted() && [1u].isSorted() && [1.0].isSorted() && [true].isSorted() && ['a'].isSorted() && [b'a'].isSorted()
[duration('1s')].isSorted() && [timestamp(1)].isSorted() && [duration('1s')].min() == duration('1s') && [timestamp(1)].min() == timestamp(1)
[2, 1].min() == 1 && [2u].min() == 2u && [2.0].min() == 2.0 && [true].min() && ['a'].min() == 'a' && [b'a'].min() == b'a'
[2, 1].max() == 2 && [2u].max() == 2u && [2.0].max() == 2.0 && [true].max() && ['a'].max() == 'a' && [b'a'].max() == b'a'
[duration('1s')].max() == duration('1s') && [timestamp(1)].max() == timestamp(1)
[1, 2].sum() == 3 && [1u].sum() == 1u && [1.5].sum() == 1.5 && [duration('1s'), duration('2s')].sum() == duration('3s')
[1, 2].indexOf(2) == 1 && [2, 1, 2].lastIndexOf(2) == 2 && [1, 2, 3].slice(1, 2) == [2] && [[1], [2]].flatten() == [1, 2]
[[1, [2]]].flatten(2) == [1, 2] && lists.range(3) == [0, 1, 2] && [1, 2].reverse() == [2, 1] && [1, 1].distinct() == [1]
[2, 1].sort() == [1, 2] && [2u].sort() == [2u] && [2.0].sort() == [2.0] && [true].sort() == [true] && ['a'].sort() == ['a']
[b'a'].sort() == [b'a'] && [duration('1s')].sort() == [duration('1s')] && [timestamp(1)].sort() == [timestamp(1)]
[1, 2].sortBy(i, -i) == [2, 1] && [1].sortBy(i, 1u) == [1] && [1].sortBy(i, 1.0) == [1] && [1].sortBy(i, true) == [1]
['b', 'a'].sortBy(i, i) == ['a', 'b'] && [1].sortBy(i, b'a') == [1] && [1].sortBy(i, duration('1s')) == [1]
[1].sortBy(i, timestamp(1)) == [1]
sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1], [1, 2])
[1, 2].all(i, i > 0) && [1].exists(i, i == 1) && [1, 2].exists_one(i, i == 1) && [1, 2].existsOne(i, i == 2)
[1, 2].map(i, i * 2) == [2, 4] && [1, 2].map(i, i > 1, i * 2) == [4] && [1, 2].filter(i, i > 1) == [2]
{'a': 1}.all(k, v, v == 1) && [5].exists(i, v, i == 0 && v == 5) && [5].existsOne(i, v, v == 5) && {'a': 1}.map(k, k) == ['a']
[5, 6].transformList(i, v, i + v) == [5, 7] && [5, 6].transformList(i, v, i > 0, v) == [6]
{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}
{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'} && {'a': 'b'}.transformMapEntry(k, v, k == 'x', {v: k}) == {}
ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('::ffff:1.2.3.4') && ip.isCanonical('::1') && ip('0.0.0.0').isUnspecified()
ip('127.0.0.1').isLoopback() && ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.0.1').isLinkLocalUnicast()
ip('10.0.0.1').isGlobalUnicast() && string(ip('::1')) == '::1' && !isIP('１２７.0.0.1')
cidr('10.0.0.0/8').containsIP('10.0.0.1') && cidr('10.0.0.0/8').containsIP(ip('10.0.0.1')) && isCIDR('10.0.0.0/8')
cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && !isCIDR('10.0.0.0/08')
cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && cidr('10.1.2.3/8').prefixLength() == 8 && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')
string(cidr('10.0.0.0/8')) == '10.0.0.0/8'
url('https://h:80/p?q=1').getScheme() == 'https' && url('https://h:80/p').getHost() == 'h:80' && url('https://[::1]:80/').getHostname() == '::1'
url('https://h:80/p').getPort() == '80' && url('https://h/a%20b').getEscapedPath() == '/a%20b' && isURL('/p') && !isURL('p')
url('https://h/?q=1').getQuery() == {'q': ['1']}
quantity('1Gi').isGreaterThan(quantity('1Mi')) && isQuantity('1k') && !isQuantity('x') && sign(quantity('-1')) == -1
quantity('1k').isInteger() && quantity('1k').asInteger() == 1000 && quantity('500m').asApproximateFloat() == 0.5
quantity('1').isLessThan(quantity('2')) && quantity('1').compareTo(quantity('1')) == 0
quantity('1').add(quantity('1')) == quantity('2') && quantity('1').add(1) == quantity('2')
quantity('2').sub(quantity('1')) == quantity('1') && quantity('2').sub(1) == quantity('1')
semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3 && semver('v1.0', true) == semver('1.0.0')
isSemver('1.0.0') && !isSemver('v1.0.0') && isSemver('v1.0.0', true) && semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1'))
semver('1.0.0-rc.2').isLessThan(semver('1.0.0-rc.10')) && semver('1.0.0').compareTo(semver('1.0.0')) == 0
!format.dns1123Label().validate('a-b').hasValue() && format.dns1123Label().validate('A').hasValue()
!format.dns1123Subdomain().validate('a.b').hasValue() && !format.dns1035Label().validate('a').hasValue()
!format.qualifiedName().validate('a.b/c').hasValue() && !format.dns1123LabelPrefix().validate('a-').hasValue()
!format.dns1123SubdomainPrefix().validate('a.b-').hasValue() && !format.dns1035LabelPrefix().validate('a-').hasValue()
!format.labelValue().validate('a').hasValue() && !format.uri().validate('http://h').hasValue() && format.uri().validate('h').hasValue()
!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.byte().validate('*').value() == ['invalid base64']
!format.date().validate('2020-02-29').hasValue() && format.date().validate('2021-02-29').hasValue()
!format.datetime().validate('2020-01-01T00:00:00Z').hasValue() && format.named('uuid').hasValue() && !format.named('x').hasValue()
authorizer.path('/healthz').check('get').allowed() && authorizer.group('').resource('pods').check('get').reason() == ''
authorizer.group('').resource('pods').subresource('log').namespace('n').name('p').check('get').error() == ''
!authorizer.group('').resource('pods').fieldSelector('a=b').labelSelector('a=b').check('get').errored()
authorizer.serviceAccount('n', 'a').path('/x').check('get').allowed()
jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'
""".strip().splitlines()
#: Overloads of operators and macros that only the checker uses.
_BY_INTERPRETER = frozenset(
    ("_&&_", "_||_", "_?_:_", "@not_strictly_false", "_[?_]", "or", "orValue", "cel.@mapInsert")
)


def counted(called: set[str]) -> Library:
    """Return the functions, which record their calls."""

    def noting(overload: Any) -> Any:
        key = f"{overload.function}({', '.join(map(str, overload.args))})"

        def call(*args: Any) -> Any:
            called.add(key)
            return overload.call(*args)

        return dataclasses.replace(overload, call=call)

    made = Library()
    made.functions = {name: [noting(item) for item in items] for name, items in library.MUTATING.functions.items()}
    return made


VARIABLES = {"authorizer": types.object_type(Authorizer.kind), "self": types.DYN}
VALUES = {"authorizer": Authorizer(lambda attributes, verb: verb == "get")}


@pytest.fixture(scope="module")
def functions() -> tuple[Library, set[str]]:
    """The functions, and the names of those that were called."""
    called: set[str] = set()
    return counted(called), called


@pytest.mark.parametrize("expression", HOLDS)
def test_valid_expressions(functions: tuple[Library, set[str]], expression: str) -> None:
    program = Environment(VARIABLES, functions[0]).compile(expression, types.BOOL)
    assert program.evaluate(VALUES, Budget()) is True


def test_every_overload_is_called(functions: tuple[Library, set[str]]) -> None:
    made, called = functions
    for expression in HOLDS:
        Environment(VARIABLES, made).compile(expression).evaluate(VALUES, Budget())
    every = {
        f"{overload.function}({', '.join(map(str, overload.args))})"
        for name, overloads in library.MUTATING.functions.items()
        if name not in _BY_INTERPRETER
        for overload in overloads
        if not (name == "_[_]" and overload.args[0].kind == "optional")
    }
    # The interpreter cannot distinguish lists by their elements, so one overload stands for all.
    missing = {item.partition("(list(")[0] if "(list(" in item else item for item in every - called}
    assert missing <= {item.partition("(list(")[0] for item in called if "(list(" in item}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("foo(1)", "undeclared reference to 'foo' (in container '')\n | foo(1)\n | ...^"),
        ("'a'.foo()", "undeclared reference to 'foo'"),
        ("bar", "undeclared reference to 'bar'"),
        ("contains('a', 'b')", "found no matching overload for 'contains' applied to '(string, string)'"),
        ("startsWith('a', 'b')", "found no matching overload for 'startsWith'"),
        ("endsWith('a', 'b')", "found no matching overload for 'endsWith'"),
        ("'a'.startsWith(1)", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("'a'.isIP()", "found no matching overload for 'isIP' applied to 'string.()'"),
        ("quantity('1').sign()", "found no matching overload for 'sign'"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("'a' == null", "found no matching overload for '_==_' applied to '(string, null)'"),
        ("(1).foo", "type 'int' does not support field selection"),
        ("1 +", "Syntax error: mismatched input '<EOF>'"),
        ("[1, 2", "Syntax error"),
        ("'a", "Syntax error"),
        ("'\\q'", "Syntax error"),
        ("9223372036854775808", "invalid int literal"),
        ("has(1)", "invalid argument to has() macro"),
        ("[1].all(1, true)", "argument must be a simple name"),
        ("[1].all(i, i, true)", "duplicate variable name: i"),
        ("[1].all(i, i)", "expected type 'bool' but found 'int'"),
        ("(1).all(i, true)", "expression of type 'int' cannot be range of a comprehension"),
        ("if", "reserved identifier: if"),
        ("cel.bind(x, 1, x)", "undeclared reference to 'cel'"),
        ("１ == 1", "token recognition error"),
        ("ſelf == 1", "token recognition error"),
        ("(" * 5000, "expression recursion limit exceeded"),
        ("-" * 5000 + "1 == 1 " + "+ 1" * 5000, "expression recursion limit exceeded"),
        ("!" * 99_999 + "true", "expression code point size exceeds limit"),
        ("self" + ".a" * 5000, "expression recursion limit exceeded"),
        ("[" * 5000, "expression recursion limit exceeded"),
        ("true ? true : " * 5000, "expression recursion limit exceeded"),
        ("0x" + "f" * 90_000 + " == 1", "invalid int literal"),
        ("1" * 90_000 + " == 1", "invalid int literal"),
    ],
)
def test_compile_errors(expression: str, why: str) -> None:
    with pytest.raises(CompileError) as raised:
        Environment(VARIABLES).compile(expression)
    assert why in str(raised.value)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("self.b", "no such key: b"),
        ("self.a.b", "no such overload"),
        ("self[?self.list]", "no such overload"),
        ("self[?self]", "no such overload"),
        ("self.list[3]", "index out of bounds: 3"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("int('１')", "invalid syntax"),
        ("double('1_0')", "invalid syntax"),
        ("self.a + 'x'", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("'%.999999999f'.format([1.0])", "error while parsing precision"),
        ("'%d'.format([1.0])", "decimal clause can only be used on integers"),
        ("'%s'.format([])", "index out of bounds"),
        ("'a'.matches('(')", "missing"),
        ("timestamp('2020-13-01T00:00:00Z')", "parsing time"),
        ("duration('1x')", "invalid duration"),
        ("quantity('x')", "quantities must match"),
        ("timestamp('2020-01-01T00:00:00Z').getHours('../../etc/passwd')", "unknown time zone"),
    ],
)
def test_evaluation_errors(expression: str, why: str) -> None:
    program = Environment(VARIABLES).compile(expression)
    with pytest.raises(CelError) as raised:
        program.evaluate({"self": {"a": 1, "list": [1]}}, Budget())
    assert why in str(raised.value)


@pytest.mark.parametrize(
    "expression",
    [
        "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))",
        "self.l.map(a, self.l.map(b, self.l.map(c, a))).size() > 0",
        "lists.range(1000000000000).size() > 0",
        "self.s.replace('', self.s).size() > 0",
        "self.l.map(a, self.l + self.l + self.l + self.l + self.l + self.l).size() > 0",
        "self.l.map(a, self.s + self.s).size() > 0",
        "self.l.all(a, self.s.matches('(a*)*b' + self.s))",
        "self.l.all(a, self.deep == self.other)",
        "sets.contains(self.l, self.l) && sets.equivalent(self.l, self.l) && self.l.all(a, sets.contains(self.l, self.l))",
        "self.l.all(a, self.l.map(b, b % 7).distinct().size() > 0)",
        "self.l.all(a, self.l.sort().size() > 0)",
        "self.l.all(a, '%s'.format([self.deep]) != '')",
        "self.l.transformMap(k, v, self.l.transformMap(l, w, self.l.transformList(m, x, x))).size() > 0",
        "self.l.all(a, !(a in self.l.map(b, b + 100000)))",
        "self.l.map(a, [self.s, self.s].join(self.s)).size() > 0",
        "self.l.all(a, self.deep.flatten(1000000).size() > 0)",
    ],
)
def test_an_evaluation_stops_at_its_cost_limit(expression: str) -> None:
    program = Environment(VARIABLES).compile(expression)
    deep: list[Value] = [[[index] * 50 for index in range(50)] for _ in range(50)]
    variables: dict[str, Value] = {
        "self": {"l": list(range(1000)), "s": "a" * 100_000, "deep": deep, "other": copy.deepcopy(deep)}
    }
    with pytest.raises(CostLimitError) as raised:
        program.evaluate(variables, Budget())
    assert str(raised.value) == "operation cancelled: actual cost limit exceeded"


def test_evaluations_share_a_budget() -> None:
    program = Environment(VARIABLES).compile("self.all(a, self.all(b, a + b >= 0))")
    budget = Budget(700_000)
    values: dict[str, Value] = {"self": list(range(250))}
    assert program.evaluate(values, budget) is True
    with pytest.raises(OutOfBudgetError) as raised:
        program.evaluate(values, budget)
    why = "validation failed due to running out of cost budget, no further validation rules will be run"
    assert str(raised.value) == why


def test_logic_ignores_errors_that_do_not_decide() -> None:
    for expression in (
        "true || 1 / 0 > 0",
        "1 / 0 > 0 || true",
        "!(false && 1 / 0 > 0)",
        "!(1 / 0 > 0 && false)",
        "[0, 1].exists(i, 1 / i > 0)",
        "![0, 2].all(i, 1 / i > 0)",
    ):
        assert Environment(VARIABLES).compile(expression).evaluate({}, Budget()) is True
