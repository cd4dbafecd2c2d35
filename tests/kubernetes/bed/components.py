"""The programs of a bed: how each is called, and when it is ready.

They listen on the loopback of the bed's own network, except the API server, the kubelet and the name
server, which listen on the bed's end of the link.

Scheduler, controllers and operator hold leases, as elsewhere: without the API server they lose them, and end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .binaries import folder, program
from .places import HERE, Place

PKI = HERE / "pki"
ETCD = "http://127.0.0.1:2379"
#: The real node; simulated ones have this label, and a taint of the same name.
REAL_NODE = "real"
SIMULATED = "bed/simulated"


@dataclass(frozen=True)
class Component:
    """A program that runs as long as the bed.

    Parameters
    ----------
    name : str
        Its name, and that of its log.
    command : tuple of str
        What is called.
    ready : str
        An address that answers 200 when it is ready; empty if there is none.
    environment : dict
        Variables.
    """

    name: str
    command: tuple[str, ...]
    ready: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def _component(name: str, binary: str | Path, *flags: str, ready: str = "", **environment: str) -> Component:
    return Component(name, (str(binary), *flags), ready, environment)


def etcd() -> Component:
    """Keep the state; in memory of the kernel rather than safe on the disk."""
    return _component(
        "etcd",
        program("kube", "server"),
        f"--data-dir={HERE}/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
        ready=f"{ETCD}/health",
    )


def api_server(place: Place) -> Component:
    """Serve the API, with RBAC."""
    return _component(
        "kube-apiserver",
        program("kube", "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--bind-address={place.node}",
        f"--advertise-address={place.node}",
        "--secure-port=6443",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver-server.crt",
        f"--tls-private-key-file={PKI}/apiserver-server.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        f"--kubelet-client-certificate={PKI}/apiserver-client.crt",
        f"--kubelet-client-key={PKI}/apiserver-client.key",
        "--kubelet-preferred-address-types=InternalIP",  # the node's name is in no DNS
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={PKI}/tokens.key",
        f"--service-account-signing-key-file={PKI}/tokens.key",
        f"--service-cluster-ip-range={place.services}",
        ready=f"{place.api}/readyz",
    )


def _with_kubeconfig(name: str) -> list[str]:
    path = f"{PKI}/{name}.kubeconfig"
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--bind-address=127.0.0.1",
    ]


def controller_manager() -> Component:
    """Make accounts and endpoints, count quotas, delete what has lost its owner."""
    return _component(
        "kube-controller-manager",
        program("kube", "kube-controller-manager"),
        *_with_kubeconfig("controller-manager"),
        f"--service-account-private-key-file={PKI}/tokens.key",
        f"--root-ca-file={PKI}/ca.crt",
        f"--cluster-signing-cert-file={PKI}/ca.crt",
        f"--cluster-signing-key-file={PKI}/ca.key",
        "--use-service-account-credentials=true",
    )


def scheduler() -> Component:
    """Give pods their nodes."""
    return _component("kube-scheduler", program("kube", "kube-scheduler"), *_with_kubeconfig("scheduler"))


def operator() -> Component:
    """Make pods of RayClusters."""
    return _component(
        "kuberay-operator",
        program("kuberay", "ray-operator"),
        "--leader-election-namespace=kube-system",
        "--use-kubernetes-proxy",  # it is not itself a pod
        "--metrics-addr=127.0.0.1:8080",
        "--health-probe-bind-address=127.0.0.1:8082",
        ready="http://127.0.0.1:8082/readyz",
        KUBECONFIG=f"{PKI}/kuberay.kubeconfig",
    )


def kwok(place: Place) -> Component:
    """Play the kubelet of simulated nodes."""
    stages = sorted(folder("kwok").rglob("*.yaml"))
    return _component(
        "kwok",
        program("kwok", "kwok"),
        f"--kubeconfig={PKI}/kwok.kubeconfig",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={SIMULATED}",
        "--node-lease-duration-seconds=40",
        f"--cidr={place.simulated_pods}",
        "--server-address=127.0.0.1:10247",
        *(f"--config={stage}" for stage in stages),
        ready="http://127.0.0.1:10247/healthz",
    )


def containerd() -> Component:
    """Run containers."""
    return _component("containerd", "containerd", f"--config={HERE}/containerd.toml")


def kubelet(place: Place) -> Component:
    """Run the pods of the real node."""
    return _component(
        "kubelet",
        program("kube", "kubelet"),
        f"--config={HERE}/kubelet.json",
        f"--kubeconfig={PKI}/kubelet.kubeconfig",
        f"--hostname-override={REAL_NODE}",
        f"--node-ip={place.node}",
        f"--root-dir={HERE}/kubelet",
        ready="http://127.0.0.1:10248/healthz",
    )


def write_kubelet_config(place: Place) -> None:
    """Write what the kubelet takes from a file."""
    content = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.node,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{PKI}/ca.crt"}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{PKI}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet-server.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.link}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "clusterDNS": [place.node],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{HERE}/resolv.conf",
        "containerRuntimeEndpoint": f"unix://{HERE}/containerd.sock",
        "podLogsDir": f"{HERE}/pods",
        # The disk is the machine's: a bed neither removes images nor evicts pods because others fill it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    (place.folder / "kubelet.json").write_text(json.dumps(content, indent=1))
    (place.folder / "resolv.conf").write_text(f"nameserver {place.node}\n")


def coredns(place: Place) -> Component:
    """Answer for the names of services and pods."""
    (place.folder / "Corefile").write_text(
        f"""cluster.local in-addr.arpa {{
  bind {place.node}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {PKI}/coredns.kubeconfig
    ttl 0
  }}
}}
"""
    )
    return _component("coredns", program("coredns", "coredns"), f"-conf={HERE}/Corefile")


def proxy(place: Place) -> Component:
    """Lead from the addresses of services to those of pods, by rules in the bed's own network."""
    return _component(
        "kube-proxy",
        program("kube", "kube-proxy"),
        f"--kubeconfig={PKI}/proxy.kubeconfig",
        f"--hostname-override={REAL_NODE}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={place.pods}",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        # These settings are the whole machine's: they stay what they are.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        ready="http://127.0.0.1:10256/livez",
    )
