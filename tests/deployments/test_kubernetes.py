"""What stands in the manifests works: each command and each probe, in the platform's order."""

import re

import pytest

from tests.deployments.containers import (
    EXAMPLE,
    HELD,
    HOLDING,
    Image,
    Machine,
    Running,
    check_deploy,
)
from tests.deployments.kubernetes import Cluster, Pod, get, verdict
from tests.processes.migrations import write
from tests.project import Project
from tests.waiting import wait_until

SHAPES = ("job.yaml", "entrypoint.yaml")
deployed = pytest.mark.parametrize("is_deployed", [True], ids=["deployed"])
BATCHES = """
from once import routine
from tests.shop.handshake import hold

@routine(over=lambda: ["first", "second"], batch_size=1)
def batches(items):
    hold(items[0])
"""
#: Of a release that brings nothing else.
MIGRATION = """
from django.db import migrations, models
from tests.shop.handshake import hold


class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Thing", [("id", models.BigAutoField(primary_key=True))]),
        migrations.RunPython(lambda apps, schema_editor: hold("migration")),
    ]
"""
DONE_ONCE = {(1, "succeeded")}
#: What a process says that waits for the routine of HOLDING.
WAITING = "plant.held_up is run by"


def start(machine: Machine, cluster: Cluster, pod: Pod, count: int = 1) -> list[Running]:
    return [machine.start(cluster.container(pod, pod.main)) for _ in range(count)]


def answers(cluster: Cluster, pod: Pod, name: str, running: Running) -> None:
    """Wait until a probe succeeds."""

    def succeeds() -> bool:
        assert running.process.is_running(), running.output
        return cluster.probe(pod, name, running)

    wait_until(succeeds, 60, lambda: f"{name}: {running.output}")


def serve_and_end(cluster: Cluster, pod: Pod, servers: list[Running]) -> None:
    """Each serves those who come by the Service, and ends in time when it is asked to."""
    host = cluster.one("ConfigMap")["data"]["ALLOWED_HOSTS"].split(",")[-1]
    for running in servers:
        for name in ("readinessProbe", "livenessProbe"):
            answers(cluster, pod, name, running)
        assert get(running.container.port, "/countries/ch/", host, 10) == 200
    end(pod, servers)


def end(pod: Pod, servers: list[Running]) -> None:
    """Ask all to end, at once, as a node that is drained does."""
    for running in servers:
        running.ask_to_end()
    for running in servers:
        assert running.end(pod.notice) == 0, running.output
        assert "[ERROR]" not in running.output, running.output


def attempts(project: Project) -> set[tuple[int, str]]:
    return {(number, state) for _, number, state in project.attempts()}


def test_job_runs_once_while_pods_wait(machine: Machine, project: Project, socket: str) -> None:
    cluster = Cluster(socket, "job.yaml")
    job, web = cluster.pod("Job"), cluster.pod("Deployment")
    machine.plant(HOLDING)
    [wait] = web.init
    waiting = [machine.start(cluster.container(web, wait)) for _ in range(3)]
    [early] = start(machine, cluster, web)  # as if it had not waited
    answers(cluster, web, "livenessProbe", early)

    jobs = start(machine, cluster, job, 2)
    project.wait_for("body")
    wait_until(
        lambda: any(WAITING in one.output for one in jobs),
        what=lambda: f"a job that waits: {[one.output for one in jobs]}",
    )
    assert len(project.reached("body")) == 1
    assert all(one.process.is_running() for one in [*jobs, *waiting])
    assert not cluster.probe(web, "readinessProbe", early)
    assert "event=startup" not in early.output  # it only looks

    project.release("body")
    for one in [*jobs, *waiting]:
        assert one.finish() == 0, one.output
    serve_and_end(cluster, web, [early, *start(machine, cluster, web, 3)])
    assert attempts(project) == DONE_ONCE
    assert project.rows("SELECT DISTINCT release FROM once_attempt") == [("3",)]


@deployed
def test_no_pod_serves_before_a_release_without_routines_has_migrated(
    machine: Machine, project: Project, socket: str
) -> None:
    cluster = Cluster(socket, "job.yaml")
    web = cluster.pod("Deployment")
    [wait] = web.init
    old = start(machine, cluster, web)
    answers(cluster, web, "readinessProbe", old[0])

    write(project, "0001_thing", MIGRATION)
    machine.extra["EXTRA_APPS"] = "plant"
    waiting = [machine.start(cluster.container(web, wait)) for _ in range(2)]
    for pod in waiting:
        pod.process.wait_for("lacks migrations of this code (plant.0001_thing)")
    early = start(machine, cluster, web)  # as if it had not waited
    answers(cluster, web, "livenessProbe", early[0])
    assert not cluster.probe(web, "readinessProbe", early[0])
    [job] = start(machine, cluster, cluster.pod("Job"))
    project.wait_for("migration")
    assert all(pod.process.is_running() for pod in [*waiting, job])
    assert not cluster.probe(web, "readinessProbe", early[0])

    project.release("migration")
    for pod in [job, *waiting]:
        assert pod.finish() == 0, pod.output
    answers(cluster, web, "readinessProbe", early[0])
    # The old release on the newer schema: a pod that served, and one that is rescheduled.
    del machine.extra["EXTRA_APPS"]
    assert cluster.probe(web, "readinessProbe", old[0])
    assert machine.start(cluster.container(web, wait)).finish() == 0
    old += start(machine, cluster, web)
    serve_and_end(cluster, web, [*old, *early])


@deployed
def test_job_fails_at_once_where_a_routine_is_held(machine: Machine, socket: str) -> None:
    cluster = Cluster(socket, "job.yaml")
    job, web = cluster.one("Job"), cluster.pod("Deployment")
    machine.plant(HELD)
    codes: list[int] = []
    verdicts: list[str] = []
    while not {"FailJob", "Complete"} & set(verdicts):
        assert verdicts.count("Count") <= job["spec"]["backoffLimit"]
        [pod] = start(machine, cluster, cluster.pod("Job"))
        codes.append(pod.finish())
        verdicts.append(verdict(job, pod.container.name, codes[-1]))
    assert codes == [1, 5]
    assert verdicts == ["Count", "FailJob"]
    [wait] = web.init
    assert machine.start(cluster.container(web, wait)).finish() == 5


@deployed
def test_job_fails_at_once_where_it_is_used_wrongly(machine: Machine, socket: str) -> None:
    cluster = Cluster(socket, "job.yaml")
    unknown, unset = cluster.pod("Job"), cluster.pod("Job")
    unknown.main["command"] = [*unknown.main["command"], "no.such_routine"]
    unset.main["env"] = [{"name": "ONCE_RELEASE", "value": ""}]
    for pod in (unknown, unset):
        [running] = start(machine, cluster, pod)
        assert verdict(cluster.one("Job"), running.container.name, running.finish()) == "FailJob"


def test_job_is_a_hook_that_needs_nothing_of_its_release(socket: str) -> None:
    cluster = Cluster(socket, "job.yaml")
    annotations = cluster.one("Job")["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook"] == "PreSync"
    assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
    pod = cluster.pod("Job")
    assert [list(source) for source in pod.main["envFrom"]] == [["secretRef"]]
    assert [set(volume) for volume in pod.spec["volumes"]] == [{"name", "emptyDir"}]


def test_disruption_is_no_failure_of_the_job(socket: str) -> None:
    job = Cluster(socket, "job.yaml").one("Job")
    for code in (5, 137, 143):
        assert verdict(job, "once", code, disrupted=True) == "Ignore"
    assert verdict(job, "once", 137) == "Count"


@deployed
@pytest.mark.parametrize(("file", "kind"), [("job.yaml", "Job"), ("entrypoint.yaml", "Deployment")])
def test_pod_that_is_asked_to_end_ends_the_batch_in_hand(
    machine: Machine, project: Project, socket: str, file: str, kind: str
) -> None:
    cluster = Cluster(socket, file)
    pod = cluster.pod(kind)
    machine.plant(BATCHES)
    [running] = start(machine, cluster, pod)
    project.wait_for("first")
    running.ask_to_end()
    running.process.wait_for("Ending: first the batch in hand")
    project.release("first")
    assert running.end(pod.notice) == 143, running.output
    assert project.rows(
        "SELECT state, processed FROM once_attempt WHERE routine = 'plant.batches'"
    ) == [("interrupted", 1)]
    assert not project.reached("second")


def test_entrypoint_runs_once_before_the_pods_serve(
    machine: Machine, project: Project, socket: str
) -> None:
    cluster = Cluster(socket, "entrypoint.yaml")
    pod = cluster.pod("Deployment")
    machine.plant(HOLDING)
    servers = start(machine, cluster, pod, cluster.one("Deployment")["spec"]["replicas"])
    project.wait_for("body")
    wait_until(
        lambda: sum(WAITING in one.output for one in servers) == len(servers) - 1,
        what=lambda: f"pods that wait: {[one.output for one in servers]}",
    )
    assert len(project.reached("body")) == 1
    assert not any(cluster.probe(pod, "startupProbe", one) for one in servers)
    project.release("body")
    for one in servers:
        answers(cluster, pod, "startupProbe", one)
    serve_and_end(cluster, pod, servers)
    assert attempts(project) == DONE_ONCE
    assert project.rows("SELECT DISTINCT release FROM once_attempt") == [("3",)]


@deployed
def test_entrypoint_does_not_serve_where_a_routine_failed(machine: Machine, socket: str) -> None:
    cluster = Cluster(socket, "entrypoint.yaml")
    machine.plant(HELD)
    codes = [start(machine, cluster, cluster.pod("Deployment"))[0].finish() for _ in range(2)]
    assert codes == [1, 5]


def test_liveness_does_not_ask_whether_everything_is_done(
    machine: Machine, project: Project
) -> None:
    cluster = Cluster(project.directory / "no-database", "job.yaml")
    pod = cluster.pod("Deployment")
    [running] = start(machine, cluster, pod)
    answers(cluster, pod, "livenessProbe", running)
    assert not cluster.probe(pod, "readinessProbe", running)
    end(pod, [running])


def test_startup_probe_has_the_patience_of_the_rollout(socket: str) -> None:
    deployment = Cluster(socket, "entrypoint.yaml").one("Deployment")["spec"]
    [container] = deployment["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience == deployment["progressDeadlineSeconds"] == 3600
    # Asking the other view, it would have the same patience for what a person must decide.
    assert probe["httpGet"] == container["livenessProbe"]["httpGet"]


@pytest.mark.parametrize("file", SHAPES)
def test_release_is_the_same_everywhere(file: str, socket: str) -> None:
    cluster = Cluster(socket, file)
    pods = [cluster.pod("Deployment")]
    if file == "job.yaml":
        pods.append(cluster.pod("Job"))
    releases = {pod.labels["app.kubernetes.io/version"] for pod in pods}
    releases |= {one["image"].partition(":")[2] for pod in pods for one in pod.containers}
    [release] = releases
    text = (EXAMPLE / "kubernetes" / file).read_text()
    assert f"# The release is {release}." in text
    if file == "job.yaml":
        assert cluster.one("Job")["metadata"]["name"].endswith(f"-{release}")


@pytest.mark.parametrize("file", SHAPES)
def test_service_finds_the_servers_and_nothing_else(file: str, socket: str) -> None:
    cluster = Cluster(socket, file)
    service, web = cluster.one("Service")["spec"], cluster.pod("Deployment")
    selectors = [
        service["selector"],
        cluster.one("Deployment")["spec"]["selector"]["matchLabels"],
        cluster.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= web.labels.items()
        if file == "job.yaml":
            assert not selector.items() <= cluster.pod("Job").labels.items()
    [port] = service["ports"]
    assert web.port(port["targetPort"])


@pytest.mark.parametrize("file", SHAPES)
def test_containers_may_do_no_more_than_they_must(file: str, socket: str) -> None:
    cluster = Cluster(socket, file)
    kinds = ["Deployment", "Job"] if file == "job.yaml" else ["Deployment"]
    # A name could be root's, so that runAsNonRoot would refuse it.
    assert re.fullmatch("[1-9][0-9]*", Image(EXAMPLE / "Dockerfile").user)
    for pod in map(cluster.pod, kinds):
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["shareProcessNamespace"] is True  # PID 1 heeds no SIGTERM by itself
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            [mount] = container["volumeMounts"]
            assert mount["mountPath"] == "/tmp"
            [volume] = pod.spec["volumes"]
            assert volume["name"] == mount["name"]
            assert volume["emptyDir"]["sizeLimit"]
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert set(container["resources"]["limits"]) == {"memory"}


@pytest.mark.parametrize("file", SHAPES)
def test_lost_node_leaves_servers(file: str, socket: str) -> None:
    cluster = Cluster(socket, file)
    deployment = cluster.one("Deployment")["spec"]
    budget = cluster.one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < deployment["replicas"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert {one["topologyKey"].partition("/")[2] for one in spread} == {"zone", "hostname"}
    for one in spread:
        assert one["labelSelector"] == deployment["selector"]
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"  # one node may have to do


@pytest.mark.parametrize("file", SHAPES)
def test_settings_are_fit_for_a_deploy(file: str) -> None:
    cluster = Cluster("nowhere", file)
    web = cluster.pod("Deployment")
    check_deploy(cluster.environment(web, web.main))
