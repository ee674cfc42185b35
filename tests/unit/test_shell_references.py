"""What a shell reads never holds a result: references are variables, or they are refused."""

import os
import re
import shutil
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
        # What stands in a comment is a bare word: nothing is filled in, were it none to some shell.
        ("# old: ${{ item }}", "# old: RUNTIME_REF_0"),
        ("echo a # sh -c '${{ item }}'", "echo a # sh -c 'RUNTIME_REF_0'"),
        # A `#` within a word begins no comment, whatever stands before it.
        ('echo $(date)#"${{ item }}"', 'echo $(date)#"${RUNTIME_REF_0}"'),
        ('echo $((1))#"${{ item }}"', 'echo $((1))#"${RUNTIME_REF_0}"'),
        ('echo \\ #"${{ item }}"', 'echo \\ #"${RUNTIME_REF_0}"'),
        ('echo a\\\n#"${{ item }}"', 'echo a\\\n#"${RUNTIME_REF_0}"'),
        ("(true)#'\necho ${{ item }}", '(true)#\'\necho "$RUNTIME_REF_0"'),
        ("case x in a) echo ${{ item }};; esac", 'case x in a) echo "$RUNTIME_REF_0";; esac'),
        ("eval x; echo ${{ item }}", 'eval x; echo "$RUNTIME_REF_0"'),
        ("sh -c x 2>&1 & echo ${{ item }}", 'sh -c x 2>&1 & echo "$RUNTIME_REF_0"'),
        ("[[ a == b ]] && echo ${{ item }}", '[[ a == b ]] && echo "$RUNTIME_REF_0"'),
        ("let=${{ item }} read x", 'let="$RUNTIME_REF_0" read x'),
        ("echo $((((1))+1)) ${{ item }}", 'echo $((((1))+1)) "$RUNTIME_REF_0"'),
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
        ("echo $(true)#x; eval ${{ item }}", "once more"),
        ('echo \\ #x; eval "${{ item }}"', "once more"),
        ('eval echo "a; echo ${{ item }}"', "once more"),
        ('eval 2>&1 "${{ item }}"', "once more"),
        ("sh -c 'echo '${{ item }}", "once more"),
        ('sh "-c" "${{ item }}"', "once more"),
        ('sh -c -e "${{ item }}"', "once more"),
        ('su --command="${{ item }}"', "once more"),
        ("alias x=${{ item }}", "once more"),
        ("[[\t1 -eq ${{ item }} ]]", "use [ ]"),
        ('[[ " ]]" -eq ${{ item }} ]]', "use [ ]"),
        ("echo $[ ${{ item }} ]", "work the value out"),
        ("echo $(( ((1)) + ${{ item }} ))", "work the value out"),
        ("a[${{ item }}]=1", "work the value out"),
        ("let x=${{ item }}", "variable's name"),
        ("x=1 read ${{ item }}", "variable's name"),
        ("if declare ${{ item }}; then true; fi", "variable's name"),
        ("printf -v ${{ item }} x", "variable's name"),
        ("echo >&${{ item }}", "after >&"),
        ('echo "$(case x in a) echo ${{ item }};; esac)"', "after a `case`"),
        ("echo ${x:-'}'} '\"' ${{ item }}", "after quotes"),
        ("echo $'a\\'' ${{ item }}", "after quotes"),
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
     "`", "$((", "))", "<<", "E", "[[ ", " ]]", "sh -c ", "eval ", "%s ", "$'", "${x:-", "$[", "]",
     "a[", "let ", "&", ">&2", "|", "\\\n", "\t", "x=", "$(", "((", "case x in a) ", ";; esac"]
)  # fmt: skip


SHELLS = ["/bin/sh", *filter(None, [shutil.which("bash")])]


def put_back(text: str, expressions: tuple[str, ...]) -> str:
    """What was written, without blanks, from what was made of it."""
    variable = r'"\$RUNTIME_REF_(\d+)"|\$\{RUNTIME_REF_(\d+)\}|RUNTIME_REF_(\d+)'
    whole = re.sub(
        variable, lambda found: f"${{{{{expressions[int(found[found.lastindex])]}}}}}", text
    )
    return "".join(whole.split())


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
    # Of all that was written nothing is lost, and this reference is the last one, or within it.
    assert put_back(text, expressions) == "".join(command.split())
    assert "item" in expressions[-1]
    value = "a[$(touch mark)] `touch mark` $(touch mark) '; touch mark; \" ; touch mark #\n"
    value += "touch mark\n"
    for shell in SHELLS:
        subprocess.run(
            [shell, "-c", text],
            env={"PATH": os.environ["PATH"]}
            | {f"RUNTIME_REF_{n}": value for n in range(len(expressions))},
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=20,
            check=False,
        )
        assert not mark.exists(), (shell, text)


def test_a_long_command_is_read_once():
    command = f"{'eval ' * 1400}; {'-c' * 1000}; {'echo ${{ item }};' * 500}"
    _, expressions = for_shell(command)
    assert len(expressions) == 500
