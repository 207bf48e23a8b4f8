"""What the comparison of other projects' suites rests on: reading results, finding differences."""

from pathlib import Path

from ops.conformance.outcomes import (
    Difference,
    Explanation,
    differences,
    explain,
    explanations,
    from_junit,
    from_tcl,
)
from ops.conformance.suites import SUITES

RUN = """\
[\x1b[0;32;49mok\x1b[0m]: SET and GET (3 ms)
[\x1b[0;32;49mok\x1b[0m]: MULTI (with a bracket) (0 ms)
[\x1b[0;31;49merr\x1b[0m]: CLIENT LIST in tests/unit/introspection.tcl
Expected 'id=*' to match ''
[\x1b[0;36;49mignore\x1b[0m]: SYNC: Tag: external:skip
[\x1b[0;32;49mok\x1b[0m]: SET and GET (1 ms)
"""
JUNIT = """<testsuites><testsuite>
<testcase classname="t.A" name="one"/>
<testcase classname="t.A" name="two"><failure/></testcase>
<testcase classname="t.A" name="three"><skipped/></testcase>
<testcase classname="t.A" name="four"><error/></testcase>
</testsuite></testsuites>"""


def test_redis_runner_is_read_line_by_line() -> None:
    assert from_tcl("u", RUN + "\n      The End\n") == {
        "u: SET and GET": "passed",
        "u: MULTI (with a bracket)": "passed",
        "u: CLIENT LIST": "failed",
        "u: SYNC: Tag: external:skip": "skipped",
        "u: SET and GET #2": "passed",
        "u: (the unit runs to its end)": "passed",
    }


def test_a_unit_that_breaks_off_is_seen() -> None:
    assert from_tcl("u", RUN)["u: (the unit runs to its end)"] == "failed"


def test_pytest_results_are_read(tmp_path: Path) -> None:
    results = tmp_path / "results.xml"
    assert from_junit(results) == {}
    results.write_text(JUNIT)
    assert from_junit(results) == {
        "t.A::one": "passed",
        "t.A::two": "failed",
        "t.A::three": "skipped",
        "t.A::four": "failed",
    }


def test_a_difference_is_any_other_result_and_no_result() -> None:
    found = differences(
        "s", {"a": "passed", "b": "failed", "c": "passed"}, {"a": "failed", "b": "failed"}
    )
    assert found == [
        Difference("s", "a", "passed", "failed"),
        Difference("s", "c", "passed", "not run"),
    ]


def test_an_explanation_holds_for_its_suites_and_tests_alone() -> None:
    listed = [Explanation("redis*", ("unit/introspection: CLIENT *",), "the pipe's")]
    test = "unit/introspection: CLIENT LIST"
    assert explain(Difference("redis-debug", test, "passed", "failed"), listed) == listed[0]
    assert explain(Difference("pymemcache", test, "passed", "failed"), listed) is None
    assert explain(Difference("redis", "unit/x: CLIENT LIST", "passed", "failed"), listed) is None


def test_every_explained_difference_names_a_suite_and_a_reason() -> None:
    names = {suite.name for suite in SUITES}
    for each in explanations():
        assert each.tests
        assert each.why
        assert any(explain(Difference(name, each.tests[0], "", ""), [each]) for name in names)
