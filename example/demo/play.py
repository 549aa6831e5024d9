"""The acts, one after the other."""

from pathlib import Path

from example.demo import deploys, evidence, report
from example.demo.account import Account
from example.demo.databases import Database
from example.demo.partner import Partner
from example.demo.processes import Processes
from example.demo.rollout import Rollout
from example.demo.servers import Servers
from example.demo.stage import ActFailed, Stage

__all__ = ["play"]


def play(
    database: Database,
    control: Database,
    directory: Path,
    *,
    replicas: int,
    servers: int,
    workers: int,
) -> list[str]:
    """Play every act and print its table; what went wrong."""
    with (
        Partner() as partner,
        Processes(
            directory, {"DATABASE_URL": database.url, "PARTNER_URL": partner.url}
        ) as processes,
    ):
        stage = Stage(database=database, processes=processes, partner=partner)
        try:
            deploys.without_once(stage, control, replicas)
            return _play(stage, replicas, servers, workers)
        except ActFailed as error:
            return [str(error)]


def _play(stage: Stage, replicas: int, count: int, workers: int) -> list[str]:
    servers = Servers(stage.processes)
    wrong = _account_for(stage, deploys.first_deploy(stage, replicas))
    account, old = deploys.second_deploy(stage, servers, count, workers)
    wrong += _account_for(stage, account)
    rollout = Rollout(stage, servers, old)
    wrong += _account_for(stage, rollout.play())

    proofs = evidence.proofs(stage, rollout.load)
    stage.say(f"{report.proofs(proofs)}\n")
    wrong += [
        f"{one.witness}: {one.what}: {one.found}, not {one.expected}."
        for one in proofs
        if not one.is_right
    ]
    failures = rollout.load.failures.most_common(5)
    return wrong + [f"{what} ({times} times)" for what, times in failures]


def _account_for(stage: Stage, account: Account) -> list[str]:
    rows = account.rows.values()
    stage.say(f"\n{report.routines(rows)}\n")
    return [
        f"{row.name}: committed {row.committed} times in release {account.release}, "
        f"not {row.expected}."
        for row in rows
        if not row.is_right
    ]
