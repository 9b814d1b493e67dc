from pathlib import Path

from eva.reading import read_run
from eva.report import families


def test_each_round_with_children_shows_parents_with_their_own_children(
    three_runs: list[Path],
) -> None:
    run = read_run(three_runs[2])
    shown = families.generations(run, families.kin(run))
    assert [generation.round for generation in shown] == [1, 2, 3]
    for generation in shown:
        assert 0 < len(generation.families) <= families.PARENTS
        for family in generation.families:
            assert family.parent.info is not None and family.children
            assert all(child.by == "playground-rules" for child in family.children)


def test_a_refused_child_has_no_rewards_and_says_why(three_runs: list[Path]) -> None:
    run = read_run(three_runs[2])
    cards = [
        child
        for generation in families.generations(run, families.kin(run))
        for family in generation.families
        for child in family.children
    ]
    assert any(card.admitted and card.mean is not None for card in cards)
    assert all(card.mean is None for card in cards if card.flaw is not None)


def test_lines_of_descent_begin_at_given_prompts_and_count_all_below(
    three_runs: list[Path],
) -> None:
    run = read_run(three_runs[2])
    known = families.kin(run)
    roots = families.lineage(known)
    assert roots and roots == sorted(roots, key=lambda node: -node.descendants)
    given = [id for id in known.prompts if known.above(id) is None]
    born = len(known.prompts) - len(given)
    counted = sum(node.descendants for node in roots)
    assert counted <= born
    if len(roots) < families.ROOTS:
        assert counted == born


def test_a_family_shows_at_most_so_many_prompts(three_runs: list[Path]) -> None:
    run = read_run(three_runs[2])

    def size(node: families.Node) -> int:
        return 1 + sum(size(child) for child in node.children)

    sizes = [size(root) for root in families.lineage(families.kin(run))]
    assert max(sizes) <= families.NODES


def test_prompts_that_claim_to_be_their_own_ancestors_do_not_hang(three_runs: list[Path]) -> None:
    run = read_run(three_runs[2])
    first, second = run.rounds[2].born[:2]
    circle = (
        first.model_copy(update={"parent": second.id}),
        second.model_copy(update={"parent": first.id}),
    )
    rounds = (run.rounds[0].model_copy(update={"pool": circle}), *run.rounds[1:])
    looped = run.model_copy(update={"rounds": rounds})
    assert families.lineage(families.kin(looped))
