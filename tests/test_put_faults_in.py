"""Whether the faults still fit the code, without putting any in."""

from tools.faults import FAULTS
from tools.put_faults_in import README, anchor_problems


def test_code_and_tests_have_not_moved_away_from_under_the_faults():
    assert not anchor_problems(FAULTS)


def test_the_table_has_every_fault():
    table = README.read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if f"| {fault.area} | {fault.name} |" not in table] == []
