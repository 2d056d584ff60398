"""The steps of the demonstration, from an empty machine to an empty machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from cumulet.common.config import Address, ConfigError, load
from cumulet.demo import engine as engines
from cumulet.demo import machine
from cumulet.demo.terminal import StepError, Terminal
from cumulet.up.lifecycle import is_running, stop

_GROUP = "aks-rg2"
_REGISTRY = "acrdemo2ss"
_NODE = "virtual-node-aci-linux"
_REPOSITORY = "app3/acr-app3"
_DEPLOYMENT = "acrdemo2ss-deployment"
_ORDINARY = "on-ordinary-node"
_SERVICE = "acrdemo2ss-loadbalancer-service"
_PAGE = "Welcome to app3: V1"
_WAITING = "jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=ImagePullBackOff"


def walk(data_dir: Path, *, keep: bool = False, pause: bool = False, up_options: tuple[str, ...] = ()) -> bool:
    """Run the demonstration with its own installation in `data_dir`, and remove that at the end.

    The remains of an earlier failed run are removed first. `keep` leaves the installation running. Return whether every
    step succeeded. After a failure the rooms are stopped and the data directory with the logs stays. Raises `StepError`
    if an earlier run is still running.
    """
    _remove_earlier(data_dir)
    return _Walk(data_dir, keep=keep, pause=pause, up_options=up_options).run()


class _Walk:
    def __init__(self, data_dir: Path, *, keep: bool, pause: bool, up_options: tuple[str, ...]) -> None:
        self._data_dir = data_dir
        self._keep = keep
        self._up = " ".join(["cumulet up --detach --node-pool 1", *up_options])
        self._before = machine.traces(data_dir)
        work = data_dir / "demo"
        shutil.copytree(_example(), work / "app3")
        environment = {
            **os.environ,
            # The commands of this Python environment take precedence.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "CUMULET_DATA_DIR": str(data_dir),
            "COLUMNS": "200",
            **engines.private_settings(work / "engine"),
        }
        self._terminal = Terminal(work / "app3", environment, pause=pause)
        self._engine = engines.choose(environment)
        self._image = ""

    def run(self) -> bool:
        steps: list[tuple[str, Callable[[], None]]] = [
            ("Start the rooms; create a resource group and a private registry", self._rooms),
            (f"Build the image with {self._engine.name} and test it", self._build),
            ("Create service principals: one may push, one may pull", self._principals),
            ("Push the image", self._push),
            ("Attach the registry: an ordinary node pulls without a secret", self._attached),
            ("Deploy to the virtual node without the pull secret: an event says why that fails", self._refused),
            ("Create the pull secret: the pod starts", self._secret),
            ("The EXTERNAL-IP serves the page", self._serve),
            ("Inspect: logs, exec, scale", self._look),
            ("Show the cost", self._cost),
            ("Clean up, and check that nothing is left", self._clean_up),
        ]
        if self._keep:
            del steps[-1]
        try:
            for number, (title, step) in enumerate(steps, start=1):
                self._terminal.step(number, len(steps), title)
                step()
        except StepError as reason:
            self._terminal.failed(str(reason))
            self._terminal.run("cumulet down", code=None)
            self._terminal.say(f"Logs of the rooms: {self._data_dir / 'logs'}")
            return False
        except KeyboardInterrupt:
            self._terminal.failed("interrupted")
            self._terminal.run("cumulet down", code=None)
            return False
        if self._keep:
            self._terminal.done(
                f'The installation is running. Use it: eval "$(cumulet --data-dir {self._data_dir} env)". Stop it: '
                f"cumulet --data-dir {self._data_dir} down"
            )
        else:
            self._terminal.done("The whole path ran, and nothing is left on this machine.")
        return True

    def _rooms(self) -> None:
        terminal = self._terminal
        terminal.run(self._up)
        self._adopt_environment()
        terminal.run("cumulet status")
        terminal.run(f"cumulet group create {_GROUP}")
        terminal.run(f"cumulet registry create {_REGISTRY} --resource-group {_GROUP}")
        server = terminal.run(f"cumulet registry show {_REGISTRY} --query properties.loginServer --output tsv")
        terminal.check("the login server is acrdemo2ss.azurecr.io", server == f"{_REGISTRY}.azurecr.io", server)
        terminal.run(f"kubectl wait --for=condition=Ready node/{_NODE} --timeout=30s")
        terminal.run("kubectl get nodes -o wide")

    def _adopt_environment(self) -> None:
        """Apply the exports of `cumulet env`."""
        for line in self._terminal.run("cumulet env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self._terminal.variables[name] = value.strip("'")
        registry = self._terminal.variables["CUMULET_REGISTRY"]
        self._image = f"{registry}/{_REPOSITORY}:v1"

    def _build(self) -> None:
        """Build and test the image. Objects that the engine creates meanwhile are not the rooms'."""
        idle = machine.traces(self._data_dir)
        self._try_image()
        for kind, names in machine.traces(self._data_dir).items():
            self._before[kind] |= names - idle[kind]

    def _try_image(self) -> None:
        terminal, engine = self._terminal, self._engine
        terminal.folder = terminal.folder / "docker-manifests"
        terminal.run('cp "$(command -v busybox)" .')
        terminal.run(engine.build)
        terminal.run(engine.images)
        port = Address("127.0.0.1", 0).free().port
        terminal.run(engine.run.format(port=port))
        try:
            page = terminal.run(
                f"curl --silent --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:{port}/"
            )
        finally:
            terminal.run(engine.stop, code=None)
        terminal.check("the image serves its page on this machine", _PAGE in page)
        terminal.folder = terminal.folder.parent

    def _principals(self) -> None:
        terminal = self._terminal
        scope = f'"$(cumulet registry show {_REGISTRY} --query id --output tsv)"'
        for name, role, prefix in (("acr-sp-demo", "AcrPull", "PULL"), ("acr-sp-push", "AcrPush", "PUSH")):
            made = terminal.run(f"cumulet sp create {name} --role {role} --scope {scope}", quiet=True)
            principal = json.loads(made)
            terminal.variables[f"{prefix}_ID"] = principal["appId"]
            terminal.variables[f"{prefix}_SECRET"] = principal["password"]
            terminal.say(f"{name}: id ${prefix}_ID={principal['appId']}, secret ${prefix}_SECRET")
        terminal.run(f"cumulet registry update {_REGISTRY} --admin-enabled --query properties.adminUserEnabled")
        admin = json.loads(terminal.run(f"cumulet registry credential {_REGISTRY}", quiet=True))
        terminal.variables["ADMIN_ID"] = admin["username"]
        terminal.variables["ADMIN_SECRET"] = admin["passwords"][0]["value"]
        upload = f"https://$CUMULET_REGISTRY/v2/{_REPOSITORY}/blobs/uploads/"
        curl = "curl --silent --show-error --write-out '\\n%{http_code}' --request POST"
        answer = terminal.run(f'{curl} --user "$PULL_ID:$PULL_SECRET" {upload}')
        terminal.check("AcrPull alone cannot push: 403 DENIED", "DENIED" in answer and answer.endswith("403"), answer)
        answer = terminal.run(f'{curl} --user "$PULL_ID:not-the-secret" {upload}')
        terminal.check("a wrong secret is refused: 401", answer.endswith("401"), answer)

    def _push(self) -> None:
        terminal, engine = self._terminal, self._engine
        registry = terminal.variables["CUMULET_REGISTRY"]
        terminal.run(engine.login.format(registry=registry, who="ADMIN"))
        terminal.say("The admin user can log in. The AcrPush principal pushes.")
        terminal.run(engine.login.format(registry=registry, who="PUSH"))
        terminal.run(engine.push.format(image=self._image))
        repositories = terminal.run(f"cumulet registry repositories {_REGISTRY}")
        terminal.check(f"the registry has the repository {_REPOSITORY}", _REPOSITORY in repositories, repositories)
        tags = terminal.run(f"cumulet registry tags {_REGISTRY} {_REPOSITORY}")
        terminal.check("it has the tag v1", json.loads(tags) == ["v1"], tags)

    def _attached(self) -> None:
        """A pod without selector and toleration goes to the ordinary node, whose identity pulls its image."""
        terminal = self._terminal
        terminal.run(f"cumulet registry attach {_REGISTRY} --query properties.scope --output tsv")
        terminal.run(f"kubectl run {_ORDINARY} --image={_REGISTRY}.azurecr.io/{_REPOSITORY}:v1")
        terminal.run(f"kubectl wait pod/{_ORDINARY} --for=condition=Ready --timeout=60s")
        terminal.run("kubectl get pods -o wide")
        node = terminal.run(f"kubectl get pod {_ORDINARY} -o jsonpath='{{.spec.nodeName}}'")
        terminal.check("it runs on the ordinary node, without a secret", node.startswith("aks-nodepool1-"), node)
        terminal.run(f"kubectl delete pod {_ORDINARY} --now")

    def _refused(self) -> None:
        terminal = self._terminal
        terminal.run("kubectl apply -f kube-manifests/")
        terminal.run(f"kubectl wait deployment/{_DEPLOYMENT} --for=jsonpath='{{.status.replicas}}'=1 --timeout=30s")
        terminal.run(f"kubectl wait pod -l app=acrdemo2ss --for={_WAITING} --timeout=60s")
        terminal.run("kubectl get pods -o wide")
        events = terminal.run("kubectl get events --field-selector type=Warning")
        told = "virtual nodes need one even if the registry is attached" in events
        terminal.check("the event says that the virtual node needs a secret, attached or not", told, events)

    def _secret(self) -> None:
        terminal = self._terminal
        terminal.run(
            "kubectl create secret docker-registry acrdemo2ss-secret --docker-server=acrdemo2ss.azurecr.io "
            '--docker-username="$PULL_ID" --docker-password="$PULL_SECRET"'
        )
        terminal.run(f"kubectl rollout status deployment/{_DEPLOYMENT} --timeout=60s")
        node = terminal.run("kubectl get pods -o jsonpath='{.items[*].spec.nodeName}'")
        terminal.check(f"the pod runs on {_NODE}", node == _NODE, node)

    def _serve(self) -> None:
        terminal = self._terminal
        terminal.run(
            f"kubectl wait service/{_SERVICE} --for=jsonpath='{{.status.loadBalancer.ingress[0].ip}}' --timeout=30s"
        )
        terminal.run("kubectl get svc")
        address = terminal.run(f"kubectl get service {_SERVICE} -o jsonpath='{{.status.loadBalancer.ingress[0].ip}}'")
        page = terminal.run(
            f"curl --silent --show-error --max-time 20 --retry 5 --retry-connrefused http://{address}/"
        )
        terminal.check(f"http://{address}/ serves the page", _PAGE in page, page)
        terminal.variables["EXTERNAL_IP"] = address

    def _look(self) -> None:
        terminal = self._terminal
        for command in ("get nodes", "get pods -o wide", "get svc", "get all", "describe pod -l app=acrdemo2ss"):
            terminal.run(f"kubectl {command}")
        log = terminal.run(f"kubectl logs deployment/{_DEPLOYMENT}")
        terminal.check("the log has the request for the page", "response:200" in log, log)
        self._follow()
        name = terminal.run(f"kubectl exec deployment/{_DEPLOYMENT} -- /bin/busybox hostname")
        terminal.check("a command ran inside the container", name.startswith(_DEPLOYMENT), name)
        terminal.run(f"kubectl exec deployment/{_DEPLOYMENT} -- /bin/busybox sh -c 'exit 7'", code=7)
        terminal.run(f"kubectl scale deployment/{_DEPLOYMENT} --replicas=3")
        terminal.run(f"kubectl rollout status deployment/{_DEPLOYMENT} --timeout=60s")
        nodes = terminal.run("kubectl get pods -o jsonpath='{.items[*].spec.nodeName}'").split()
        terminal.check("three pods run on the virtual node", nodes == [_NODE] * 3, " ".join(nodes))

    def _follow(self) -> None:
        terminal = self._terminal
        with terminal.following(f"kubectl logs --follow --tail=1 deployment/{_DEPLOYMENT}") as lines:
            terminal.show(next(lines))
            # The existing line has arrived, so the next one is written after the follower connected.
            terminal.run("curl --silent --output /dev/null http://$EXTERNAL_IP/")
            line = next(lines)
            terminal.show(line)
            terminal.check("the log follows new lines", "url:/" in line, line)

    def _cost(self) -> None:
        table = self._terminal.run("cumulet cost")
        self._terminal.check("every group is billed by the second", table.count(_DEPLOYMENT) >= 3, table)

    def _clean_up(self) -> None:
        terminal = self._terminal
        terminal.run("kubectl delete -f kube-manifests/")
        terminal.run("kubectl delete secret acrdemo2ss-secret")
        terminal.run("kubectl wait pod -l app=acrdemo2ss --for=delete --timeout=60s")
        terminal.run(f"cumulet registry delete {_REGISTRY}")
        terminal.run(f"cumulet group delete {_GROUP}")
        terminal.run(self._engine.forget.format(image=self._image), code=None)
        terminal.run("cumulet down")
        left = machine.left_behind(self._before, machine.traces(self._data_dir))
        terminal.check("no process, mount, namespace, link, rule, cgroup or file is left", not left, "; ".join(left))
        shutil.rmtree(self._data_dir)
        terminal.check("the data directory is removed", not self._data_dir.exists())


def _remove_earlier(data_dir: Path) -> None:
    if not data_dir.exists():
        return
    try:
        config = load(data_dir)
    except ConfigError:
        pass  # interrupted before the settings were written
    else:
        if is_running(config.data_dir):
            raise StepError(
                f"an earlier demonstration is still running. Stop it with `cumulet --data-dir {data_dir} down`"
            )
        stop(config)
    shutil.rmtree(data_dir)


def _example() -> Path:
    """Return the folder of the example application, in the installed package or in the checkout."""
    installed = Path(__file__).parent / "app3"
    return installed if installed.exists() else Path(__file__).parents[3] / "examples" / "app3"
