"""The work of a run, counted by hand: 100 prompts of 50 tokens, 4 responses of at most 200."""

import pytest

from tests.costs.plans import API, PROMPTS, RLOO, SCORER, WHOLE, worked

JUDGE = {"kind": "judge", "by": API, "sampling": {"temperature": 0.0, "max_tokens": 60}}
EVALUATE = {"sets": {"a": PROMPTS}, "samples": 3, "every": 2}


def asked(work, stage):
    return next(ask for ask in work.asks if ask.stage == stage)


def stages(work):
    return [ask.stage for ask in work.asks]


def test_the_policy_answers_the_pool_and_the_batch():
    work = worked()
    # Round 0 answers 100 prompts; rounds 1 and 2 the pool and the batch: 100 + 2 * 200.
    assert work.answered == 500
    answer = asked(work, "answer")
    assert (answer.calls, answer.written_most) == (2000, 2000 * 200)
    assert answer.written == 2000 * 100  # half of max_tokens
    assert answer.read == 500 * 50  # in this process a prompt is read once for its 4 responses


def test_a_mean_length_is_bounded_by_max_tokens():
    assert asked(worked(response=30.0), "answer").written == 2000 * 30
    assert asked(worked(response=900.0), "answer").written == 2000 * 200


def test_over_http_a_prompt_is_one_request_whatever_the_responses():
    assert asked(worked(policy={**API}), "answer").read == 500 * 50


def test_the_evolver_writes_four_children_of_a_quarter():
    work = worked()
    # Rounds 1 and 2: 25 parents, 4 children each.
    assert work.evolved == 200
    evolve = asked(work, "evolve")
    assert (evolve.calls, evolve.read) == (200, 200 * (300 + 50))
    assert (evolve.written, evolve.written_most) == (200 * 333, 200 * 666)
    assert evolve.who.kind == "hf"  # the policy itself


def test_self_instruct_reads_examples_and_another_model_may_write():
    creator = {"evolve": {"kind": "self_instruct", "by": API, "examples": 3, "children": 2}}
    evolve = asked(worked(creator=creator), "evolve")
    assert (evolve.calls, evolve.read) == (100, 100 * (300 + 3 * 50))
    assert evolve.who.model == "judge"


def test_a_judge_is_asked_about_each_child():
    gates = {"answerable": {"by": API, "sampling": {"max_tokens": 20}}}
    creator = {"evolve": {"kind": "evol_instruct", "by": API}, "gates": gates}
    gate = asked(worked(creator=creator), "answerable")
    assert (gate.calls, gate.read, gate.written_most) == (200, 200 * 350, 200 * 20)


@pytest.mark.parametrize(
    ("creator", "evolved", "answered"),
    [
        (None, 0, 300),
        ({"evolve": None}, 0, 300),
        ({"evolve": {"kind": "toy", "children": 2}}, 100, 500),
        ({"evolve": {"kind": "toy"}, "estimate": "last"}, 200, 300),
        ({"evolve": {"kind": "toy"}, "estimate": "last", "start": 0}, 300, 400),
        ({"evolve": {"kind": "toy"}, "start": 9}, 0, 300),
        ({"evolve": {"kind": "python", "call": "a:b"}}, None, 500),
    ],
)
def test_creators_differ(creator, evolved, answered):
    work = worked(creator=creator)
    assert (work.evolved, work.answered) == (evolved, answered)
    assert "evolve" not in stages(work)
    assert bool(work.unknown) == (evolved is None)


def test_a_classifier_reads_prompt_and_response():
    reward = asked(worked(), "reward")
    assert (reward.calls, reward.read, reward.read_most) == (2000, 2000 * 150, 2000 * 250)


def test_a_judge_of_points_is_asked_for_each_response_and_vote():
    reward = {**JUDGE, "votes": 3, "sampling": {"temperature": 1.0, "max_tokens": 60}}
    ask = asked(worked(reward=reward), "reward")
    assert (ask.calls, ask.read) == (6000, 6000 * (300 + 50 + 100))
    assert (ask.written, ask.written_most) == (6000 * 30, 6000 * 60)


def test_pairs_are_judged_in_both_orders():
    # 500 groups of 4: 12 ordered pairs each.
    ask = asked(worked(reward={**JUDGE, "mode": "pairs"}), "reward")
    assert (ask.calls, ask.read) == (6000, 6000 * (300 + 50 + 200))
    model = {"kind": "pairwise", "model": "org/pairs"}
    ask = asked(worked(reward=model), "reward")
    assert (ask.calls, ask.read) == (6000, 6000 * (50 + 200))
    assert asked(worked(reward={"kind": "pairwise", "call": "a:b"}), "reward").calls == 6000


@pytest.mark.parametrize(
    ("reward", "calls"),
    [
        ({"kind": "http", "urls": ["http://h"]}, 500),
        ({"kind": "python", "call": "a:b"}, 500),
        ({"kind": "rules", "call": "a:b"}, 2000),
    ],
)
def test_what_reads_no_tokens_is_counted_in_calls(reward, calls):
    ask = asked(worked(reward=reward), "reward")
    assert (ask.calls, ask.read) == (calls, 0.0)


def test_every_term_of_a_sum_is_asked_and_so_is_what_length_is_taken_off():
    terms = [{"reward": SCORER}, {"reward": {"kind": "length", "of": JUDGE, "penalty": 1.0}}]
    work = worked(reward={"kind": "sum", "terms": terms})
    assert stages(work).count("reward") == 2
    assert "reward" not in stages(worked(reward={"kind": "playground"}))


def test_held_out_prompts_are_answered_greedily_and_sampled():
    # 10 prompts at t = 0, 2 and 3; 1 + 3 responses.
    work = worked(held_out=10, evaluate={**EVALUATE, "monitor": {"reward": JUDGE}})
    assert work.held_out == 120
    assert asked(work, "evaluate").calls == 120
    assert asked(work, "evaluate: reward").calls == 120
    assert asked(work, "evaluate: monitor").calls == 120
    other = worked(held_out=10, evaluate={**EVALUATE, "reward": JUDGE})
    assert asked(other, "evaluate: reward").who.model == "judge"


def test_a_held_out_set_may_be_unknown():
    work = worked(held_out=None, evaluate=EVALUATE)
    assert work.held_out is None
    assert work.unknown == ("the size of a held-out set",)


def test_the_learner_passes_over_pairs_twice_and_the_reference_once():
    learning = worked().learning
    # 3 rounds, 100 pairs, 2 epochs, in batches of 64: ceil(200 / 64) = 4 steps.
    assert (learning.groups, learning.steps) == (600, 12)
    assert learning.trained == 600 * 2 * 150
    assert learning.trained_most == 600 * 2 * 250
    assert learning.scored == 300 * 2 * 150
    assert worked(learner={"kind": "simpo"}).learning.scored == 0


def test_steps_may_be_given_and_may_be_counted_in_tokens():
    steps = {"kind": "dpo", "epochs": None, "steps": 2, "batch": 10}
    learning = worked(learner=steps).learning
    assert (learning.groups, learning.steps) == (60, 6)
    assert learning.scored == 60 * 2 * 150  # no pair is seen twice
    tokens = worked(learner={**steps, "batch_tokens": 3000}).learning
    assert tokens.groups == 3 * 2 * 10  # a pair has 300 tokens


def test_without_an_evolver_the_parents_are_the_lessons():
    # 100 pairs in round 0, 25 in rounds 1 and 2.
    assert worked(creator={"evolve": None}).learning.groups == 2 * 150


STREAM = {"kind": "stream", "evolve": {"kind": "toy", "children": 4}, "warmup": 0, "mixup": 0}


def test_online_the_mini_batches_are_answered_and_learnt():
    work = worked(learner=RLOO, sampling=WHOLE, creator=STREAM)
    assert work.answered == 3 * 5 * 8
    # 14 mini-batches have 6 of 8 prompts evolved: ceil(0.25 * 6) = 2 parents, 4 children each.
    assert work.evolved == 14 * 2 * 4
    learning = work.learning
    assert (learning.groups, learning.steps) == (120, 15)
    assert learning.trained == 120 * 4 * 150
    assert learning.scored == 0


def test_reused_samples_and_a_reference_are_scored_again():
    learner = {**RLOO, "kl": 0.1, "reuse": 2}
    learning = worked(learner=learner, sampling=WHOLE, creator=None).learning
    assert (learning.groups, learning.steps) == (240, 30)
    assert learning.scored == 2 * 120 * 4 * 150
    pairs = {"kind": "online_dpo", "steps": 5, "batch": 8}
    learning = worked(learner=pairs, creator=None).learning
    assert learning.trained == 120 * 2 * 150
    assert learning.scored == 120 * 2 * 150


def test_a_strange_learner_is_not_counted_and_a_toy_does_nothing():
    work = worked(learner={"kind": "command", "run": ["x"]})
    assert work.learning is None
    assert work.unknown == ("the learner of kind 'command' is not eva's own",)
    toy = worked(policy={"kind": "toy"}, learner={"kind": "toy"}, reward={"kind": "toy"})
    assert toy.learning.groups == 0
    assert "answer" not in stages(toy)
