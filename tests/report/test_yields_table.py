"""The report's table of gates and operators."""

from eva.reading import read_run
from eva.report import measures
from eva.report.page import page


def test_the_table_of_gates_stands_on_the_page_and_adds_up(three_runs):
    made = measures.creation(read_run(three_runs[2]), 0)
    assert made is not None
    assert sum(row.written for row in made.yields) == made.written
    assert {row.method for row in made.yields} == set(made.methods)
    for row in made.yields:
        assert sum(row.refused.get(gate, 0) for gate in made.gates) == row.written - row.born
    html = page([three_runs[2]])
    table = html.partition("What the gates let through")[2].partition("</table>")[0]
    for row in made.yields:
        assert f'<td class="left">{row.method}</td>' in table
        assert f"<td>{row.written}</td>" in table
    assert all(f"<th>{gate}</th>" in table for gate in made.gates)
