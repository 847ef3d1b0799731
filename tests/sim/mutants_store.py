"""Planted bugs in what stays: journal, segments, checkpoint, recovery."""

from __future__ import annotations

from typing import Final

from mutation import Edit, Mutation

_SYNC_FILES = """        for path in self.files:
            self._unless_deleted(path, lambda path: sync_path(self._disk, path))
"""
_REPLACE = "        replace_file(self._disk, join(self._root, CHECKPOINT), content)\n"

STORE_MUTATIONS: Final = (
    Mutation(
        "journal not synced",
        "what was reported as synced survives a power cut",
        [Edit("store/jobs.py", "            file.fdatasync()\n", "            pass\n")],
    ),
    Mutation(
        "sync of one journal file after a switch",
        "a sync covers everything that was written before it began",
        [Edit("store/journal.py", "[self._slots[slot].file for slot in self._unsynced]", "[self._slots[self._active].file]")],
    ),
    Mutation(
        "sync covers what came after it began",
        "only what was written before a sync began is durable by it",
        [
            Edit("store/store.py", "                log.synced_end = end\n", "                end = log.synced_end = log.log_end\n"),
        ],
    ),
    Mutation(
        "failed sync ignored",
        "after a failed sync nothing is acknowledged",
        [
            Edit(
                "store/store.py",
                """            self._go_offline(f"the journal could not be synced: {error.strerror or error}")\n""",
                "            pass\n",
            )
        ],
    ),
    Mutation(
        "failed sync tried again",
        "after a failed sync nobody knows what is on disk; a second one that succeeds proves nothing",
        [
            Edit(
                "store/jobs.py",
                "            file.fdatasync()\n",
                "            try:\n                file.fdatasync()\n            except OSError:\n                file.fdatasync()\n",
            )
        ],
    ),
    Mutation(
        "failed sync of a segment ignored",
        "a checkpoint counts only when every segment was synced",
        [
            Edit(
                "store/files.py",
                "    except OSError as error:\n        raise _unsynced(path, error) from error\n    finally:",
                "    except OSError:\n        pass\n    finally:",
            )
        ],
    ),
    Mutation(
        "checkpoint before the segments are synced",
        "what the checkpoint speaks of is on disk",
        [Edit("store/jobs.py", _SYNC_FILES, ""), Edit("store/jobs.py", _REPLACE, _REPLACE + _SYNC_FILES)],
    ),
    Mutation(
        "segments not synced by a checkpoint",
        "what the checkpoint speaks of is on disk",
        [Edit("store/jobs.py", _SYNC_FILES, "")],
    ),
    Mutation(
        "recovery does not sync what it wrote again",
        "what recovery keeps is synced before it counts",
        [Edit("store/recovery.py", "            files=volume.dirty,\n", "            files={},\n")],
    ),
    Mutation(
        "journal recycled although the checkpoint failed",
        "a journal file is used again only after a checkpoint that covers it",
        [Edit("store/journal.py", "        if not self._slots[other].is_live and ", "        if ")],
    ),
    Mutation(
        "journal recycled before the checkpoint",
        "the journal is freed by a checkpoint on disk, not by one under way",
        [
            Edit(
                "store/journal.py", "            self._active = other\n            self._begin_life()\n", "            self._begin_life()\n"
            )
        ],
    ),
    Mutation(
        "journal entries claim that those before them are synced",
        "an entry that recovery calls lost was acknowledged",
        [Edit("store/journal.py", "            synced=self.synced,\n", "            synced=self.next_sequence - 1,\n")],
    ),
    Mutation(
        "journal entries not checked",
        "a torn journal tail is cut",
        [Edit("store/formats.py", "crc) == header.crc\n", "crc) == header.crc or True\n")],
    ),
    Mutation(
        "checkpoint not synced before its rename",
        "a small file is replaced whole or not at all",
        [
            Edit(
                "store/files.py",
                "        write_all(file, (content,), 0)\n        file.fdatasync()\n",
                "        write_all(file, (content,), 0)\n",
            )
        ],
    ),
    Mutation(
        "rename of the checkpoint not synced",
        "a checkpoint is on disk before the journal is freed",
        [Edit("store/files.py", "    disk.sync_directory(parent(path))\n", "")],
    ),
    Mutation(
        "name of a new segment not synced",
        "a synced record's file is found again",
        [
            Edit(
                "store/partition_log.py",
                "        self.volume.disk.mkdir(self.directory)\n        self._made(path)\n",
                "        self.volume.disk.mkdir(self.directory)\n",
            )
        ],
    ),
    Mutation(
        "names of new directories not synced",
        "a synced record's file is found again",
        [
            Edit(
                "store/volume.py",
                "            if directory == up_to:\n                break\n",
                "            break\n",
            )
        ],
    ),
    Mutation(
        "name that a killed process made not synced",
        "a synced record's file is found again",
        [Edit("store/partition_log.py", "            self._made(path)  # maybe by", "            pass  # maybe by")],
    ),
    Mutation(
        "names of the journal not synced",
        "a new directory is whole when it has its identity",
        [Edit("store/recovery.py", "    disk.sync_directory(join(root, JOURNAL))\n", "")],
    ),
    Mutation(
        "name of the data directory not synced",
        "a data directory survives a power cut",
        [Edit("store/recovery.py", "            disk.sync_directory(parent(root))\n", "            pass\n")],
    ),
    Mutation(
        "length of a sealed segment not synced",
        "a refused batch never comes back",
        [Edit("store/partition_log.py", "        self.volume.sealed(self.active_path)\n", "")],
        ["tests/store/test_store_recovery.py::test_a_segment_is_sealed_at_the_length_that_a_killed_process_gave_it"],
    ),
    Mutation(
        "segment not cut at recovery",
        "behind the known end of a segment there is nothing",
        [
            Edit(
                "store/partition_log.py",
                "            file.truncate(self.position)\n            self.volume.wrote(path)\n        self._prepare_index(path)",
                "            pass\n        self._prepare_index(path)",
            )
        ],
    ),
    Mutation(
        "failed append not cut",
        "a failed append leaves nothing behind",
        [Edit("store/partition_log.py", "        self.is_prepared = False\n        self._check()\n", "        self._check()\n")],
    ),
    Mutation(
        "failed append counts in the segment",
        "a failed append leaves nothing behind",
        [Edit("store/store.py", "            log.restore(before)\n", "            pass\n")],
    ),
    Mutation(
        "short write taken for a whole one",
        "a write either is complete or raises",
        [Edit("store/files.py", "    if written == size:\n", "    if written:\n")],
    ),
    Mutation(
        "producers not learned by the store",
        "a retry after a restart is written once",
        [Edit("store/partition_log.py", "                self.undo.apply(self.producers, header)\n", "                pass\n")],
    ),
    Mutation(
        "producers forgotten by the checkpoint",
        "a retry after a restart is written once",
        [Edit("store/partition_log.py", "ProducerStates(entry.producers) if entry.producers else None", "None")],
    ),
    Mutation(
        "log start forgotten by recovery",
        "records whose deletion was answered do not come back",
        [Edit("store/recovery.py", "            log.move_log_start(min(log_start, log.log_end))\n", "            pass\n")],
    ),
    Mutation(
        "log start not told to the journal",
        "records whose deletion was answered do not come back",
        [
            Edit(
                "store/store.py",
                "        refusal = self._write_item(formats.encode_log_start(partition, log_start))\n",
                "        refusal = None\n",
            )
        ],
    ),
    Mutation(
        "stamps not checked",
        "a damaged batch is reported, never sent to a reader",
        [
            Edit("batch.py", "    if crc32c(data[position : position + _STAMP.size], seed) != stamp_crc or magic", "    if magic"),
            Edit(
                "client/intake.py",
                "        check_stamp(header, data, stamp_seed(PartitionId(self.inbox.fetcher.topic_id, chunk.partition)), position)\n",
                "",
            ),
        ],
        ["tests/sim/test_sim_cluster.py::test_a_bit_of_a_batch_header_on_the_disk_harms_that_partition_only"],
    ),
    Mutation(
        "damaged index not rebuilt at a read",
        "an index is never trusted",
        [Edit("store/reading.py", "        log.rebuild_index(base)\n", "        pass\n")],
    ),
)
