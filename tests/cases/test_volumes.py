"""The volumes of a pod: modes and paths of files, what is missing, subPaths, and content that changes while it runs."""

from __future__ import annotations

import base64
import json
import tarfile
from typing import Any

import pytest

from cumulet.node.tokens import renewal
from tests.cases.path import ThePath, pod
from tests.cases.test_environment import config_map, secret
from tests.instances.images import busybox_layer, entry, layer


@pytest.fixture(scope="module", autouse=True)
def recovering(path: ThePath) -> str:
    """Return a pod that fails once, and whose secret is changed then. Its back-off passes while other tests run."""
    main: dict[str, Any] = {"name": "main", "command": ["sh", "-c", "echo $K $0; test $K = right", "$(K)"]}
    main["envFrom"] = [{"secretRef": {"name": "wrong"}}]
    path.apply(secret("wrong", {"K": "wrong"}), pod("recovers", [main], restartPolicy="OnFailure"))
    path.until(lambda: path.kubectl("logs", "recovers", code=None) == "wrong wrong\n", "first attempt")
    path.apply(secret("wrong", {"K": "right"}))
    return "recovers"


def mounts(*names: str) -> list[dict[str, str]]:
    """Each volume at a path of its name."""
    return [{"name": name, "mountPath": f"/{name}"} for name in names]


def test_files_have_their_paths_and_modes(path: ThePath) -> None:
    script = "#!/bin/sh\necho it ran\nls -Lln /s/bin/go.sh /k/id_rsa /k/other | cut -c1-10\nls /all /all/labels /all/deep\n"
    path.apply(
        config_map("run", {"go.sh": script, "left": "out"}, binaryData={"raw": "AAH/"}),
        secret("key", {"k": "private", "o": "other"}),
    )
    items = [{"key": "k", "path": "id_rsa", "mode": 0o400}, {"key": "o", "path": "./other"}]
    downward = {
        "items": [
            {"path": "labels/all", "fieldRef": {"fieldPath": "metadata.labels"}},
            {
                "path": "labels/cpu",
                "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"},
                "mode": 0o440,
            },
        ]
    }
    volumes = [
        {"name": "s", "configMap": {"name": "run", "items": [{"key": "go.sh", "path": "bin/go.sh", "mode": 0o755}]}},
        {"name": "k", "secret": {"secretName": "key", "items": items, "defaultMode": 0o600}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "run", "items": [{"key": "raw", "path": "deep/raw"}]}},
                    {"secret": {"name": "key"}},
                    {"secret": {"name": "absent", "optional": True}},
                    {"downwardAPI": downward},
                    {"serviceAccountToken": {"path": "token"}},
                ]
            },
        },
    ]
    main = {"name": "main", "command": ["/s/bin/go.sh"], "volumeMounts": mounts("s", "k", "all")}
    path.apply(pod("items", [main], volumes=volumes, restartPolicy="Never"))
    assert path.output("items").split() == [
        *("it", "ran", "-r--------", "-rw-------", "-rwxr-xr-x"),
        *("/all:", "deep", "k", "labels", "o", "token", "/all/deep:", "raw", "/all/labels:", "all", "cpu"),
    ]


#: Volumes that hold a pod back, the reason, and what lets it start.
MISSING: dict[str, tuple[dict[str, Any], str, dict[str, Any] | None]] = {
    "no-key": (
        {"configMap": {"name": "short", "items": [{"key": "not-there", "path": "x"}]}},
        "references non-existent config key: not-there",
        config_map("short", {"not-there": "x"}),
    ),
    "no-secret": ({"secret": {"secretName": "late"}}, 'secret "late" not found', secret("late", {"x": "x"})),
    "no-two": (
        {"projected": {"sources": [{"secret": {"name": "late-2"}}, {"configMap": {"name": "late-3"}}]}},
        '[secret "late-2" not found, configmap "late-3" not found]',
        None,
    ),
    "conflict": (
        {
            "projected": {
                "sources": [
                    {"downwardAPI": {"items": [{"path": "a/b", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                    {"configMap": {"name": "conflict"}},
                ]
            }
        },
        "the file a/b is in a, which is a file",
        None,
    ),
}


def test_what_is_missing_holds_a_pod_back(path: ThePath) -> None:
    path.apply(config_map("short", {"k": "v"}), config_map("conflict", {"a": "v"}))
    main = {"name": "main", "command": ["cat", "/v/x"], "volumeMounts": mounts("v")}
    path.apply(
        *(
            pod(f"missing-{name}", [main], volumes=[{"name": "v", **volume}], restartPolicy="Never")
            for name, (volume, _, _) in MISSING.items()
        )
    )
    for name, (_, reason, _) in MISSING.items():
        message = path.events(f"missing-{name}", "FailedMount")
        assert message.startswith('MountVolume.SetUp failed for volume "v" : ')
        assert reason in message
        status = path.get(f"missing-{name}")["status"]
        assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    path.apply(*(cure for _, _, cure in MISSING.values() if cure is not None))
    for name, (_, _, cure) in MISSING.items():
        if cure is not None:
            assert path.output(f"missing-{name}") == "x"


def test_there_can_be_many_and_large_ones(path: ThePath) -> None:
    large = [config_map(f"large-{number}", {"k": str(number) * 1_000_000}) for number in range(5)]
    volumes = [{"name": f"v{number}", "configMap": {"name": f"large-{number % 5}"}} for number in range(5)]
    volumes += [{"name": f"e{number}", "emptyDir": {}} for number in range(40)]
    token = {"sources": [{"serviceAccountToken": {"path": "t"}}]}
    volumes.append({"name": "token", "projected": token})
    names = [str(volume["name"]) for volume in volumes]
    command = [
        "sh",
        "-c",
        "cat /v?/k | wc -c; ls -d /e* | wc -l; stat -L -c '%a %g' /token/t; cat /token/t >/dev/null",
    ]
    main = {"name": "main", "command": command, "volumeMounts": mounts(*names)}
    context = {"runAsUser": 1000, "fsGroup": 2000}
    many = pod("many-volumes", [main], volumes=volumes, securityContext=context, restartPolicy="Never")
    document = {"apiVersion": "v1", "kind": "List", "items": [*large, many]}
    path.kubectl("create", "-f", "-", stdin=json.dumps(document))
    assert path.output("many-volumes").splitlines() == ["5000000", "41", "640 2000"]


def test_sub_paths(path: ThePath) -> None:
    own = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    write = {
        "name": "main",
        "command": ["sh", "-c", "stat -c %a /data; touch /data/x /mine/f; cat /etc/app/one; ls -R /all"],
        "env": [own],
        "volumeMounts": [
            {"name": "c", "mountPath": "/etc/app/one", "subPath": "k"},
            {"name": "e", "mountPath": "/data", "subPath": "a/b"},
            {"name": "e", "mountPath": "/mine", "subPathExpr": "$(POD_NAME)"},
            *mounts("e"),
            {"name": "e", "mountPath": "/all", "readOnly": True, "recursiveReadOnly": "Enabled"},
        ],
    }
    path.apply(config_map("one", {"k": "a file\n"}))
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "one"}}]
    path.apply(pod("sub", [write], volumes=volumes, securityContext={"runAsUser": 1000}, restartPolicy="Never"))
    assert path.output("sub").splitlines() == [
        *("777", "a file", "/all:", "a", "sub", "", "/all/a:", "b", "", "/all/a/b:", "x", "", "/all/sub:", "f")
    ]


def test_mounts_stay_in_the_root_whatever_its_links(path: ThePath) -> None:
    links = [
        ("out", "/../../../../tmp"),
        ("absolute", "/real"),
        ("relative", "bin/../real"),
        ("chain", "absolute/deep"),
    ]
    entries = [entry(name, type=tarfile.SYMTYPE, linkname=target) for name, target in links]
    entries += [entry("real", type=tarfile.DIRTYPE, mode=0o755), entry("real/a-file", b"of the image")]
    image = path.push("links:1", [busybox_layer(), layer(*entries)])
    path.apply(config_map("mounted", {"k": "mounted\n"}))
    folders = [{"name": "e", "mountPath": f"/{name}/{name}"} for name, _ in links]
    file = {"name": "c", "mountPath": "/real/a-file", "subPath": "k"}
    command = ["sh", "-c", "cut -d' ' -f2 /proc/mounts; cat /real/a-file"]
    main = {"name": "main", "image": image, "command": command, "volumeMounts": [file, *folders]}
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "mounted"}}]
    path.apply(pod("links", [main], volumes=volumes, restartPolicy="Never"))
    mounted = path.output("links").split()
    for where in ("/tmp/out", "/real/absolute", "/real/relative", "/real/deep/chain"):
        assert where in mounted
    assert mounted[-1] == "mounted"


def claims(token: str) -> dict[str, Any]:
    """The claims of a token."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def test_content_changes_while_the_pod_runs(path: ThePath) -> None:
    path.apply(
        config_map("changes", {"k": "one"}),
        config_map("fixed", {"k": "one"}, immutable=True),
        config_map("leaves", {"k": "one"}),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "renewed"}},
    )
    token = {"sources": [{"serviceAccountToken": {"audience": "api", "expirationSeconds": 600, "path": "t"}}]}
    volumes = [
        {"name": "changes", "configMap": {"name": "changes"}},
        {"name": "fixed", "configMap": {"name": "fixed"}},
        {"name": "leaves", "configMap": {"name": "leaves"}},
        {"name": "later", "secret": {"secretName": "later", "optional": True}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "token", "projected": token},
    ]
    names = [str(volume["name"]) for volume in volumes]
    main = {"name": "main", "command": ["sleep", "1000"], "volumeMounts": mounts(*names)}
    main["env"] = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "changes", "key": "k"}}}]
    path.apply(pod("live", [main], volumes=volumes, serviceAccountName="renewed"))
    path.wait_phase("live", "Running")

    def read(command: str) -> str:
        return path.kubectl("exec", "live", "--", "sh", "-c", command, code=None)

    before = claims(read("cat /token/t"))
    assert before["exp"] - before["iat"] == 600
    assert before["aud"] == ["api"]
    assert read("cat /*/k; cat /labels/l") == 'oneoneoneapp="live"'

    path.kubectl("delete", "configmap", "fixed", "leaves")
    path.kubectl("delete", "serviceaccount", "renewed")
    path.apply(
        config_map("changes", {"k": "two", "new": "file"}),
        config_map("fixed", {"k": "two"}),
        secret("later", {"k": "there"}),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "renewed"}},
    )
    path.kubectl("label", "pod", "live", "note=new")
    account = path.get("renewed", "serviceaccount")["metadata"]["uid"]
    for command, wanted in [
        ("cat /changes/k", "two"),
        ("cat /later/k", "there"),
        ("cat /labels/l", 'app="live"\nnote="new"'),
    ]:
        path.until(lambda command=command, wanted=wanted: read(command) == wanted, command)  # type: ignore[misc]
    path.until(lambda: claims(read("cat /token/t"))["kubernetes.io"]["serviceaccount"]["uid"] == account, "new token")
    assert read("cat /fixed/k /leaves/k; ls /changes; ls -A /changes | grep -c '^\\.\\.2'; echo $K") == (
        "oneonek\nnew\n1\none\n"
    )
    assert read("readlink /changes/k; ls -l /changes/..data | cut -c1") == "..data/k\nl\n"
    assert 'configmap "leaves" not found' in path.events("live", "FailedMount")
    assert path.get("live")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_environment_is_that_of_the_next_start(path: ThePath, recovering: str) -> None:
    assert path.output(recovering) == "right right\n"
    assert path.kubectl("logs", "--previous", recovering) == "wrong wrong\n"


@pytest.mark.parametrize(("life", "age"), [(600, 480), (3600, 2880), (200_000, 86_400)])
def test_a_token_is_renewed_after_80_percent_of_its_life(life: int, age: int) -> None:
    assert renewal(1_000_000, life) == 1_000_000 - life + age
