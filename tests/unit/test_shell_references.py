"""What a shell reads never holds a result: references are variables, or they are refused."""

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.expressions import ExpressionError
from protocols.shell_references import for_shell


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("echo ${{ item }}", 'echo "$RUNTIME_REF_0"'),
        ("echo a${{ item }}b", 'echo a"$RUNTIME_REF_0"b'),
        ('echo "a ${{ item }} b"', 'echo "a ${RUNTIME_REF_0} b"'),
        ("echo 'it' ${{ item }} \"x\" ${{ run.id }}", None),
        ('x="$(cat ${{ item }})"', 'x="$(cat "$RUNTIME_REF_0")"'),
        ('x="$(cat "${{ item }}")"', 'x="$(cat "${RUNTIME_REF_0}")"'),
        ("# don't\necho ${{ item }}", '# don\'t\necho "$RUNTIME_REF_0"'),
        ('echo "#" ${{ item }}', 'echo "#" "$RUNTIME_REF_0"'),
        ("echo \\' ${{ item }}", 'echo \\\' "$RUNTIME_REF_0"'),
        ("(cd /tmp; cat ${{ item }})", '(cd /tmp; cat "$RUNTIME_REF_0")'),
        ("sh -c 'echo \"$1\"' sh ${{ item }}", 'sh -c \'echo "$1"\' sh "$RUNTIME_REF_0"'),
        ("cat <<< x ${{ item }}", 'cat <<< x "$RUNTIME_REF_0"'),
        ("[ ${{ item }} = x ]", '[ "$RUNTIME_REF_0" = x ]'),
        ("medieval ${{ item }}", 'medieval "$RUNTIME_REF_0"'),
    ],
)
def test_a_reference_is_a_quoted_variable(command, text):
    found, expressions = for_shell(command)
    assert text is None or found == text
    assert expressions[0] == "item"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo '${{ item }}'", "single quotes"),
        ("echo `cat ${{ item }}`", "backquotes"),
        ('echo "`cat ${{ item }}`"', "backquotes"),
        ("echo $((1 + ${{ item }}))", "work the value out"),
        ("(( x = ${{ item }} ))", "work the value out"),
        ('echo "$(( ${{ item }} ))"', "work the value out"),
        ("echo ${x:-${{ item }}}", "cannot stand in ${...}"),
        ("[[ ${{ item }} -eq 1 ]]", "use [ ]"),
        ("cat <<END\n${{ item }}\nEND", "after <<"),
        ('sh -c "echo ${{ item }}"', "once more"),
        ("bash -ec ${{ item }}", "once more"),
        ('eval "x=${{ item }}"', "once more"),
        ("eval x ${{ item }}", "once more"),
        ('ls; eval "$cmd" "${{ item }}"', "once more"),
        ('sh -c "a \\"b\\" ${{ item }}"', "once more"),
        ("echo \\${{ item }}", "backslash"),
        ("echo ${{ item", "has no"),
    ],
)
def test_where_none_can_stand(command, said):
    with pytest.raises(ExpressionError, match=r"a reference cannot|backslash|has no") as caught:
        for_shell(command)
    assert said in str(caught.value)


def test_what_is_no_reference_stays_as_it_is():
    text = "echo '$x' `a` $((1)) <<E \\' ${x} }}"
    assert for_shell(text) == (text, ())


HARMLESS = st.sampled_from(
    ["echo ", '"', "'", " ", "$(printf %s ", ")", "a", "\\", "#", "\n", ";", "(", "${", "}", "{",
     "`", "$((", "))", "<<", "E", "[[ ", " ]]", "sh -c ", "eval ", "%s "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(HARMLESS, max_size=10), st.lists(HARMLESS, max_size=6))
def test_no_value_is_ever_run_by_a_real_shell(tmp_path_factory, before, after):
    folder = tmp_path_factory.getbasetemp()
    mark = folder / "mark"
    command = "".join(before) + "${{ item }}" + "".join(after)
    try:
        text, expressions = for_shell(command)
    except ExpressionError:
        return
    if "${{" not in "".join(before):
        assert expressions == ("item",)
    value = "a[$(touch mark)] `touch mark` $(touch mark) '; touch mark; \" ; touch mark #\n"
    value += "touch mark\n"
    subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": os.environ["PATH"], "RUNTIME_REF_0": value},
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )
    assert not mark.exists(), text
