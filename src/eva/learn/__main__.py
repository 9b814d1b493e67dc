"""One process of an update that a launcher started: ``torchrun ... -m eva.learn JOB.json``.

Every process runs the learner; the main one writes the resulting checkpoint for the eva that
waits.
"""

import logging
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from eva.jobs import OwnJob, leave, told
from eva.learn.trainer import make_learner
from eva.records import Rollout
from eva.store import read_records, write_records


def main(path: Path) -> None:
    """Do the job that a file describes."""
    logging.basicConfig(level=logging.INFO)
    job = OwnJob.model_validate_json(path.read_bytes())
    with told(path.parent):
        learner = make_learner(job.learner, job.policy)
        lessons = read_records(Path(job.rollouts), Rollout)
        checkpoint = learner(job.start, lessons, out=Path(job.out), seed=job.seed)
        if PartialState().is_main_process:
            write_records(Path(job.result), [checkpoint])
        if torch.distributed.is_initialized():
            torch.distributed.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
