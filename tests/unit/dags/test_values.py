"""What a task refers to is bounded as a whole, however many its references."""

import pytest

from actors.dag.values import ValuesError, dag_input, needs_of, worked_out
from protocols.dags import DagTaskSpec, SubDag
from protocols.tasks import CommandTask

HALF = {"input": ["x" * 60_000, [0] * 60_000, [0] * 60_000]}


def test_what_all_references_of_a_task_cost():
    # Each is another text, and none is beyond what one may cost.
    texts = [f"input[1] == input[2] and {n} > 0" for n in range(1, 20)]
    argv = ("x", *(f"${{{{ {text} }}}}" for text in texts))
    one = DagTaskSpec(task_id="a", task=CommandTask(argv=argv[:3]))
    assert len(worked_out(one, needs_of(one), HALF, item=-1)["values"]) == 2
    many = DagTaskSpec(task_id="a", task=CommandTask(argv=argv))
    with pytest.raises(ValuesError, match="expression: this takes more than 1,000,000 steps"):
        worked_out(many, needs_of(many), HALF, item=-1)


def test_the_input_of_a_dag_within_a_dag_is_an_input():
    few = DagTaskSpec(task_id="a", dag=SubDag(dag_id="b", input=["${{ input[0] }}"]))
    assert len(dag_input(few, HALF) or b"") > 60_000
    many = DagTaskSpec(task_id="a", dag=SubDag(dag_id="b", input=["${{ input[0] }}"] * 5))
    with pytest.raises(ValuesError, match="input: more than 262144 bytes"):
        dag_input(many, HALF)
