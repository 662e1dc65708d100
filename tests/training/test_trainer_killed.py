"""A training that is killed at every single moment at which it changes the disk, and goes on."""

import os
import shutil

import pytest
from small_training import same_state
from test_training_options import validated

from emulator.model import checkpoint
from emulator.training.log import Journal

OPERATIONS = [(os, "rename"), (os, "replace"), (os, "fsync"), (os, "rmdir"), (os, "unlink"), (shutil, "rmtree")]


class Killed(BaseException):
    """What ends a run at once; not an error, so that nothing cleans up after it."""


class Killer:
    """Lets so many operations on the disk pass and kills at the next one, of which half is done where it has halves."""

    def __init__(self, monkeypatch, survived: int):
        self.left, self.happened = survived, ""
        for module, name in OPERATIONS:
            monkeypatch.setattr(module, name, self.watched(getattr(module, name), name))
        monkeypatch.setattr(checkpoint, "save_file", self.watched(checkpoint.save_file, "save_file", self.half_a_file))
        monkeypatch.setattr(Journal, "add", self.watched(Journal.add, "add", self.half_a_row))

    def watched(self, operation, name, half=lambda *arguments: None):
        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                self.happened = self.happened or name
                half(*arguments)
                raise Killed(name)
            return operation(*arguments, **options)

        return call

    @staticmethod
    def half_a_file(tensors, path):
        path.write_bytes(b"half a file")

    @staticmethod
    def half_a_row(journal, name, row):
        with open(journal.directory / name, "a") as stream:
            stream.write('{"update": 1, "lo')


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_change_of_the_disk_a_training_ends_with_the_same_bits(planet, tmp_path, monkeypatch):
    """Killed at the n-th operation, started again and killed at the n-th of that one, then on to the end; for every n."""
    straight, happened = tmp_path / "straight", set()
    validated(planet, straight).run()
    for survived in range(10**6):
        folder, ended = tmp_path / "killed", False
        for _ in range(2):
            with monkeypatch.context() as patched:
                killer = Killer(patched, survived)
                try:
                    validated(planet, folder).run()
                    ended = True
                except Killed:
                    happened.add(killer.happened)
        validated(planet, folder).run()
        same_state(folder, straight)
        assert (folder / "validation.jsonl").read_bytes() == (straight / "validation.jsonl").read_bytes()
        best = [checkpoint.numbered(place, "best") for place in (folder, straight)]
        assert [path.name for path in best[0]] == [path.name for path in best[1]]
        assert not list(folder.glob(".*")), "something half-written stayed"
        shutil.rmtree(folder)
        if ended:
            break
    assert happened >= {"rename", "replace", "fsync", "rmtree", "save_file", "add"} and survived > 50
